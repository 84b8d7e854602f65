"""Mutations that know how an image file is built: its checksums are right, its blocks whole, its claims wrong."""

import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.mutate import GENERIC, Mutator, interesting, with_bytes

_PNG = b"\x89PNG\r\n\x1a\n"
_KINDS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"iCCP", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"zTXt")
_MARKERS = (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xDA, 0xD9, 0xD0, 0xE0, 0xE1, 0xEE, 0xFE)
_SIZES = (1, 1, 2, 1, 4, 8, 1, 1, 2, 4, 8, 4, 8)  # of the types of TIFF's values

Blocks = list[bytes]


def mutators_of(data: bytes) -> tuple[Mutator, ...]:
    """Return what knows the format of a file."""
    if data.startswith(_PNG):
        return (png_chunks, png_chunks, png_header, png_pixels, header_integer)
    if data.startswith(b"\xff\xd8"):
        return (jpeg_segments, jpeg_segments, jpeg_scans, jpeg_size)
    if data[:4] == b"RIFF":
        return (riff_chunks, header_integer)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return (tiff_entries, tiff_entries, header_integer)
    if data[4:8] in (b"ftyp", b"jP  "):
        return (boxes, header_integer)
    return (header_integer,)


def header_integer(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    width = random.choice((1, 2, 4))
    if len(data) < 64:
        return data
    place, order = random.randrange(60), random.choice(("little", "big"))
    value = interesting(random, int.from_bytes(data[place : place + width], order))
    return with_bytes(data, place, (value % 256**width).to_bytes(width, order))


# --- PNG ----------------------------------------------------------------------------------------------------------


def png_chunks(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    def changed(chunk: bytes) -> bytes:
        kind, body = chunk[4:8], chunk[8:-4]
        if random.random() < 0.3:
            return _chunk(random.choice(_KINDS), body)
        return _chunk(kind, random.choice(GENERIC)(random, body, [body]))

    return _PNG + b"".join(_rearranged(random, _png_chunks(data), changed))


def png_header(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    chunks = _png_chunks(data)
    if not chunks or len(chunks[0]) != 25:
        return data
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][8:-4])
    values = [width, height, *rest]
    place = random.randrange(len(values))
    values[place] = interesting(random, values[place]) % (2**32 if place < 2 else 17)
    chunks[0] = _chunk(b"IHDR", struct.pack(">IIBBBBB", *values))
    return _PNG + b"".join(chunks)


def png_pixels(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change the packed lines, which are packed again: too few, too many, with wrong filters."""
    chunks = _png_chunks(data)
    packed = b"".join(chunk[8:-4] for chunk in chunks if chunk[4:8] == b"IDAT")
    try:
        lines = zlib.decompressobj().decompress(packed, 1 << 20)
    except zlib.error:
        return data
    lines = random.choice(GENERIC)(random, lines, [lines])
    new, found = _chunk(b"IDAT", zlib.compress(lines)), False
    kept = []
    for chunk in chunks:
        if chunk[4:8] != b"IDAT":
            kept.append(chunk)
        elif not found:
            kept.append(new)
            found = True
    return _PNG + b"".join(kept)


def _png_chunks(data: bytes) -> Blocks:
    chunks, place = [], len(_PNG)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place:end])
        place = end
    return chunks


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# --- JPEG ---------------------------------------------------------------------------------------------------------


def jpeg_segments(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    def changed(segment: bytes) -> bytes:
        marker = random.choice(_MARKERS) if random.random() < 0.2 else segment[1]
        body = random.choice(GENERIC)(random, segment[4:], [segment[4:]])[:65533]
        length = len(body) + 2 if random.random() < 0.8 else interesting(random, len(body)) % 65536
        return bytes([0xFF, marker]) + length.to_bytes(2, "big") + body

    segments, rest = _jpeg_segments(data)
    return b"\xff\xd8" + b"".join(_rearranged(random, segments, changed)) + rest


def jpeg_scans(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Repeat what comes behind the header, scan by scan."""
    first = data.find(b"\xff\xda")
    last = data.rfind(b"\xff\xda")
    if first < 0:
        return data
    scans = data[random.choice((first, last)) :].removesuffix(b"\xff\xd9")
    return data[:first] + data[first:].removesuffix(b"\xff\xd9") + scans * random.choice((1, 2, 30)) + b"\xff\xd9"


def jpeg_size(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        place = data.find(marker)
        if place >= 0 and place + 9 <= len(data):
            value = interesting(random, data[place + 6]) % 65536
            return with_bytes(data, place + random.choice((5, 7)), value.to_bytes(2, "big"))
    return data


def _jpeg_segments(data: bytes) -> tuple[Blocks, bytes]:
    segments, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        end = place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
        segments.append(data[place:end])
        place = end
    return segments, data[place:]


# --- RIFF, ISO's boxes, TIFF --------------------------------------------------------------------------------------


def riff_chunks(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    def changed(chunk: bytes) -> bytes:
        body = random.choice(GENERIC)(random, chunk[8:], [chunk[8:]])
        length = len(body) if random.random() < 0.8 else interesting(random, len(body)) % 2**32
        return chunk[:4] + length.to_bytes(4, "little") + body + b"\0" * (len(body) % 2)

    chunks, place = [], 12
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place + 4 : place + 8], "little")
        end += end % 2
        chunks.append(data[place:end])
        place = end
    body = data[8:12] + b"".join(_rearranged(random, chunks, changed))
    return b"RIFF" + (len(body) % 2**32).to_bytes(4, "little") + body


def boxes(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    def changed(box: bytes) -> bytes:
        body = random.choice(GENERIC)(random, box[8:], [box[8:]])
        length = len(body) + 8 if random.random() < 0.8 else interesting(random, len(body)) % 2**32
        return length.to_bytes(4, "big") + box[4:8] + body

    found, place = [], 0
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big") or len(data)
        found.append(data[place : place + max(8, length)])
        place += max(8, length)
    return b"".join(_rearranged(random, found, changed))


def tiff_entries(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    order = "<" if data.startswith(b"II") else ">"
    if len(data) < 8:
        return data
    (place,) = struct.unpack_from(f"{order}I", data, 4)
    if place + 2 > len(data):
        return data
    (count,) = struct.unpack_from(f"{order}H", data, place)
    entry = place + 2 + 12 * random.randrange(max(1, count))
    if entry + 12 > len(data):
        return data
    tag, kind, number, value = struct.unpack_from(f"{order}HHII", data, entry)
    which = random.randrange(5)
    if which == 0:
        tag = interesting(random, tag) % 65536
    elif which == 1:
        kind = random.randrange(len(_SIZES) + 3)
    elif which == 2:
        number = interesting(random, number) % 2**32
    elif kind == 3 and number == 1:  # a short, which lies in the first bytes of the field
        value = interesting(random, value & 0xFFFF if order == "<" else value >> 16) % 65536 << (order == ">") * 16
    else:
        value = interesting(random, value) % 2**32
    return with_bytes(data, entry, struct.pack(f"{order}HHII", tag, kind, number, value))


def _rearranged(random: Random, blocks: Blocks, changed: Callable[[bytes], bytes]) -> Blocks:
    """Delete, repeat, exchange or change a block."""
    if not blocks:
        return blocks
    place, other = random.randrange(len(blocks)), random.randrange(len(blocks))
    match random.randrange(6):
        case 0:
            return blocks[:place] + blocks[place + 1 :]
        case 1:
            return blocks[:place] + blocks[place : place + 1] * random.choice((2, 2, 20)) + blocks[place + 1 :]
        case 2:
            blocks[place], blocks[other] = blocks[other], blocks[place]
            return blocks
        case _:
            return [*blocks[:place], changed(blocks[place]), *blocks[place + 1 :]]

"""Remove metadata from PNG and JPEG files that Pillow rejects because of it although their pixels are intact.

Pillow has a process-wide limit on the decompressed text and colour profile of a PNG, and treats a short or damaged
metadata block as a damaged file. Neither affects the pixels. The orientation, which does, is kept.
"""

import struct
import zlib

from bottleneck.images.exif import is_bomb

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TEXT_BYTES = 16 << 20  # of decompressed text in one file that may contain the orientation
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_METADATA = (
    *(*_TEXTS, b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"sBIT", b"bKGD", b"hIST"),
    *(b"sPLT", b"tIME", b"acTL", b"fcTL", b"fdAT"),
)
_ORIENTING = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
_COMMENT = 0xFE
_MIN_BYTES = {(0xE0, b"JFIF"): 14, (0xEE, b"Adobe"): 12, (0xE1, b"Exif"): 6}  # minimum size of segments to keep


def without_metadata(data: bytes) -> bytes | None:
    """Return the file without metadata that does not affect pixels; None if there is none to remove.

    The image data, palette, transparency and orientation are kept byte for byte. This takes one pass over the headers
    of the blocks, and decompresses at most 16 MiB of text.
    """
    stripped = None
    if data.startswith(_PNG):
        stripped = _stripped_png(data)
    elif data.startswith(_JPEG):
        stripped = _stripped_jpeg(data)
    return stripped if stripped is not None and len(stripped) != len(data) else None


def _stripped_png(data: bytes) -> bytes:
    parts, place, remaining = [_PNG], len(_PNG), _TEXT_BYTES
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if not kind.isalpha():
            parts.append(data[place:])  # damaged: left for the decoder to report
            break
        affects_pixels = kind[:1].isupper() or kind == b"tRNS"  # upper case: a critical chunk
        if affects_pixels or (not _is_sound(data[place:end]) and _may_affect_pixels(kind, data[place + 8 : end])):
            parts.append(data[place:end])  # if damaged: left for the decoder to report
        elif kind == b"eXIf":
            parts.append(_png_chunk(kind, data[place + 8 : end - 4]))
        elif kind in _TEXTS:
            text = _plain_text(kind, data[place + 8 : end - 4], remaining)
            remaining -= len(text)
            parts.append(text)
        if kind == b"IEND":
            break
        place = end
    return b"".join(parts)


def _may_affect_pixels(kind: bytes, body: bytes) -> bool:
    """Return whether a damaged chunk may contain the orientation or transparency."""
    return kind not in _METADATA or (kind in _TEXTS and body.partition(b"\0")[0] in _ORIENTING)


def _is_sound(chunk: bytes) -> bool:
    """Return whether a chunk is complete and its checksum correct."""
    length = int.from_bytes(chunk[:4], "big")
    return len(chunk) == length + 12 and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _plain_text(kind: bytes, body: bytes, remaining: int) -> bytes:
    """Return a chunk with the uncompressed text if it may contain the orientation; otherwise no bytes."""
    key, _, rest = body.partition(b"\0")
    if key not in _ORIENTING:
        return b""
    if kind == b"iTXt":
        packed, (language, _, after) = rest[:1] != b"\0", rest[2:].partition(b"\0")
        translated, _, text = after.partition(b"\0")
        start = key + b"\0\0\0" + language + b"\0" + translated + b"\0"
    else:
        packed, text, start = kind == b"zTXt", rest[kind == b"zTXt" :], key + b"\0"
    if packed:
        text = _decompressed(text, remaining)
    return _png_chunk(b"iTXt" if kind == b"iTXt" else b"tEXt", start + text) if 0 < len(text) <= remaining else b""


def _decompressed(data: bytes, most: int) -> bytes:
    """Return the decompressed bytes; no bytes if they are damaged or exceed `most`."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, max(most, 1))
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else text


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _stripped_jpeg(data: bytes) -> bytes:
    parts, place, exif = [_JPEG], len(_JPEG), False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in (_SCAN, _END):
            break
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # a fill byte, or a marker without a segment
            parts.append(data[place : place + 1] if marker == 0xFF else data[place : place + 2])
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : end]
        if _affects_pixels(marker, body) and not (marker == _APP1 and (exif or is_bomb(body))):
            exif |= marker == _APP1
            parts.append(data[place:end])
        place = end
    parts.append(data[place:])
    return b"".join(parts)


def _affects_pixels(marker: int, body: bytes) -> bool:
    if marker != _COMMENT and not 0xE0 <= marker <= 0xEF:
        return True
    return any(
        marker == kind and body.startswith(name) and len(body) >= least for (kind, name), least in _MIN_BYTES.items()
    )

"""A PNG or JPEG file without its metadata, for files whose metadata Pillow refuses though their pixels are sound.

Pillow limits how far the text and the colour profile of a PNG may be decompressed, for the whole process, and takes a
short or damaged metadata block for a damaged file. Neither decides a pixel, but for the orientation, which is kept.
"""

import struct
import zlib

from bottleneck.images.exif import is_bomb

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_TEXT_BYTES = 16 << 20  # of text of one file that may say how the image is oriented
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_METADATA = (
    *(*_TEXTS, b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs", b"sBIT", b"bKGD", b"hIST"),
    *(b"sPLT", b"tIME", b"acTL", b"fcTL", b"fdAT"),
)
_ORIENTING = (b"XML:com.adobe.xmp", b"Raw profile type exif", b"exif")
_SCAN, _END, _APP1 = 0xDA, 0xD9, 0xE1
_ALONE = (0x01, *range(0xD0, 0xD8))  # JPEG markers without a length
_COMMENT = 0xFE
_LEAST = {(0xE0, b"JFIF"): 14, (0xEE, b"Adobe"): 12, (0xE1, b"Exif"): 6}  # bytes of the segments that are kept


def without_metadata(data: bytes) -> bytes | None:
    """Return the file without the metadata that decides no pixel; None where there is none to leave out.

    The image data, palette, transparency and orientation are kept byte for byte. The work is one pass over the
    headers of the blocks, and text is decompressed to at most 16 MiB.
    """
    bare = None
    if data.startswith(_PNG):
        bare = _bare_png(data)
    elif data.startswith(_JPEG):
        bare = _bare_jpeg(data)
    return bare if bare is not None and len(bare) != len(data) else None


def _bare_png(data: bytes) -> bytes:
    kept, place, room = [_PNG], len(_PNG), _TEXT_BYTES
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if not kind.isalpha():
            kept.append(data[place:])  # damaged: the decoder shall say so
            break
        decides = kind[:1].isupper() or kind == b"tRNS"  # upper case: what a decoder may not pass over
        if decides or (not _is_sound(data[place:end]) and _may_decide(kind, data[place + 8 : end])):
            kept.append(data[place:end])  # what is damaged of it, the decoder shall say
        elif kind == b"eXIf":
            kept.append(_png_chunk(kind, data[place + 8 : end - 4]))
        elif kind in _TEXTS:
            text = _plain_text(kind, data[place + 8 : end - 4], room)
            room -= len(text)
            kept.append(text)
        if kind == b"IEND":
            break
        place = end
    return b"".join(kept)


def _may_decide(kind: bytes, body: bytes) -> bool:
    """Whether a damaged chunk may say how the image is oriented, or be one that does, or says what is clear."""
    return kind not in _METADATA or (kind in _TEXTS and body.partition(b"\0")[0] in _ORIENTING)


def _is_sound(chunk: bytes) -> bool:
    """Whether a chunk is whole, and as its checksum says."""
    length = int.from_bytes(chunk[:4], "big")
    return len(chunk) == length + 12 and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))


def _plain_text(kind: bytes, body: bytes, room: int) -> bytes:
    """Return a chunk with the same text, not compressed, if it may say how the image is oriented; else nothing."""
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
        text = _decompressed(text, room)
    return _png_chunk(b"iTXt" if kind == b"iTXt" else b"tEXt", start + text) if 0 < len(text) <= room else b""


def _decompressed(data: bytes, most: int) -> bytes:
    """Return the decompressed bytes, or none where they are damaged or more than `most`."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, max(most, 1))
    except zlib.error:
        return b""
    return b"" if unpacker.unconsumed_tail else text


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _bare_jpeg(data: bytes) -> bytes:
    kept, place, exif = [_JPEG], len(_JPEG), False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in (_SCAN, _END):
            break
        if marker == 0xFF or marker in _ALONE:  # a fill byte, or a marker that stands alone
            kept.append(data[place : place + 1] if marker == 0xFF else data[place : place + 2])
            place += 1 if marker == 0xFF else 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : end]
        if _decides_pixels(marker, body) and not (marker == _APP1 and (exif or is_bomb(body))):
            exif |= marker == _APP1
            kept.append(data[place:end])
        place = end
    kept.append(data[place:])
    return b"".join(kept)


def _decides_pixels(marker: int, body: bytes) -> bool:
    if marker != _COMMENT and not 0xE0 <= marker <= 0xEF:
        return True
    return any(
        marker == kind and body.startswith(name) and len(body) >= least for (kind, name), least in _LEAST.items()
    )

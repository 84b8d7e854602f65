"""The chunks of a PNG: Pillow checks neither the checksums of the image data nor its completeness."""

import struct
import zlib

from PIL import Image

from bottleneck.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CHUNKS = 1_000_000
_FEW = 300  # chunks without pixels that are left to Pillow


def check_chunks(data: bytes) -> int:
    """Verify the checksums of the image data of a PNG.

    Parameters
    ----------
    data : bytes
        The file.

    Returns
    -------
    int
        Number of chunks without pixels.

    Raises
    ------
    ImageError
        With code ``corrupt`` or ``truncated``; ``too-costly``, if there are too many chunks.
    """
    view, place, others, count = memoryview(data), len(SIGNATURE), 0, 0
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        count += 1
        if count > _CHUNKS:
            raise ImageError("too-costly", f"expected at most {_CHUNKS:,} chunks (PNG), found more")
        if kind == b"IDAT":
            if end > len(data):
                raise ImageError("truncated", "the image data is truncated (PNG)")
            if zlib.crc32(view[place + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
                raise ImageError("corrupt", "the checksum of the image data is wrong (PNG)")
        else:
            others += 1
        if kind == b"IEND" or not kind.isalpha():
            break
        place = end
    return others


def has_many_chunks(others: int) -> bool:
    """Return whether a PNG has too many metadata chunks for Pillow, which reads them in Python."""
    return others > _FEW


def last_written(size: tuple[int, int], interlaced: bool) -> tuple[int, int, int, int]:
    """Return the box of the last pixels in the file.

    In an interlaced PNG this is the last odd row, or the last odd pixel of the only row.
    """
    width, height = size
    row, column = height - 1, 0
    if interlaced and height > 1:
        row = (height - 2) | 1
    elif interlaced and width > 1:
        column = (width - 2) | 1
        return column, 0, column + 1, 1
    return column, row, width, row + 1


def mark(mode: str, number: int) -> int | float | tuple[int, ...]:
    """Return one of two rare colours, in the mode of the image."""
    bands = Image.getmodebands(mode)
    if mode == "1":
        return 255 * number
    if mode == "F":
        return -1.5e30 - number
    if mode.startswith("I"):
        return 42_961 + 1000 * number
    colour = (137 + 3 * number, 86 + 5 * number, 211 + 7 * number, 93 + number)
    return colour[0] if bands == 1 else colour[:bands]

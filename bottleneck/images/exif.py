"""The orientation of an image from its EXIF block, with protection against blocks that exhaust memory."""

import struct

from PIL import Image

_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MAGIC = (b"II*\0", b"MM\0*")
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value; others have one
_SPARE = 1 << 16


def transpose_of(image: Image.Image) -> Image.Transpose | None:
    """Return the transposition that makes an image upright; None if there is none, or the EXIF block is unusable."""
    block = image.info.get("exif")
    if isinstance(block, bytes) and is_bomb(block):
        return None
    try:
        return _TRANSPOSES.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return None


def is_bomb(block: bytes, start: int = 0) -> bool:
    """Return whether the values of the first directory are many times larger than the block: Pillow copies each value.

    Parameters
    ----------
    block : bytes
        With or without the prefix ``Exif``.
    start : int
        Offset of the block.
    """
    if block[start : start + 6] == b"Exif\0\0":
        start += 6
    order = "<" if block[start : start + 2] == b"II" else ">"
    total = 0
    try:
        (place,) = struct.unpack_from(order + "I", block, start + 4)
        (count,) = struct.unpack_from(order + "H", block, start + place)
        for number in range(count):
            kind, values = struct.unpack_from(order + "HI", block, start + place + 4 + 12 * number)
            size = values * _SIZES.get(kind, 1)
            total += size if size <= len(block) else 0  # Pillow skips truncated values
    except struct.error:
        pass
    return total > 4 * len(block) + _SPARE


def has_bomb(data: bytes, tries: int = 100) -> bool:
    """Return whether a file contains an EXIF block that is a bomb."""
    for magic in _MAGIC:
        place = -1
        for _ in range(tries):
            place = data.find(magic, place + 1)
            if place < 0:
                break
            if is_bomb(data, place):
                return True
    return False


def upright(image: Image.Image, transpose: Image.Transpose | None) -> Image.Image:
    """Return the transposed image."""
    return image if transpose is None else image.transpose(transpose)

"""How an image is oriented, from EXIF blocks of which some are made to fill the memory."""

import struct

from PIL import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BEGINNINGS = (b"II*\0", b"MM\0*")
_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value; others have one
_SPARE = 1 << 16


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how to turn an image upright; a broken EXIF block says nothing about it, nor does one that is a bomb."""
    block = image.info.get("exif")
    if isinstance(block, bytes) and is_bomb(block):
        return None
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return None


def is_bomb(block: bytes, start: int = 0) -> bool:
    """Whether the values of a block's first directory are many times the block: Pillow copies each of them.

    Parameters
    ----------
    block : bytes
        With or without ``Exif`` before it, from `start` on.
    start : int
        Where it begins.
    """
    if block[start : start + 6] == b"Exif\0\0":
        start += 6
    order = "<" if block[start : start + 2] == b"II" else ">"
    held = 0
    try:
        (place,) = struct.unpack_from(order + "I", block, start + 4)
        (count,) = struct.unpack_from(order + "H", block, start + place)
        for number in range(count):
            kind, values = struct.unpack_from(order + "HI", block, start + place + 4 + 12 * number)
            size = values * _SIZES.get(kind, 1)
            held += size if size <= len(block) else 0  # Pillow passes over what is cut short
    except struct.error:
        pass
    return held > 4 * len(block) + _SPARE


def has_bomb(data: bytes, tries: int = 100) -> bool:
    """Whether an EXIF block that is a bomb stands anywhere in a file."""
    for beginning in _BEGINNINGS:
        place = -1
        for _ in range(tries):
            place = data.find(beginning, place + 1)
            if place < 0:
                break
            if is_bomb(data, place):
                return True
    return False


def upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """Return an image turned."""
    return image if turn is None else image.transpose(turn)

"""The first frame of a GIF: whether its pixels are all there, and the file without what is not needed for it."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from bottleneck.errors import ImageError

BEGINNING = b"GIF8"

_BLOCKS = 1_000_000
_FEW = 1000  # blocks of metadata that Pillow may as well walk through itself
_CONTROL = 0xF9


@dataclass(frozen=True)
class FirstFrame:
    """Where the first frame of a GIF lies.

    Parameters
    ----------
    start : int
        Of what comes behind the header and the palette.
    control : bytes
        The extension that says which colour is transparent; empty where there is none.
    image, end : int
        Begin and end of the frame.
    blocks : int
        Of metadata, before the frame.
    several : bool
        Whether another frame follows.
    """

    start: int
    control: bytes
    image: int
    end: int
    blocks: int
    several: bool


def first_frame(data: bytes) -> FirstFrame | None:
    """Return the first frame of a GIF; None where there is no whole one: the decoder shall say why.

    Raises
    ------
    ImageError
        With code ``too-costly``, where there are more blocks than an image has.
    """
    if len(data) < 13:
        return None
    place = start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    control, blocks, frame = b"", 0, None
    while place < len(data) and data[place] in b"!,":
        blocks += 1
        if data[place] == 0x2C:
            if frame is not None:
                return FirstFrame(start, frame[0], frame[1], frame[2], frame[3], True)
            flags = data[place + 9] if place + 9 < len(data) else 0
            body = place + 11 + (3 << (flags & 7) + 1 if flags & 128 else 0)
            end = _end(data, body)
            if end is None:
                return None
            frame, place = (control, place, end[0], blocks), end[0]
            continue
        ending = _end(data, place + 2)
        if ending is None:
            break
        if data[place + 1 : place + 2] == bytes([_CONTROL]):
            control = data[place : ending[0]]
        place, blocks = ending[0], blocks + ending[1]
        if blocks > _BLOCKS and frame is not None:
            break
        if blocks > _BLOCKS:
            raise ImageError("too-costly", f"expected at most {_BLOCKS:,} blocks (GIF), found more")
    return FirstFrame(start, frame[0], frame[1], frame[2], frame[3], False) if frame else None


def _end(data: bytes, place: int) -> tuple[int, int] | None:
    """Return where a row of blocks ends, and how many they are; None where it does not."""
    count = 0
    while place < len(data):
        if not data[place]:
            return place + 1, count
        place += 1 + data[place]
        count += 1
    return None


def alone(data: bytes, frame: FirstFrame) -> bytes | None:
    """Return the file with nothing but its first frame, where Pillow would read much else; else None."""
    if frame.blocks <= _FEW:
        return None
    return data[: frame.start] + frame.control + data[frame.image : frame.end] + b";"


def check_pixels(image: Image.Image, tile: Any, data: bytes, filled: int) -> None:
    """Refuse a frame whose data ends before its pixels do.

    Parameters
    ----------
    image : GifImageFile
        Loaded.
    tile : tuple
        Of the frame: decoder, box, place in the file, and the decoder's arguments.
    data : bytes
        Of the file.
    filled : int
        The colour of pixels that do not come.

    Raises
    ------
    ImageError
        With code ``truncated``.
    """
    (left, top, right, bottom), (bits, interlaced, *_) = tile[1], tile[3]
    row = bottom - 1 if not interlaced or bottom - top < 2 else top + ((bottom - top - 2) | 1)
    if image.getpixel((right - 1, row)) != filled or not hasattr(Image, "_getdecoder"):
        return
    page = Image.new("L", (right - left, bottom - top), (filled + 1) % 256)
    decoder = Image._getdecoder("L", "gif", (bits, interlaced, -1))
    try:
        decoder.setimage(page.im, (0, 0, *page.size))
        decoder.decode(memoryview(data)[tile[2] :])
    finally:
        decoder.cleanup()
    if page.getpixel((right - left - 1, row - top)) == (filled + 1) % 256:
        raise ImageError("truncated", "the image data ends before the last row (GIF)")

"""The first frame of a GIF: completeness of its pixels, and the file reduced to it."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from bottleneck.errors import ImageError

MAGIC = b"GIF8"

_BLOCKS = 1_000_000
_MIN_STRIPPED = 1000  # blocks of metadata; fewer are left to Pillow
_CONTROL = 0xF9


@dataclass(frozen=True)
class FirstFrame:
    """The position of the first frame of a GIF.

    Parameters
    ----------
    start : int
        End of the header and the palette.
    control : bytes
        The extension with the transparent colour; empty if there is none.
    image, end : int
        Start and end of the frame.
    blocks : int
        Number of metadata blocks before the frame.
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
    """Return the first frame of a GIF; None if it is incomplete, which is left for the decoder to report.

    Raises
    ------
    ImageError
        With code ``too-costly``, if there are too many blocks.
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
    """Return the end of a sequence of blocks, and their number; None if it does not end."""
    count = 0
    while place < len(data):
        if not data[place]:
            return place + 1, count
        place += 1 + data[place]
        count += 1
    return None


def only_first_frame(data: bytes, frame: FirstFrame) -> bytes | None:
    """Return the file reduced to its first frame if there is much metadata before it; else None."""
    if frame.blocks <= _MIN_STRIPPED:
        return None
    return data[: frame.start] + frame.control + data[frame.image : frame.end] + b";"


def check_pixels(image: Image.Image, tile: Any, data: bytes, filled: int) -> None:
    """Reject a frame whose data is incomplete.

    Parameters
    ----------
    image : GifImageFile
        Loaded.
    tile : tuple
        Tile of the frame: decoder, box, offset in the file, and arguments of the decoder.
    data : bytes
        The file.
    filled : int
        The colour of missing pixels.

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

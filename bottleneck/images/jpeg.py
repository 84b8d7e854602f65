"""The layout of a JPEG, and a check that its image data is complete.

libjpeg fills missing blocks with grey, and Pillow ignores its warnings. So each segment of entropy-coded data is passed
to the decoder separately: if it contains all its blocks, the decoder proceeds to the next marker, otherwise it waits
for more bits.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images.exif import is_bomb

SOI = b"\xff\xd8"
_EOI, _SOS, _DRI, _APP1, _APP2 = 0xD9, 0xDA, 0xDD, 0xE1, 0xE2
_HUFFMAN, _PROGRESSIVE = (0xC0, 0xC1, 0xC2), (0xC2, 0xCA)
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))  # markers without a length; of these 0xD0 to 0xD7 are restart markers

_BEHIND_DATA = (0xC4, *range(0xD0, 0xD8), *range(0xD9, 0xDE), *range(0xE0, 0xF0), 0xFE)

_MARKERS = 100_000  # upper limit for a photograph
_SCANS = 1000  # a typical progressive JPEG has 10
_VISITS = 200_000_000  # of a block by a scan: several seconds on one core
_JUNK = 1 << 20  # bytes between segments
_CHUNK = 1 << 17

# Fed after the data of a segment instead of its marker: as many bits as libjpeg reads ahead, all ones, which is not a
# valid Huffman code. A decoder that still needs blocks consumes 34 of them for each.
_ONES = b"\xff\0" * 8
_OTHERS = b"\x35\xac\x5b\xc9\x92\x4e\xd3\x2a"
_PROBE = b"\0"
_ZEROS = bytes(64)
_SMALL = 4096  # bytes; smaller files are decoded twice, to check the last block


@dataclass(frozen=True)
class Component:
    """A component of a frame, with its sampling factors and its size in blocks."""

    number: int
    across: int
    down: int
    columns: int
    rows: int


@dataclass
class JpegLayout:
    """The positions of the parts of a JPEG.

    Parameters
    ----------
    markers : int
        Number of segments.
    before : int
        Number of segments before the first scan, which Pillow reads one by one.
    ends : list of int
        End of each segment of entropy-coded data: at a marker, or at the end of the file.
    stop : int
        Offset after the end of the image.
    ended : bool
        Whether there is an end-of-image marker.
    buffered : bool
        Whether the decoder needs all coefficients in memory, as for a progressive JPEG.
    checkable : bool
        Whether it is Huffman-coded; with arithmetic coding, data may end before its blocks.
    bombs : bool
        Whether it has metadata that exhausts memory when it is read.
    """

    markers: int = 0
    before: int = 0
    ends: list[int] = field(default_factory=list)
    stop: int = 0
    ended: bool = False
    buffered: bool = False
    checkable: bool = False
    bombs: bool = False
    components: list[Component] = field(default_factory=list)
    units: tuple[int, int] = (0, 0)  # MCUs across and down
    scans: int = 0
    visits: int = 0
    missing: str = ""

    @property
    def coefficient_bytes(self) -> int:
        """The memory of libjpeg for the coefficients of a JPEG with several scans, without the pixels."""
        if not self.buffered:
            return 0
        across, down = self.units
        return sum(128 * across * one.across * down * one.down for one in self.components)


def layout_of(data: bytes) -> JpegLayout | None:
    """Return the layout of a JPEG; None if it cannot be parsed, which is left for the decoder to report.

    Raises
    ------
    ImageError
        With code ``too-costly``, if there are too many segments or scans.
    """
    found, place, progress, interval = JpegLayout(), 2, _Progress(), 0
    while (place := _next_marker(data, place)) >= 0:
        marker = data[place + 1]
        found.markers += 1
        if found.markers > _MARKERS:
            raise ImageError("too-costly", f"expected a photograph, found more than {_MARKERS:,} segments (JPEG)")
        if marker == _EOI:
            found.ended, found.stop = True, place + 2
            break
        if marker in _WITHOUT_LENGTH:
            place += 2
            continue
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : end]
        if end > len(data) or end < place + 4:
            break
        if marker in _FRAMES:
            if found.components or not _read_frame(found, marker, body):
                return None
            progress = _Progress(marker in _PROGRESSIVE, [one.number for one in found.components])
        elif marker in (_APP1, _APP2) and body[:4] in (b"Exif", b"MPF\0"):
            found.bombs |= is_bomb(body, 0 if marker == _APP1 else 4)
        elif marker == _DRI and len(body) >= 2:
            interval = int.from_bytes(body[:2], "big")
        elif marker == _SOS:
            if not found.components or not body or len(body) < 4 + 2 * body[0]:
                return None
            end = _read_scan(found, progress, data, end, body, interval)
        if not found.scans:
            found.before += 1
        place = end
    if not found.scans:
        return None
    found.stop = found.stop or len(data)
    if not found.missing and found.buffered:
        found.missing = progress.missing()
    return found


def load(image: Any, data: bytes, layout: JpegLayout) -> None:
    """Load the pixels of an opened JPEG, as `image.load` does.

    Parameters
    ----------
    image : JpegImageFile
    data : bytes
        The file.
    layout : JpegLayout

    Raises
    ------
    ImageError
        With code ``truncated``, if blocks are missing.
    OSError
        If the data cannot be decoded, as Pillow.
    """
    if layout.missing:
        raise ImageError("truncated", layout.missing)
    if not layout.ended and data.endswith(_ZEROS):
        raise ImageError("truncated", "the file ends in zeros: it was not completely written")
    tile = image.tile[0] if len(image.tile) == 1 else None
    if tile is None or tile[0] != "jpeg" or tile[2] or not layout.checkable or not hasattr(Image, "_getdecoder"):
        image.load()
        return
    if not layout.ended:
        image.load()  # Pillow may require more than the blocks
    decoded = functools.partial(_decode, image.mode, tile[3], image.decoderconfig, tile[1])
    image.load_prepare()
    decoded(image.im, data, layout, _ONES)
    image.tile = []
    image.readonly = 0
    image.load_end()
    image.fp = None
    image.load()
    if len(data) <= _SMALL:
        again = Image.new(image.mode, image.size)
        decoded(again.im, data, layout, _OTHERS)
        if again.tobytes() != image.tobytes():
            raise _incomplete(b"")


def _decode(
    mode: str,
    arguments: Any,
    config: Any,
    extents: Any,
    core: Any,
    data: bytes,
    layout: JpegLayout,
    padding: bytes,
) -> None:
    decoder = Image._getdecoder(mode, "jpeg", arguments, config)
    try:
        decoder.setimage(core, extents)
        stream, place = _Stream(decoder), 0
        for end in layout.ends:
            if stream.feed(memoryview(data)[place:end]):
                return
            for more in (padding, _PROBE):
                if stream.feed(more):
                    return
                if stream.left:
                    raise _incomplete(data[end : end + 2])
            place = end
        if not layout.buffered or not stream.feed(memoryview(data)[place : layout.stop]):
            raise _incomplete(b"")
    finally:
        decoder.cleanup()


class _Stream:
    """Feeds a decoder, and keeps the bytes that it did not consume."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self.left = b""

    def feed(self, piece: bytes | memoryview) -> bool:
        """Feed a piece of data, and return whether the decoder is finished."""
        if self.left:
            piece = self.left + bytes(piece)
        taken, error = self._decoder.decode(piece)
        if taken >= 0:
            self.left = bytes(piece[taken:])
            return False
        if error < 0:
            raise OSError("broken data stream when reading image file")
        return True


def _incomplete(marker: bytes) -> ImageError:
    if marker[1:] and marker[1] not in _BEHIND_DATA:
        return ImageError("corrupt", f"a marker {marker.hex()} occurs within the image data (JPEG)")
    return ImageError("truncated", "a part of the image data is missing (JPEG)")


def _next_marker(data: bytes, place: int) -> int:
    """Return the offset of the next marker, at its last 0xFF; -1 if there is none."""
    first = place
    while 0 <= place < len(data) - 1:
        place = data.find(b"\xff", place)
        if place < 0 or place + 1 >= len(data) or place - first > _JUNK:
            return -1
        if data[place + 1] not in (0, 0xFF):
            return place
        place += 1
    return -1


def _read_frame(found: JpegLayout, marker: int, body: bytes) -> bool:
    """Read size and components from a frame header; return whether it is valid."""
    count = body[5] if len(body) > 5 else 0
    if not count or len(body) < 6 + 3 * count:
        return False
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    factors = [(body[7 + 3 * k] >> 4, body[7 + 3 * k] & 15) for k in range(count)]
    if not height or not width or min(min(pair) for pair in factors) < 1:
        return False
    most = max(across for across, _ in factors), max(down for _, down in factors)
    found.units = -(-width // (8 * most[0])), -(-height // (8 * most[1]))
    found.checkable = marker in _HUFFMAN
    for k, (across, down) in enumerate(factors):
        columns, rows = -(-width * across // (8 * most[0])), -(-height * down // (8 * most[1]))
        found.components.append(Component(body[6 + 3 * k], across, down, columns, rows))
    found.buffered = marker in _PROGRESSIVE
    return True


def _read_scan(found: JpegLayout, progress: "_Progress", data: bytes, start: int, body: bytes, interval: int) -> int:
    """Read a scan, and return the offset of the marker after its data."""
    numbers = [body[1 + 2 * k] for k in range(body[0])]
    parts = [one for one in found.components if one.number in numbers]
    if len(parts) < len(found.components):
        found.buffered = True
    units = found.units[0] * found.units[1]
    if len(parts) == 1:
        units = parts[0].columns * parts[0].rows
    found.scans += 1
    found.visits += sum(one.columns * one.rows for one in parts)
    if found.scans > _SCANS or (found.visits > _VISITS and found.scans > 1):
        size = f"{found.units[0] * found.units[1]:,} blocks"
        raise ImageError("too-costly", f"expected a photograph, found {found.scans:,} scans or more of {size} (JPEG)")
    restarts, kinds, end = _stretches(data, start)
    wanted = -(-units // interval) - 1 if interval else 0
    if len(restarts) < wanted or any(kind != place % 8 for place, kind in enumerate(kinds[:wanted])):
        found.missing = found.missing or "restart markers are missing, and the data between them (JPEG)"
    found.ends += restarts[:wanted]
    found.ends.append(restarts[wanted] if len(restarts) > wanted else end)
    progress.record_scan(numbers, *body[1 + 2 * body[0] : 4 + 2 * body[0]])
    return end


def _stretches(data: bytes, start: int) -> tuple[list[int], list[int], int]:
    """Return the offsets and numbers of the restart markers of a scan, and the offset of the next other marker."""
    places: list[int] = []
    kinds: list[int] = []
    values = np.frombuffer(data, np.uint8)
    for place in range(start, len(data) - 1, _CHUNK):
        piece = values[place : place + _CHUNK + 1]
        at = np.flatnonzero(piece[:-1] == 0xFF)
        following = piece[at + 1]
        marks = np.flatnonzero((following != 0) & (following != 0xFF))
        for mark in marks.tolist():
            kind = int(following[mark])
            if not 0xD0 <= kind <= 0xD7:
                return places, kinds, place + int(at[mark])
            places.append(place + int(at[mark]))
            kinds.append(kind - 0xD0)
    return places, kinds, len(data)


class _Progress:
    """Tracks which bits of which coefficients the scans contain."""

    def __init__(self, progressive: bool = False, numbers: list[int] | None = None) -> None:
        self._numbers = numbers or []
        self._coefficients = range(64 if progressive else 1)
        self._lowest: dict[tuple[int, int], int] = {}

    def record_scan(self, numbers: list[int], first: int, last: int, bits: int) -> None:
        """Record a scan of the coefficients `first` to `last`.

        The low half of `bits` is the lowest bit in this scan, the high half that of the scan before, if any.
        """
        if len(self._coefficients) == 1:
            first = last = bits = 0
        for number in numbers:
            for place in range(first, min(last, 63) + 1):
                follows = not bits >> 4 or self._lowest.get((number, place)) == bits >> 4
                self._lowest[number, place] = bits & 15 if follows else -1

    def missing(self) -> str:
        """Return a message if scans are missing, else an empty string."""
        if all(self._lowest.get((number, place)) == 0 for number in self._numbers for place in self._coefficients):
            return ""
        return "some scans are missing: the image is incomplete (JPEG)"

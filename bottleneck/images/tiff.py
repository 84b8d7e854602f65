"""The first page of a TIFF: completeness of its strips or tiles, and limits on its directory."""

import io
import struct
from contextlib import closing
from dataclasses import dataclass

from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images import jpeg

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TEXTS = (1, 2, 7)  # types whose values Pillow does not unpack
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 277, 278, 284
_TILE_WIDTH, _TILE_LENGTH, _TABLES = 322, 323, 347
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets and byte counts
_READ = (*range(254, 342), 530, 531, 532)  # tags whose values Pillow unpacks
_FAX, _JPEG = (2, 3, 4, 32771), 7  # compressions whose decoders fill in missing pixels

_ENTRIES = 4096  # of a directory; a photograph has a few dozen
_PARTS = 1 << 18  # strips or tiles: of 26 x 26 pixels in the largest image that is read by default
_FILL_ORDER = 266
# Appended to a strip of fax compression: lines with some black, in the codes of group 3 and of group 4.
_LINE = int("000000000001" + "00110101" + "10" + "0111" + "10" + "1011" + "11", 2).to_bytes(5, "big")
_LINE_4 = int("001" + "0111" + "10" + "1" + "001" + "1011" + "11" + "1" + "0011", 2).to_bytes(3, "big")
_SPARE = 1 << 16


@dataclass(frozen=True)
class Page:
    """The first directory of a TIFF.

    Parameters
    ----------
    tags : dict
        Tag -> (type, count, offset of the values, offset of the entry).
    order : str
        ``<`` or ``>``.
    big : bool
        Whether it is a BigTIFF.
    several : bool
        Whether another directory follows.
    """

    data: bytes
    tags: dict[int, tuple[int, int, int, int]]
    order: str
    big: bool
    several: bool

    def values(self, tag: int) -> tuple[int, ...]:
        """Return the integers of a tag; an empty tuple if it is missing or outside of the file."""
        kind, count, place, _ = self.tags.get(tag, (0, 0, 0, 0))
        if kind not in _INTEGERS or place + count * _SIZES[kind] > len(self.data):
            return ()
        return struct.unpack_from(f"{self.order}{count}{_INTEGERS[kind]}", self.data, place)

    def value(self, tag: int, default: int) -> int:
        """Return the first number of a tag."""
        return next(iter(self.values(tag)), default)

    @property
    def part(self) -> tuple[int, int, int]:
        """Width and height of a strip or tile in pixels, and the number of strips or tiles."""
        width, length = max(1, self.value(_WIDTH, 1)), max(1, self.value(_LENGTH, 1))
        across, down = width, min(max(1, self.value(_ROWS, length)), length)
        if _STRIPS[0] not in self.tags:
            across, down = max(1, self.value(_TILE_WIDTH, width)), max(1, self.value(_TILE_LENGTH, length))
        planes = self.value(_SAMPLES, 1) if self.value(_PLANAR, 1) == 2 else 1
        return across, down, -(-width // across) * -(-length // down) * planes

    @property
    def held_bytes(self) -> int:
        """Memory in addition to the pixels, in bytes: a strip or tile, decoded channels, tables, and `check_pixels`."""
        across, down, count = self.part
        compression = self.value(_COMPRESSION, 1)
        bits = max(self.values(_BITS) or (1,)) * (1 if self.value(_PLANAR, 1) == 2 else self.value(_SAMPLES, 1))
        part = across * down * (-(-bits // 8) + (8 if compression in (6, _JPEG) else 0)) if compression != 1 else 0
        proof = 0
        if compression in _FAX:
            proof = 2 * len(self.data) + self.value(_WIDTH, 0) * self.value(_LENGTH, 0) * 2
        return part + proof + 512 * count


def first_page(data: bytes) -> Page | None:
    """Return the first page of a TIFF; None if it cannot be parsed, which is left for the decoder to report.

    Raises
    ------
    ImageError
        With code ``truncated``, if strips or tiles are missing; ``too-costly``, if there are too many of them, or too
        many tags.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    entry, offset = ("HHQ8s", "Q") if big else ("HHI4s", "I")
    size, inline, first = struct.calcsize(order + entry), 8 if big else 4, 8 if big else 4
    tags: dict[int, tuple[int, int, int, int]] = {}
    try:
        (begin,) = struct.unpack_from(order + offset, data, first)
        place = begin
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
        if count * size > len(data):
            return None
        if count > _ENTRIES:
            raise ImageError("too-costly", f"expected at most {_ENTRIES:,} tags (TIFF), found {count:,}")
        place += 8 if big else 2
        for _ in range(count):
            tag, kind, values, _ = struct.unpack_from(order + entry, data, place)
            at = place + size - inline
            if values * _SIZES.get(kind, 1) > inline:
                (at,) = struct.unpack_from(order + offset, data, at)
            tags.setdefault(tag, (kind, values, at, place))
            place += size
        (following,) = struct.unpack_from(order + offset, data, place)
    except struct.error:
        return None
    sizes = ((at, values * _SIZES.get(kind, 1)) for kind, values, at, _ in tags.values())
    held = sum(size for at, size in sizes if at + size <= len(data))  # Pillow skips truncated values
    if held > 2 * len(data) + _SPARE:
        raise ImageError("too-costly", "the values of its tags are many times its size (TIFF)")
    page = Page(data, tags, order, big, following not in (0, begin))
    _check_tables(page)
    return page


def _check_tables(page: Page) -> None:
    for tag in _READ:
        kind, count, *_ = page.tags.get(tag, (0, 0))
        if _PARTS < count <= len(page.data) // _SIZES.get(kind, 1) and kind not in _TEXTS:
            raise ImageError("too-costly", f"expected at most {_PARTS:,} strips or tiles (TIFF), found {count:,}")
    offsets, _ = _STRIPS if _STRIPS[0] in page.tags else _TILES
    if _WIDTH not in page.tags or _LENGTH not in page.tags or offsets not in page.tags:
        return
    found, needed = page.tags[offsets][1], page.part[2]
    if found < needed:
        raise ImageError("truncated", f"expected {needed:,} strips or tiles (TIFF), found {found:,}")
    if needed > _PARTS:
        raise ImageError("too-costly", f"expected at most {_PARTS:,} strips or tiles (TIFF), found {needed:,}")


def check_pixels(image: Image.Image, page: Page) -> None:
    """Reject a page with missing pixels that its decoder has filled in: JPEG and fax compression.

    Parameters
    ----------
    image : Image
        The page, loaded.
    page : Page

    Raises
    ------
    ImageError
        With code ``truncated``.
    """
    compression = page.value(_COMPRESSION, 1)
    if compression == _JPEG:
        _check_jpegs(page)
    elif compression in _FAX:
        for padding in (_LINE_4 if compression == 4 else _LINE, b"\xff"):
            again = Image.open(io.BytesIO(_padded(page, 32 * padding)), formats=["TIFF"])
            with closing(again):
                again.load()
                if again.tobytes() != image.tobytes():
                    raise ImageError("truncated", "a part of the image data is missing (TIFF)")


def _parts(page: Page) -> list[bytes]:
    offsets, counts = _STRIPS if _STRIPS[0] in page.tags else _TILES
    places, sizes = page.values(offsets)[: page.part[2]], page.values(counts)
    return [page.data[place : place + size] for place, size in zip(places, sizes, strict=False)]


def _check_jpegs(page: Page) -> None:
    """Decode each strip or tile as a JPEG."""
    kind, count, place, _ = page.tags.get(_TABLES, (0, 0, 0, 0))
    tables = page.data[place : place + count].removesuffix(b"\xff\xd9") if kind in (1, 7) else b""
    for part in _parts(page):
        whole = tables + part[2:] if tables else part
        layout = jpeg.layout_of(whole)
        if layout is None:
            continue
        image = Image.open(io.BytesIO(whole), formats=["JPEG"])
        with closing(image):
            jpeg.load(image, whole, layout)


def _padded(page: Page, padding: bytes) -> bytes:
    """Return the file with padding after each strip, which does not change the pixels of a complete strip."""
    kinds = (16, "Q", 8) if page.big else (4, "I", 4)
    data, places, sizes = bytearray(page.data), [], []
    if page.value(_FILL_ORDER, 1) == 2:  # the lowest bit first
        padding = bytes(int(f"{byte:08b}"[::-1], 2) for byte in padding)
    for part in _parts(page):
        places.append(len(data))
        sizes.append(len(part) + len(padding))
        data += part + padding
    for tag, values in zip(_STRIPS if _STRIPS[0] in page.tags else _TILES, (places, sizes), strict=True):
        packed = struct.pack(f"{page.order}{len(values)}{kinds[1]}", *values)
        entry = page.tags[tag][3]
        struct.pack_into(f"{page.order}HH{kinds[1]}", data, entry, tag, kinds[0], len(values))
        at = entry + (12 if page.big else 8)
        if len(packed) > kinds[2]:
            struct.pack_into(page.order + kinds[1], data, at, len(data))
            data += packed
        else:
            data[at : at + kinds[2]] = packed.ljust(kinds[2], b"\0")
    return bytes(data)

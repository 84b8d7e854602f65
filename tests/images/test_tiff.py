import io
import struct

import numpy as np
import pytest
from PIL import Image, features

from bottleneck.images import tiff
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.images.codes import code
from tests.variants import each

pytestmark = pytest.mark.skipif(not features.check("libtiff"), reason="needs Pillow with libtiff")

COUNTS = 279


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


def picture(mode: str = "RGB") -> Image.Image:
    return Image.open(io.BytesIO(photo(3, (160, 120), "PNG"))).convert(mode)


def strips(
    count: int, rows: int = 10, tiles: tuple[int, int] | None = None, planar: bool = False, big: bool = False
) -> bytes:
    """Return an uncompressed TIFF of 40 x 30 pixels whose tables hold `count` strips or tiles."""
    width, height = tiles or (40, rows)
    size = width * height * (1 if planar else 3)
    offsets, counts = (324, 325) if tiles else (273, 279)
    tags = [(256, 3, [40]), (257, 3, [30]), (258, 3, [8, 8, 8]), (259, 3, [1]), (262, 3, [2]), (277, 3, [3])]
    tags += [(284, 3, [2])] if planar else []
    tags += [(322, 3, [tiles[0]]), (323, 3, [tiles[1]])] if tiles else [(278, 3, [rows])]
    tags += [(offsets, 16 if big else 4, [1000 + size * k for k in range(count)]), (counts, 4, [size] * count)]
    head, entries, extra = (16, 20, 8) if big else (8, 12, 4)
    end = head + (8 if big else 2) + entries * len(tags) + (8 if big else 4)
    body, more = b"", b""
    for tag, kind, values in sorted(tags):
        packed = struct.pack(f"<{len(values)}{ {3: 'H', 4: 'I', 16: 'Q'}[kind] }", *values)
        place = packed.ljust(extra, b"\0")
        if len(packed) > extra:
            place, more = struct.pack("<Q" if big else "<I", end + len(more)), more + packed
        body += struct.pack("<HHQ" if big else "<HHI", tag, kind, len(values)) + place
    begin = (
        struct.pack("<4sHHQQ", b"II+\0", 8, 0, 16, len(tags)) if big else struct.pack("<4sIH", b"II*\0", 8, len(tags))
    )
    pixels = np.random.default_rng(0).integers(0, 256, 40_000, np.uint8).tobytes()
    return (begin + body + bytes(8 if big else 4) + more).ljust(1000, b"\0") + pixels


def with_entry(data: bytes, tag: int, change: "tuple[int, int, bytes]") -> bytes:
    """Return the file with another type, count and value of a tag."""
    ours = bytearray(data)
    place = int.from_bytes(data[4:8], "little") + 2
    while int.from_bytes(data[place : place + 2], "little") != tag:
        place += 12
    ours[place : place + 12] = struct.pack("<HHI4s", tag, *change)
    return bytes(ours)


def shortened(data: bytes, part: float) -> bytes:
    """Return the file with only a part of the last strip's bytes."""
    page = tiff.first_page(data)
    assert page is not None
    counts = list(page.values(COUNTS))
    counts[-1] = int(counts[-1] * part)
    more = struct.pack(f"<{len(counts)}I", *counts)
    value = more if len(more) == 4 else struct.pack("<I", len(data))
    return with_entry(data, COUNTS, (4, len(counts), value)) + more


@each("big", [False, True])
@each(
    "whole, options",
    [
        (3, {}),
        (30, {"rows": 1}),
        (6, {"tiles": (16, 16)}),
        (9, {"planar": True}),
        (18, {"tiles": (16, 16), "planar": True}),
    ],
)
def test_every_strip_and_tile_is_needed(
    preprocessing: Preprocessing, whole: int, options: dict[str, object], big: bool
) -> None:
    assert code(strips(whole, big=big, **options), preprocessing) is None  # type: ignore[arg-type]
    for count in {1, whole // 2, whole - 1}:
        assert code(strips(count, big=big, **options), preprocessing) == "truncated"  # type: ignore[arg-type]


COMPRESSIONS = ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4", "tiff_ccitt", "lzma"]


@each("kind", ["photo", "white", "page"])
@each("compression", COMPRESSIONS)
def test_a_strip_that_is_short_is_refused(preprocessing: Preprocessing, compression: str, kind: str) -> None:
    mode = "1" if compression in ("group3", "group4", "tiff_ccitt") else "RGB"
    image = picture(mode) if kind == "photo" else Image.new(mode, (160, 120), "white")
    if kind == "page":
        image.paste(picture(mode).resize((40, 40)), (20, 20))
    try:
        data = encoded(image, compression=compression)
    except (OSError, RuntimeError, ValueError) as error:
        pytest.skip(f"this libtiff cannot write {compression}: {error}")
    whole = decode(data, preprocessing).pixels
    for part in (0.02, 0.2, 0.5, 0.8, 0.9):
        short = shortened(data, part)
        if code(short, preprocessing) not in ("truncated", "corrupt"):  # what is missing had no bits of its own
            assert np.array_equal(decode(short, preprocessing).pixels, whole), part


@each("order", [1, 2])
@each("compression", ["group3", "group4"])
def test_a_fax_image_is_decoded_in_both_bit_orders(preprocessing: Preprocessing, compression: str, order: int) -> None:
    data = encoded(picture("1"), compression=compression, tiffinfo={266: order})
    assert code(data, preprocessing) is None
    assert code(shortened(data, 0.6), preprocessing) in ("truncated", "corrupt")


@each("compression", ["jpeg", "tiff_lzw", "raw"])
def test_strips_outside_of_the_file_are_refused(preprocessing: Preprocessing, compression: str) -> None:
    data = encoded(picture(), compression=None if compression == "raw" else compression)
    page = tiff.first_page(data)
    assert page is not None
    places = page.values(273)
    more = struct.pack(f"<{len(places)}I", *places[:-1], len(data) + 10**6)
    value = more if len(more) == 4 else struct.pack("<I", len(data))
    assert code(with_entry(data, 273, (4, len(places), value)) + more, preprocessing) in ("truncated", "corrupt")


def test_pages_are_not_walked_beyond_the_second(preprocessing: Preprocessing) -> None:
    for loop in [False, True]:
        data = bytearray(encoded(picture()))
        begin = int.from_bytes(data[4:8], "little")
        end = begin + 2 + 12 * int.from_bytes(data[begin : begin + 2], "little")
        page = bytes(data[begin:end])
        data[end : end + 4] = struct.pack("<I", len(data))
        for number in range(20_000):
            last = number == 19_999
            data += page + struct.pack("<I", (begin if loop else 0) if last else len(data) + len(page) + 4)
        assert decode(bytes(data), preprocessing).note == "several frames (TIFF); the first is used"

    data = bytearray(encoded(picture()))
    begin = int.from_bytes(data[4:8], "little")
    end = begin + 2 + 12 * int.from_bytes(data[begin : begin + 2], "little")
    data[end : end + 4] = struct.pack("<I", begin)
    assert decode(bytes(data), preprocessing).note is None


def test_values_and_tables_without_end_are_too_costly(preprocessing: Preprocessing) -> None:
    tags = 500
    entries = b"".join(struct.pack("<HHII", 700 + k, 7, 1_000_000, 8) for k in range(tags))
    data = (b"II*\0" + struct.pack("<I", 1_000_100)).ljust(1_000_100, b"\0")
    assert code(data + struct.pack("<H", tags) + entries + bytes(4), preprocessing) == "too-costly"

    for tag in [273, 279, 258]:
        data = encoded(picture())
        place = len(data)
        huge = with_entry(data, tag, (4, 300_000, struct.pack("<I", place))) + bytes(1_200_000)
        assert code(huge, preprocessing) == "too-costly"


@each("data, directory_end", [(strips(3), 122), (strips(6, tiles=(16, 16), big=True), 232)])
def test_any_beginning_can_be_followed(data: bytes, directory_end: int) -> None:
    whole = tiff.first_page(data)
    assert whole is not None
    for cut in range(0, 300, 3):
        page = tiff.first_page(data[:cut])
        assert (page.tags if page else None) == (whole.tags if cut >= directory_end else None), cut

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bottleneck.images import png
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.images.codes import code
from tests.variants import each, pairwise

PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def rows_of(levels: NDArray[np.uint8], interlaced: bool) -> list[bytes]:
    """Return the rows of a picture of 8 bits, in the order in which a file has them."""
    parts = [levels[y::down, x::across] for x, y, across, down in PASSES] if interlaced else [levels]
    return [b"\0" + row.tobytes() for part in parts if part.size for row in part]


def png_of(levels: NDArray[np.uint8], interlaced: bool = False, rows: int | None = None) -> bytes:
    """Return a PNG of which only the first `rows` rows are there; its stream and its chunks end as they should."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[levels.shape[2]]
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8, colour, 0, 0, interlaced)
    stream = zlib.compress(b"".join(rows_of(levels, interlaced)[:rows]))
    return png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


@each(
    "size, level, bands, interlaced",
    pairwise(
        [(1, 1), (1, 5), (2, 1), (9, 1), (6, 2), (7, 9), (16, 16)], [0, 137, 255, None], [1, 2, 3, 4], [False, True]
    ),
)
def test_a_stream_that_ends_early_is_truncated_and_no_other(
    preprocessing: Preprocessing, size: tuple[int, int], level: int | None, bands: int, interlaced: bool
) -> None:
    shape = (size[1], size[0], bands)
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8) if level is None else np.full(shape, level)
    levels = levels.astype(np.uint8)
    count = len(rows_of(levels, interlaced))
    with Image.open(io.BytesIO(png_of(levels, interlaced))) as image:
        assert np.array_equal(np.asarray(image).reshape(shape), levels)
    assert code(png_of(levels, interlaced), preprocessing) is None
    for rows in {0, 1, count // 2, count - 1} - {count}:
        assert code(png_of(levels, interlaced, rows), preprocessing) == "truncated", rows


@each("mode", ["1", "L", "P", "RGB", "LA", "RGBA", "I;16"])
@each("mark", [0, 1])
def test_an_image_of_the_colour_of_what_is_missing_is_whole(preprocessing: Preprocessing, mode: str, mark: int) -> None:
    buffer = io.BytesIO()
    image = Image.new(mode, (20, 10), png.mark(mode, mark))  # type: ignore[arg-type]
    image.save(buffer, "PNG")
    assert code(buffer.getvalue(), preprocessing) is None


def test_damage_of_the_pixels_is_found(preprocessing: Preprocessing) -> None:
    data = photo(1, kind="PNG")
    first = data.index(b"IDAT") + 4
    for place in range(first, len(data) - 12, 41):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        assert code(bytes(damaged), preprocessing) == "corrupt", place

    data = photo(1, (200, 150), kind="PNG")
    for length in range(60, len(data) - 16, len(data) // 30):
        assert code(data[:length] + bytes(len(data) - length), preprocessing) in ("corrupt", "truncated"), length

    for bits in [1, 2, 4, 16]:
        header = struct.pack(">IIBBBBB", 16, 8, bits, 0, 0, 0, 0)
        for rows in (8, 7, 3, 0):
            stream = zlib.compress(b"".join(b"\0" + bytes(2 * bits) for _ in range(rows)))
            data = png.SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")
            assert code(data, preprocessing) == (None if rows == 8 else "truncated")


def test_chunks_without_pixels_cost_little_or_are_too_costly(preprocessing: Preprocessing) -> None:
    for kind in [b"teSt", b"tEXt"]:
        data = photo(1, kind="PNG")
        place = data.index(b"IDAT") - 4
        many = data[:place] + chunk(kind, b"k\0v") * 50_000 + data[place:]
        assert np.array_equal(decode(many, preprocessing).pixels, decode(data, preprocessing).pixels)

    place = data.index(b"IDAT") - 4
    assert code(data[:place] + chunk(b"teSt", b"") * 1_000_001 + data[place:], preprocessing) == "too-costly"

    levels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    whole = png_of(levels)
    place = whole.index(b"IDAT") - 4
    stream = zlib.compress(b"".join(rows_of(levels, False)))
    parts = b"".join(chunk(b"IDAT", stream[k : k + 1]) + chunk(b"IDAT", b"") for k in range(len(stream)))
    found = decode(whole[:place] + parts + chunk(b"IEND", b""), preprocessing).pixels
    assert np.array_equal(found, decode(whole, preprocessing).pixels)

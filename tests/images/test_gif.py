import struct

import numpy as np

from bottleneck.images import gif
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from tests.images.codes import code
from tests.variants import each, pairwise

CLEAR, END = 256, 257
PALETTE = bytes(range(256)) * 3


def blocks(data: bytes) -> bytes:
    return b"".join(bytes([len(data[k : k + 255])]) + data[k : k + 255] for k in range(0, len(data), 255)) + b"\0"


def packed(codes: list[int]) -> bytes:
    """Return codes of 9 bits as the blocks of a frame."""
    bits = sum(code << 9 * place for place, code in enumerate(codes))
    return b"\x08" + blocks(bits.to_bytes(-(-9 * len(codes) // 8), "little"))


def frame(
    size: tuple[int, int], count: int, last: int, place: tuple[int, int] = (0, 0), interlaced: bool = False
) -> bytes:
    """Return a frame whose data ends, as it should, after `count` pixels."""
    pixels = [1 + 7 * k % 200 for k in range(size[0] * size[1] - 1)] + [last]
    codes = [code for pixel in pixels[:count] for code in (CLEAR, pixel)]
    return b"," + struct.pack("<HHHHB", *place, *size, 0x40 * interlaced) + packed([CLEAR, *codes, END])


def gif_of(*parts: bytes, screen: tuple[int, int] = (12, 10)) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0xF7, 0, 0) + PALETTE + b"".join(parts) + b";"


def transparent(colour: int) -> bytes:
    return b"!\xf9\x04\x01\0\0" + bytes([colour]) + b"\0"


@each(
    "sizes, last, clear, interlaced",
    pairwise(
        [((12, 10), (0, 0)), ((5, 4), (3, 2)), ((1, 1), (0, 0)), ((7, 1), (1, 1))],
        [0, 9, 255],
        [None, 0, 9, 255],
        [False, True],
    ),
)
def test_data_that_ends_early_is_truncated_and_no_other(
    preprocessing: Preprocessing,
    sizes: tuple[tuple[int, int], tuple[int, int]],
    last: int,
    clear: int | None,
    interlaced: bool,
) -> None:
    size, place = sizes
    whole = size[0] * size[1]
    before = () if clear is None else (transparent(clear),)
    for count in {0, 1, whole // 2, whole - 1, whole}:
        data = gif_of(*before, frame(size, count, last, place, interlaced))
        assert code(data, preprocessing) == (None if count == whole else "truncated"), count


def test_of_several_frames_only_the_first_is_looked_at(preprocessing: Preprocessing) -> None:
    first, broken = frame((12, 10), 120, 5), frame((12, 10), 3, 5)
    done = decode(gif_of(first, broken), preprocessing)
    assert done.note == "several frames (GIF); the first is used"
    assert decode(gif_of(first), preprocessing).note is None
    assert np.array_equal(done.pixels, decode(gif_of(first), preprocessing).pixels)


def test_metadata_without_end_costs_little_or_is_too_costly(preprocessing: Preprocessing) -> None:
    for extra in [
        b"!\xfe\0" * 50_000,
        b"!\xfe" + blocks(b"c" * 300_000),
        b"!\xff\x0bNETSCAPE2.0" + b"\x03\x01\0\0" * 5000 + b"\0",
    ]:
        image = frame((12, 10), 120, 5)
        for before in ((), (transparent(8),)):
            found = decode(gif_of(extra, *before, image), preprocessing).pixels
            assert np.array_equal(found, decode(gif_of(*before, image), preprocessing).pixels)

    image, extra = frame((12, 10), 120, 5), b"!\xfe\0" * 1_000_001
    assert code(gif_of(extra, image), preprocessing) == "too-costly"
    assert code(gif_of(image, extra), preprocessing) is None


def test_any_beginning_can_be_followed() -> None:
    data = gif_of(transparent(3), frame((5, 4), 20, 5), frame((5, 4), 20, 5))
    for length in range(len(data)):
        found = gif.first_frame(data[:length])
        assert found is None or found.end <= length

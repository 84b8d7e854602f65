import io
import struct
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, features

from bottleneck.errors import ImageError
from bottleneck.images import jpeg2000
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.images.codes import code
from tests.variants import each

pytestmark = pytest.mark.skipif(not features.check("jpg_2000"), reason="needs Pillow with OpenJPEG")

SOT, EOC = b"\xff\x90\0\x0a", b"\xff\xd9"


def encoded(size: tuple[int, int] = (80, 60), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo(3, size, "PNG"))).save(buffer, "JPEG2000", **options)
    return buffer.getvalue()


def tiles_of(data: bytes) -> list[int]:
    return [place for place in range(len(data) - 3) if data[place : place + 4] == SOT]


WAYS = [{}, {"no_jp2": True}, {"irreversible": True}, {"tile_size": (32, 32)}, {"no_jp2": True, "tile_size": (16, 50)}]


def test_every_tile_and_part_of_one_is_needed(preprocessing: Preprocessing) -> None:
    for options in WAYS:
        data = encoded(**options)
        assert code(data, preprocessing) is None
        places = [*tiles_of(data), len(data) - 2]
        for place in places[1:-1]:
            assert code(data[:place] + EOC, preprocessing) == "truncated"
        for number in range(len(places) - 2):  # one that is not the last
            assert code(data[: places[number]] + data[places[number + 1] :], preprocessing) == "truncated"

    data = bytearray(encoded(no_jp2=True))
    (place,) = tiles_of(bytes(data))
    data[place + 11] = 3  # of this many parts
    with pytest.raises(ImageError, match="expected 1 tiles") as error:
        jpeg2000.layout_of(bytes(data))
    assert error.value.code == "truncated"


@each("options", WAYS)
@each("end", [b"", EOC, bytes(500)])
def test_a_tile_that_is_short_is_refused(preprocessing: Preprocessing, options: dict[str, object], end: bytes) -> None:
    data = encoded(**options)
    for length in range(tiles_of(data)[0] + 14, len(data) - 40, len(data) // 23):
        assert code(data[:length] + end, preprocessing) in ("truncated", "corrupt"), length


def altered(data: bytes, offset: int, values: bytes) -> bytes:
    """Return the file with other bytes in its size segment, or behind it."""
    place = data.index(jpeg2000.CODESTREAM) + offset
    return data[:place] + values + data[place + len(values) :]


def coded(layers: int = 1, block: int = 4, precincts: bytes = b"") -> bytes:
    data = encoded((13_000, 64), no_jp2=True)
    data = altered(data, 12, struct.pack(">I", 13_000)).replace(
        struct.pack(">II", 13_000, 64), struct.pack(">II", 13_000, 13_000)
    )
    place = data.index(b"\xff\x52")
    body = bytes([bool(precincts), 0]) + struct.pack(">HB", layers, 0) + bytes([5, block, block, 0, 1]) + precincts
    return data[:place] + b"\xff\x52" + struct.pack(">H", len(body) + 2) + body + data[data.index(b"\xff\x5c") :]


def test_millions_of_blocks_tiles_or_boxes_are_too_costly(preprocessing: Preprocessing) -> None:
    for options in [{"layers": 65_535, "precincts": b"\x88" * 6}, {"block": 0}, {"precincts": b"\x11" * 6}]:
        with pytest.raises(ImageError, match="millions") as error:
            jpeg2000.layout_of(coded(**options))  # type: ignore[arg-type]
        assert error.value.code == "too-costly"

    data = altered(encoded((400, 300), no_jp2=True), 24, struct.pack(">II", 1, 1))
    assert code(data, preprocessing) == "too-costly"

    data = encoded()
    assert code(data[:32] + b"\0\0\0\x08free" * 20_000 + data[32:], preprocessing) == "too-costly"
    few = data[:32] + b"\0\0\0\x08free" * 20 + data[32:]
    assert np.array_equal(decode(few, preprocessing).pixels, decode(data, preprocessing).pixels)


@each("options", [{"tile_size": (32, 32)}, {"no_jp2": True}])
def test_any_beginning_can_be_followed(options: dict[str, object]) -> None:
    data = encoded(**options)
    for cut in range(0, 260, 3):
        with suppress(ImageError):
            assert jpeg2000.layout_of(data[:cut]) is None, cut

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.images import jpeg
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo
from tests.variants import each, pairwise

EOI = b"\xff\xd9"


def picture(size: tuple[int, int], kind: str = "photo") -> Image.Image:
    if kind == "noise":
        return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
    if kind == "photo":
        return Image.open(io.BytesIO(photo(3, size, "PNG")))
    return Image.new("RGB", size, kind)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def pillows(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
    return image


def loaded(data: bytes) -> Image.Image:
    layout = jpeg.layout_of(data)
    assert layout is not None
    image = Image.open(io.BytesIO(data))
    jpeg.load(image, data, layout)
    return image


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def scans_of(data: bytes) -> list[int]:
    return [place for place in range(len(data) - 1) if data[place : place + 2] == b"\xff\xda"]


WAYS = [
    {},
    {"optimize": True},
    {"progressive": True},
    {"restart_marker_blocks": 1},
    {"restart_marker_rows": 1},
    {"progressive": True, "restart_marker_blocks": 3},
    {"quality": 100, "subsampling": 0},
    {"quality": 1, "subsampling": 1},
]
SIZES = [(1, 1), (8, 8), (7, 9), (17, 33), (100, 60)]


@each(
    "options, kind, size, mode",
    pairwise(WAYS, ["photo", "noise", "white", "black", "#808080"], SIZES, ["RGB", "L", "CMYK"]),
)
def test_a_whole_image_is_what_pillow_makes_of_it(
    options: dict[str, object], kind: str, size: tuple[int, int], mode: str
) -> None:
    data = encoded(picture(size, kind).convert(mode), **options)
    wanted = pillows(data)
    for whole in (data, data + b"junk \xff\xd8 and \xff\xd9", data + bytes(50)):
        found = loaded(whole)
        assert (found.mode, found.size) == (wanted.mode, wanted.size)
        assert found.tobytes() == wanted.tobytes()


@each("mode, kind, options", pairwise(["RGB", "L"], ["photo", "noise"], WAYS))
def test_an_image_that_ends_early_is_truncated_though_it_has_an_end(
    mode: str, kind: str, options: dict[str, object]
) -> None:
    data = encoded(picture((160, 120), kind).convert(mode), **options)
    whole, first = pillows(data), scans_of(data)[0] + 20
    for length in (*range(first, len(data) - 70, max(1, len(data) // 23)),):
        with pytest.raises((ImageError, OSError)) as error:
            loaded(data[:length] + EOI)
        if isinstance(error.value, ImageError):
            assert error.value.code in ("truncated", "corrupt")
    for length in range(len(data) - 70, len(data) - 2):  # at most a part of the last block is not seen
        try:
            found = loaded(data[:length] + EOI)
        except (ImageError, OSError):
            continue
        differs = np.asarray(found) != np.asarray(whole)
        assert not differs[:-17].any()
        assert not differs[:, :-33].any()  # two blocks of a refinement take so few bits


@each("options", WAYS[:6])
def test_of_a_small_image_not_even_a_part_of_the_last_block_may_be_missing(options: dict[str, object]) -> None:
    data = encoded(picture((50, 40)), **options)
    whole = pillows(data).tobytes()
    for length in range(scans_of(data)[-1] + 12, len(data) - 2):
        try:
            found = loaded(data[:length] + EOI).tobytes()
        except (ImageError, OSError):
            continue
        assert found == whole, length


def test_each_scan_of_a_progressive_image_is_needed() -> None:
    data = encoded(picture((64, 48)), progressive=True)
    places = [*scans_of(data), len(data) - 2]
    for place in places[1:-1]:
        with pytest.raises(ImageError, match="scans are missing") as error:
            loaded(data[:place] + EOI)
        assert error.value.code == "truncated"
    for number in range(1, len(places) - 1):  # one in the middle is left out
        with pytest.raises((ImageError, OSError)):
            loaded(data[: places[number]] + data[places[number + 1] :])

    data = encoded(picture((160, 120), "noise"), progressive=True)
    layout = jpeg.layout_of(data)
    assert layout is not None
    for end in layout.ends[:-1]:
        with pytest.raises((ImageError, OSError)):
            loaded(data[: end - 100] + data[end:])


@each("options", [{"restart_marker_rows": 1}, {"restart_marker_blocks": 2}])
def test_what_lies_between_restart_markers_is_needed(options: dict[str, object]) -> None:
    data = encoded(picture((160, 120), "noise"), **options)
    layout = jpeg.layout_of(data)
    assert layout is not None
    ends = layout.ends
    for number in (0, 1, len(ends) // 2, len(ends) - 3):
        between = data[: ends[number] + 2], data[ends[number + 1] :]
        for damaged in (
            data[: ends[number]] + data[ends[number + 1] :],  # with its marker
            between[0] + between[1],  # without
            data[: ends[number] - 80] + data[ends[number] :],
            data[: ends[number]] + data[ends[number] + 2 :],  # the marker alone
        ):
            with pytest.raises((ImageError, OSError)):
                loaded(damaged)


def test_damage_in_the_midst_of_the_data_is_found(preprocessing: Preprocessing) -> None:
    for marker in [b"\xff\xd9", b"\xff\xd8", b"\xff\xc0", b"\xff\xe1", b"\xff\x02"]:
        data = encoded(picture((160, 120), "noise"))
        middle = len(data) // 2
        with pytest.raises((ImageError, OSError)):
            loaded(data[:middle] + marker + data[middle + 2 :])

    with pytest.raises(ImageError) as error:
        decode(data[: len(data) // 2] + bytes(9999), preprocessing)
    assert error.value.code == "truncated"


def test_metadata_is_no_part_of_an_image_and_the_first_exif_counts(preprocessing: Preprocessing) -> None:
    data, small = encoded(picture((64, 48))), encoded(picture((16, 16)))
    both = data[:2] + segment(0xE1, b"Exif\0\0" + small) + segment(0xFE, small) + data[2:]
    assert loaded(both).tobytes() == pillows(data).tobytes()

    turned, straight = Image.Exif(), Image.Exif()
    turned[0x112], straight[0x112] = 6, 1
    data = encoded(picture((64, 48)), exif=turned)
    blocks = segment(0xE1, straight.tobytes() + bytes(50_000)) * 2000
    place = data.index(b"\xff\xdb")
    found = decode(data[:place] + blocks + data[place:], preprocessing).pixels
    assert np.array_equal(found, decode(data, preprocessing).pixels)


@pytest.mark.shared
def test_photographs_are_what_pillow_makes_of_them(hymenoptera: Path) -> None:
    for path in sorted(hymenoptera.rglob("*.jpg"))[::8]:
        data = path.read_bytes()
        assert loaded(data).tobytes() == pillows(data).tobytes(), path


# What it costs


def test_many_scans_are_too_costly(preprocessing: Preprocessing) -> None:
    for count in [1000, 30_000]:
        data = encoded(Image.new("L", (640, 480), 7), progressive=True)
        scan = data[scans_of(data)[-1] : -2]
        with pytest.raises(ImageError, match="scans or more") as error:
            decode(data[:-2] + scan * count + EOI, preprocessing)
        assert error.value.code == "too-costly"

    data = encoded(Image.new("L", (64, 64), 7), progressive=True)
    huge = data.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 13_000, 13_000), 1)
    scan = huge[scans_of(huge)[-1] : -2]
    assert jpeg.layout_of(huge) is not None
    with pytest.raises(ImageError) as error:
        jpeg.layout_of(huge[:-2] + scan * 80 + EOI)
    assert error.value.code == "too-costly"


@each("marker", [0xE5, 0xFE, 0xC4])
def test_segments_without_number_are_too_costly_where_they_decide_pixels(
    preprocessing: Preprocessing, marker: int
) -> None:
    data = encoded(picture((64, 48)))
    many = data[:2] + segment(marker, b"") * 5000 + data[2:]
    if marker == 0xC4:
        with pytest.raises(ImageError) as error:
            decode(many, preprocessing)
        assert error.value.code == "too-costly"
    else:
        assert np.array_equal(decode(many, preprocessing).pixels, decode(data, preprocessing).pixels)
    with pytest.raises(ImageError, match="segments") as error:
        decode(data[:2] + segment(marker, b"") * 200_000 + data[2:], preprocessing)
    assert error.value.code == "too-costly"


@each("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_any_beginning_can_be_followed(options: dict[str, object]) -> None:
    data = encoded(picture((16, 16)), **options)
    for cut in range(0, 700, 7):
        layout = jpeg.layout_of(data[:cut])
        assert layout is None or layout.stop <= cut, cut

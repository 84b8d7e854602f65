import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.errors import ImageError
from bottleneck.exploring.atlas import Atlas
from bottleneck.exploring.pictures import Pictures
from bottleneck.images.scan import scan
from tests.conftest import photo, write
from tests.variants import each


def flat(colour, size=(80, 60), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def opened(*files):
    for number, data in enumerate(files):
        write(Path(f"images/{number}.jpg"), data)
    return Pictures(scan("images", labels=False), Path("cache"))


def pixels(data):
    return Image.open(io.BytesIO(data), formats=["JPEG"])


@each(
    "size, asked, expected",
    [((400, 100), 96, (96, 24)), ((100, 400), 256, (64, 256)), ((50, 40), 256, (50, 40)), ((3000, 2), 96, (96, 1))],
)
def test_a_whole_picture_keeps_its_shape_and_is_never_enlarged(size, asked, expected):
    data = opened(flat((200, 30, 60), size)).whole(0, asked)
    found = pixels(data)
    assert found.size == expected
    assert np.abs(np.asarray(found).mean(axis=(0, 1)) - (200, 30, 60)).max() < 4


def test_a_picture_is_shown_upright():
    turned = Image.new("RGB", (200, 100))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    found = opened(buffer.getvalue())
    assert pixels(found.whole(0, 96)).size == (48, 96)
    assert found.size(0) == (100, 200)


def test_a_file_that_changed_is_not_shown_but_its_copy_is():
    found = opened(photo(1), photo(2), photo(2))
    write(Path("images/0.jpg"), photo(3))
    write(Path("images/1.jpg"), photo(3))
    with pytest.raises(ImageError, match="changed") as error:
        found.whole(0, 96)
    assert error.value.code == "changed"
    assert pixels(found.whole(1, 96)).size == (64, 48)
    Path("images/2.jpg").unlink()
    with pytest.raises(ImageError):
        found.whole(1, 96)


def test_cells_are_remembered_and_what_cannot_be_decoded_has_none():
    first = opened(flat((10, 200, 10)), b"no picture", photo(1)).cells([0, 1, 2])
    assert sorted(first) == [0, 2]
    assert pixels(first[0]).size == (64, 64)
    dataset = scan("images", labels=False)
    for name in ("0.jpg", "2.jpg"):
        Path("images", name).unlink()
    assert Pictures(dataset, Path("cache")).cells([0, 1, 2]) == first
    assert Pictures(dataset, Path("other")).cells([0, 1, 2]) == {}


def test_a_tile_has_a_cell_for_each_image_and_grey_for_the_rest():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    found = opened(*map(flat, colours), b"no picture")
    rows = np.array([2, 3, 0, *[1] * 7], np.uint32)
    for size in (64, 32):
        sheet = np.asarray(pixels(Atlas(found).tile(rows, size)), float)
        assert sheet.shape == (8 * size, 8 * size, 3)
        middle = sheet[size // 2 :: size, size // 2 :: size]
        expected = np.full((8, 8, 3), 128)
        expected[0] = [colours[2], (128, 128, 128), colours[0], *[colours[1]] * 5]
        expected[1, :2] = colours[1]
        assert np.abs(middle - expected).max() < 30

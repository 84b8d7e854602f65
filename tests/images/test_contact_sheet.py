"""Contact sheets: which rows they show, and what they show of images that cannot be decoded."""

import numpy as np
import pytest

from bottleneck.errors import ImagesError
from bottleneck.images.contact_sheet import ContactSheet, Tile, contact_sheet, spread_rows
from bottleneck.images.scan import scan
from tests.conftest import photo, write
from tests.markup import parsed, text_in
from tests.variants import each

NAMES = ["<b>/0.jpg", "<b>/1.jpg", "شجرة/2.jpg", "شجرة/3.jpg"]


@pytest.fixture
def dataset(tmp_path):
    for seed, name in enumerate(NAMES):
        write(tmp_path / "images" / name, photo(seed))
    return scan(tmp_path / "images")


def rows_of(sheet):
    return [int(tile.caption.split(" ")[0]) for tile in sheet]


@each(
    "rows, expected",
    [
        (None, [0, 1, 2, 3]),
        (2, [2]),
        ([3, -4], [3, 0]),
        (range(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (np.array([2, 1]), [2, 1]),
        (np.array([True, False, False, True]), [0, 3]),
        ([True, False, False, True], [0, 3]),
        ([], []),
    ],
)
def test_rows_can_be_named_in_every_usual_way(rows, expected):
    sheet = contact_sheet(lambda row: Tile("p", str(row)), 4, rows)

    assert rows_of(sheet) == expected
    assert sheet.left_out == 0


@each("rows", [[4], [-5], ["a"], [1.5], np.zeros((2, 2), int), [True, False]])
def test_rows_that_do_not_exist_are_refused(rows):
    with pytest.raises(ImagesError, match="expected"):
        contact_sheet(lambda row: Tile("p", str(row)), 4, rows)


@each("options", [{"size": 8}, {"size": 2000}, {"columns": 0}, {"most": 0}, {"most": "all"}])
def test_a_layout_that_is_not_possible_is_refused(options):
    with pytest.raises(ImagesError, match="expected"):
        contact_sheet(lambda row: Tile("p", str(row)), 4, **options)


def test_by_default_rows_are_spread_over_all():
    assert spread_rows(100, 4) == [0, 25, 50, 75]
    assert spread_rows(3, 4) == [0, 1, 2]
    assert spread_rows(0, 4) == []


def test_it_shows_pictures_with_rows_and_labels_and_tells_what_is_left_out(dataset):
    sheet = dataset.show(most=3, size=32)
    html = sheet._repr_html_()

    assert repr(sheet) == "<ContactSheet: 3 images, 1 left out>"
    assert [image.attrib["src"][:22] for image in parsed(html).iter("img")] == ["data:image/jpeg;base64"] * 3
    assert text_in(html) == "0 · <b> 1 · <b> 2 · شجرة 1 more image left out"


def test_named_rows_beyond_the_most_are_left_out(dataset):
    assert dataset.show([3, 2, 1], most=2).left_out == 1


def test_columns_can_be_fixed(dataset):
    assert "repeat(2,32px)" in dataset.show(columns=2, size=32).to_html()
    assert "repeat(auto-fill,128px)" in dataset.show().to_html()


def test_images_that_cannot_be_decoded_are_shown_as_such(dataset, tmp_path):
    (tmp_path / "images" / NAMES[0]).write_bytes(b"no image")
    (tmp_path / "images" / NAMES[1]).unlink()
    html = dataset.show(size=32).to_html()

    assert len(list(parsed(html).iter("img"))) == 2
    assert "changed: the file changed since it was scanned" in text_in(html)
    assert "unreadable: " in text_in(html)


def test_a_sheet_is_a_sequence():
    tile = Tile("a", "b")

    assert list(ContactSheet([tile])) == [tile]
    assert ContactSheet([tile])[0] is tile

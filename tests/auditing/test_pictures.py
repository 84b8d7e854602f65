from pathlib import Path

import numpy as np
import pytest

from bottleneck.auditing.pictures import BRIGHT, DARK, SHAPE, TINY, UNIFORM, find_bad_pictures
from bottleneck.images.dataset import Dataset
from bottleneck.images.thumbnails import SIDE, Thumbnails
from tests.variants import each


def images(count, labels=None):
    digests = np.zeros((count, 32), np.uint8)
    digests[:, 0] = np.arange(count)
    return Dataset(
        source=Path("/photos"),
        paths=tuple(f"/photos/{row:02d}.jpg" for row in range(count)),
        digests=digests,
        labels=labels or (None,) * count,
        given_splits=("train",) * count,
        groups=(None,) * count,
    )


def photographs(count):
    """Return thumbnails of pictures of 300 x 200 pixels with all levels."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return Thumbnails(pixels, np.tile([300, 200], (count, 1)))


def found_in(thumbnails):
    return find_bad_pictures(images(len(thumbnails)), thumbnails)


def test_ordinary_pictures_are_not_bad():
    assert found_in(photographs(20)) == ()
    assert found_in(photographs(0)) == ()
    assert found_in(photographs(1)) == ()


@each(
    "kind, pixels, value, bound",
    [
        (UNIFORM, np.full((SIDE, SIDE, 3), 90), 0, 8),
        (UNIFORM, np.arange(SIDE * SIDE * 3).reshape(SIDE, SIDE, 3) % 7 + 40, 6, 8),
        (UNIFORM, np.zeros((SIDE, SIDE, 3)), 0, 8),
        (DARK, np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1).repeat(3, axis=2) % 14, 13, 16),
        (BRIGHT, 255 - np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1).repeat(3, axis=2) % 14, 242, 240),
    ],
)
def test_pictures_that_show_nothing_are_named_with_their_levels(kind, pixels, value, bound):
    thumbnails = photographs(5)
    thumbnails.pixels[3] = pixels
    (found,) = found_in(thumbnails)
    assert (found.path, found.kind) == ("/photos/03.jpg", kind)
    assert (found.value, found.bound) == (pytest.approx(value, abs=0.5), bound)
    assert found.digest.startswith("03")
    assert f"{found.value:.0f}" in found.reason
    assert f"{bound}" in found.reason
    assert found.kind == kind


def test_a_coloured_dot_does_not_make_a_dark_picture_bright_but_a_colour_is_a_shape():
    thumbnails = photographs(5)
    thumbnails.pixels[1] = np.random.default_rng(1).integers(0, 12, (SIDE, SIDE, 3))
    thumbnails.pixels[1, 4, 4] = 255
    thumbnails.pixels[2] = 60
    thumbnails.pixels[2, :8, :, 0] = 90  # red above, grey below
    (found,) = found_in(thumbnails)
    assert (found.path, found.kind) == ("/photos/01.jpg", DARK)


def test_tiny_pictures_are_judged_by_the_others():
    thumbnails = photographs(20)
    thumbnails.sizes[4], thumbnails.sizes[5], thumbnails.sizes[6] = (60, 40), (70, 50), (5, 6)
    found = found_in(thumbnails)
    assert [(one.path[-6:], one.kind, one.value, one.bound) for one in found] == [
        ("06.jpg", TINY, 5, 50),
        ("04.jpg", TINY, 40, 50),
    ]
    assert "the median is 200" in found[0].reason

    digits = photographs(20)
    digits.sizes[:] = 8
    assert found_in(digits) == ()
    digits.sizes[:10], digits.sizes[3] = 9, (3, 8)
    assert [(one.path[-6:], one.bound) for one in found_in(digits)] == [("03.jpg", 8)]


def test_extreme_shapes_are_judged_by_the_others():
    thumbnails = photographs(20)
    thumbnails.sizes[4], thumbnails.sizes[5] = (900, 200), (200, 780)
    (found,) = found_in(thumbnails)
    assert (found.path, found.kind, found.value, found.bound) == ("/photos/04.jpg", SHAPE, 4.5, 4.0)
    thumbnails.sizes[:] = 1000, 200  # panoramas
    thumbnails.sizes[7] = 2200, 200
    assert [(one.path[-6:], one.value, one.bound) for one in found_in(thumbnails)] == [("07.jpg", 11.0, 10.0)]


def test_each_image_is_named_once_by_its_first_path_and_unknown_ones_are_not():
    thumbnails = photographs(5)
    thumbnails.pixels[[0, 1, 2]] = 0
    thumbnails.sizes[1] = 0, 0  # no thumbnail
    thumbnails.sizes[2] = 3000, 2
    dataset = images(5, labels=("a", "b", "c", "d", "e"))
    dataset.digests[4] = dataset.digests[0]
    thumbnails.pixels[4] = 0
    found = find_bad_pictures(dataset, thumbnails)
    assert [(one.path[-6:], one.label, one.kind) for one in found] == [
        ("00.jpg", "a", UNIFORM),
        ("02.jpg", "c", UNIFORM),
    ]

import shutil

import numpy as np
import pytest
from PIL import Image

from bottleneck.extraction.loading import Loader
from bottleneck.extraction.thumbnails import remembered_thumbnails, thumbnails
from bottleneck.images.digest import ImageFile
from bottleneck.images.scan import scan
from bottleneck.images.thumbnail_memo import NAME
from bottleneck.images.thumbnails import PREPROCESSING, SIDE


@pytest.fixture
def photos(tmp_path):
    """Return a folder of six pictures, one of them twice, and one file that is none."""
    for number in range(6):
        place = tmp_path / "photos" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20 + number, 30, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    shutil.copy(tmp_path / "photos/a/0.png", tmp_path / "photos/b/copy.png")
    (tmp_path / "photos/b/text.png").write_text("no picture")
    return tmp_path / "photos"


def found_by(photos, cache, **options):
    return thumbnails(scan(photos, labels=False, cache=None), cache, **options)


def counting(opened):
    def open_file(path):
        opened.append(path)
        return ImageFile(path)

    return lambda budget: Loader(budget, PREPROCESSING, open_file=open_file)


def test_each_picture_has_its_thumbnail_and_its_size_and_failures_are_listed(photos, tmp_path):
    steps = []
    found = found_by(photos, tmp_path / "cache", progress=lambda *step: steps.append(step))
    dataset = scan(photos, labels=False, cache=None)
    assert [path[-8:] for path in dataset.paths] == [
        "/a/0.png", "/a/2.png", "/a/4.png", "/b/1.png", "/b/3.png", "/b/5.png", "copy.png", "text.png",
    ]  # fmt: skip
    assert found.known.tolist() == [True] * 7 + [False]
    assert found.sizes[:, 1].tolist() == [20, 22, 24, 21, 23, 25, 20, 0]
    assert found.pixels[:, 3, 5, 1].tolist() == [0, 80, 160, 40, 120, 200, 0, 0]
    assert found.pixels.shape == (8, SIDE, SIDE, 3)
    (failure,) = found.failures
    assert (failure.path, failure.code) == (dataset.paths[7], "not-an-image")
    assert steps == [("thumbnails", 7, 7)]


def test_what_is_remembered_is_not_read_again_and_the_memo_changes_nothing(photos, tmp_path):
    cache, opened = tmp_path / "cache", []
    first = found_by(photos, cache, loader=counting(opened))
    assert len(opened) == 7  # each image once
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(photos / "a/new.png")
    opened.clear()
    found_by(photos, cache, loader=counting(opened))
    assert [path.rpartition("/")[2] for path in sorted(opened)] == ["new.png", "text.png"]
    (photos / "a/new.png").unlink()

    (cache / NAME).unlink()
    again = found_by(photos, cache)
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert np.array_equal(one, other)


def test_remembered_thumbnails_decode_nothing(photos, tmp_path):
    dataset = scan(photos, labels=False, cache=None)
    assert not remembered_thumbnails(dataset, tmp_path / "cache").known.any()
    found = found_by(photos, tmp_path / "cache")
    shutil.rmtree(photos)
    remembered = remembered_thumbnails(dataset, tmp_path / "cache")
    assert np.array_equal(remembered.pixels, found.pixels)
    assert np.array_equal(remembered.sizes, found.sizes)


def test_a_changed_or_lost_file_is_a_failure_unless_a_copy_is_left(photos, tmp_path):
    dataset = scan(photos, labels=False, cache=None)
    shutil.copy(photos / "a/2.png", photos / "a/0.png")
    (photos / "a/4.png").unlink()
    found = thumbnails(dataset, tmp_path / "cache")
    assert found.known.tolist() == [True, True, False, True, True, True, True, False]
    assert found.sizes[0].tolist() == [30, 20]  # read from the copy
    assert [failure.code for failure in found.failures] == ["unreadable", "not-an-image"]
    shutil.copy(photos / "a/2.png", photos / "a/4.png")
    changed = thumbnails(dataset, tmp_path / "cache").failures[0]
    assert (changed.path, changed.code) == (dataset.paths[2], "changed")


def test_a_picture_that_needs_too_much_memory_is_a_failure(photos, tmp_path):
    Image.fromarray(np.zeros((4000, 4000, 3), np.uint8)).save(photos / "a/large.png")
    found = found_by(photos, tmp_path / "cache", memory=32_000_000, threads=2)
    assert [failure.code for failure in found.failures] == ["no-memory", "not-an-image"]
    assert found.known.sum() == 7


def test_an_empty_dataset_has_no_thumbnails(photos, tmp_path):
    found = thumbnails(scan(photos, labels=False, cache=None).subset([]), tmp_path / "cache")
    assert (len(found), found.failures) == (0, ())


def test_errors_that_are_no_failures_are_raised(photos, tmp_path):
    def broken(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        found_by(photos, tmp_path / "cache", loader=lambda budget: Loader(budget, PREPROCESSING, decode=broken))

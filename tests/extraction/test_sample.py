"""The images that the first features of a spec are checked on: the same each time, from all over the list."""

import numpy as np

from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import LEAST_MEMORY, MemoryBudget
from bottleneck.extraction.sample import SAMPLE, some_images, spread_rows
from bottleneck.images.decode import decode
from tests import tiny
from tests.conftest import photo
from tests.variants import each


def sampled(paths: list[str]) -> list[bytes]:
    return [pixels.tobytes() for pixels in some_images(paths, Loader(MemoryBudget(LEAST_MEMORY), tiny.PREPROCESSING))]


@each("count, expected", [(0, 0), (1, 1), (7, 7), (8, 8), (30, 8)])
def test_up_to_eight_different_images_are_decoded(folder, count, expected):
    root = folder({f"{number:02}.jpg": number for number in range(count)})
    known = {decode(photo(seed), tiny.PREPROCESSING).pixels.tobytes() for seed in range(count)}
    found = sampled([str(path) for path in sorted(root.iterdir())])

    assert len(set(found)) == len(found) == expected
    assert set(found) <= known


def test_the_sample_is_the_same_each_time_and_what_cannot_be_used_is_passed_over(folder):
    root = folder({f"{number:02}.jpg": number if number % 3 else b"<html>" for number in range(40)})
    paths = [str(path) for path in sorted(root.iterdir())]
    paths.insert(20, str(root / "gone.jpg"))
    first = sampled(paths)

    assert len(first) == SAMPLE
    assert sampled(paths) == first


def test_copies_count_once(folder):
    root = folder({f"{number:02}.jpg": number % 3 for number in range(30)})

    assert len(sampled([str(path) for path in sorted(root.iterdir())])) == 3


def test_of_images_sorted_by_class_all_classes_are_seen(folder):
    root = folder({f"{name}/{number}.png": photo(number, kind="PNG") for name in "abcd" for number in range(25)})
    rows = spread_rows(len([*root.rglob("*.png")]), SAMPLE)

    assert {row // 25 for row in rows} == {0, 1, 2, 3}


@each("count", [1, 2, 8, 64, 65, 1000, 10**6])
def test_rows_are_different_and_in_range(count):
    rows = spread_rows(count, 64)

    assert len(set(rows)) == len(rows) <= 64
    assert len(rows) >= min(count, 50)
    assert set(rows) <= set(range(count))


@each("first", [2, 4, 8, 16])
def test_the_first_rows_lie_far_apart(first):
    rows = np.sort(spread_rows(10**6, 64)[:first])

    assert np.diff(rows).min() > 10**6 / first / 3

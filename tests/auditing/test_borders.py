import json
from dataclasses import replace

import numpy as np
import pytest

from bottleneck.auditing.borders import edges_of, find_border
from bottleneck.images.thumbnails import SIDE, Thumbnails
from tests.auditing.test_pictures import images
from tests.variants import each


def noisy(count, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)
    return Thumbnails(pixels, np.full((count, 2), 100))


def framed(thumbnails, rows, colour):
    for edge in (np.s_[:, :2], np.s_[:, -2:], np.s_[:, :, :2], np.s_[:, :, -2:]):
        part = thumbnails.pixels[rows]
        part[edge] = part[edge] // 4 + np.array(colour, np.uint8)
        thumbnails.pixels[rows] = part


def test_a_border_whose_colour_tells_the_class_is_found():
    labels = tuple("ab"[row % 3 > 1] for row in range(120))
    thumbnails = noisy(120)
    framed(thumbnails, [row for row in range(120) if labels[row] == "a"], (150, 20, 20))
    framed(thumbnails, [row for row in range(120) if labels[row] == "b"], (20, 20, 150))
    found = find_border(images(120, labels), thumbnails)
    assert found.is_finding
    assert (found.n, found.accuracy, found.balanced_accuracy, found.p_value) == (120, 1, 1, 0.001)
    assert (found.chance, found.largest_class) == (0.5, pytest.approx(2 / 3))
    assert found.accuracy_ci95[0] > 0.9
    assert found.told_apart == ("a", "b")
    assert "balanced accuracy of 100.0%; chance is 50.0%" in found.reason
    assert json.loads(json.dumps(found.to_json()))["recalls"] == {"a": 1.0, "b": 1.0}


def test_of_four_classes_the_one_with_a_border_is_told_apart_but_is_no_finding_alone():
    labels = tuple("abcd"[row % 4] for row in range(160))
    thumbnails = noisy(160)
    framed(thumbnails, list(range(0, 160, 4)), (150, 20, 20))
    found = find_border(images(160, labels), thumbnails)
    assert found.recalls["a"] > 0.9
    assert next(iter(found.recalls)) == "a"
    assert found.is_finding == (found.balanced_accuracy >= 0.625)
    framed(thumbnails, list(range(1, 160, 4)), (20, 150, 20))
    framed(thumbnails, list(range(2, 160, 4)), (20, 20, 150))
    more = find_border(images(160, labels), thumbnails)
    assert more.is_finding
    assert set(more.told_apart) >= {"a", "b", "c"}


@each("border", ["none", "equal", "inside"])
def test_borders_that_are_the_same_or_random_are_no_finding(border):
    labels = tuple("ab"[row % 2] for row in range(100))
    thumbnails = noisy(100, seed=3)
    if border == "equal":
        framed(thumbnails, list(range(100)), (150, 20, 20))
        thumbnails.pixels[:, [0, 1, -2, -1]] = 255
        thumbnails.pixels[:, :, [0, 1, -2, -1]] = 255
    if border == "inside":
        thumbnails.pixels[::2, 2:-2, 2:-2] = 0  # the class, but not at the edge
    found = find_border(images(100, labels), thumbnails)
    assert not found.is_finding
    assert found.told_apart == ()
    assert found.balanced_accuracy < 0.7
    assert "not enough for a finding" in found.reason


def test_majority_guesses_are_no_finding():
    labels = tuple("ab"[row % 20 == 0] for row in range(100))
    found = find_border(images(100, labels), noisy(100))
    assert found.largest_class == 0.95
    assert not found.is_finding


def test_the_result_depends_neither_on_the_order_of_the_images_nor_on_copies_or_missing_labels():
    labels = tuple("ab"[row % 2] for row in range(80))
    dataset, thumbnails = images(80, labels), noisy(80)
    framed(thumbnails, list(range(0, 60, 2)), (60, 0, 0))
    expected = find_border(dataset, thumbnails)
    order = [*np.random.default_rng(0).permutation(80).tolist(), 5, 6]
    assert find_border(dataset.subset(order), thumbnails.take(order)) == expected
    known = replace(dataset, labels=tuple(None if row > 70 else label for row, label in enumerate(labels)))
    assert find_border(known, thumbnails).n == 71


@each("labels", [(), ("a",), ("a", "b"), ("a", "a", "b"), ("a",) * 20, (None,) * 20])
def test_without_two_classes_of_two_images_there_is_no_result(labels):
    assert find_border(images(len(labels), labels), noisy(len(labels))) is None


def test_one_group_for_each_class_gives_no_result():
    labels = tuple("ab"[row % 2] for row in range(20))
    grouped = replace(images(20, labels), groups=labels)
    assert find_border(grouped, noisy(20)) is None


def test_edges_are_the_mean_colours_of_28_squares():
    pixels = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    pixels[0, 2:-2, 2:-2] = 255
    assert edges_of(pixels).tolist() == [[0.0] * 84]
    pixels[0, :2, :2, 1] = 51
    assert edges_of(pixels)[0, :4].tolist() == [0, pytest.approx(0.2), 0, 0]

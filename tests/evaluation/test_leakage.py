from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import SplitError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.evaluation.near_duplicates import NEAR, NearDuplicates, find_near_duplicates, near_duplicates
from bottleneck.images.dataset import Dataset
from tests.variants import each


def dataset(*rows):
    """Return a dataset of rows (path, byte that the digest repeats, label, split, group)."""
    paths, keys, labels, splits, groups = zip(*rows, strict=True)
    digests = np.repeat(np.array([[ord(key)] for key in keys], np.uint8), 32, axis=1)
    return Dataset(
        source=Path("/images"), paths=paths, digests=digests, labels=labels, given_splits=splits, groups=groups
    )


CLEAN = dataset(("1", "a", "x", "train", None), ("2", "b", "x", "test", None), ("3", "a", "x", "train", "g"))


@pytest.fixture
def rows():
    """Return training and held-out rows of two classes far from each other and from 0, and the training classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    centres = 5 + rng.normal(size=(2, 64)) * 8
    train = centres[labels] + rng.normal(size=(60, 64))
    return train.astype(np.float32), (centres[labels] + rng.normal(size=(60, 64))).astype(np.float32)[:40], labels


# --- copies and groups ------------------------------------------------------------------------------------------


def test_without_leaks_nothing_is_found():
    found = find_leaks(CLEAN)
    assert (found.duplicates, found.groups, found.two_labels) == ((), {}, ())
    found.refuse()


def test_an_image_in_two_splits_is_refused_with_all_its_paths():
    found = find_leaks(
        dataset(
            ("1", "a", "x", "train", None),
            ("2", "b", "x", "train", None),
            ("3", "a", "x", "test", None),
            ("4", "a", "x", "train", None),
        )
    )
    assert found.duplicates == (("1", "3", "4"),)
    with pytest.raises(SplitError, match=r"found 1 in more \(1, 3, 4\).*--allow-duplicates"):
        found.refuse()


def test_a_group_in_two_splits_is_refused_with_a_path_of_each_split():
    found = find_leaks(
        dataset(
            ("1", "a", "x", "train", "g"),
            ("2", "b", "x", "test", "g"),
            ("3", "c", "x", "train", "g"),
            ("4", "d", "x", "train", "h"),
        )
    )
    assert found.groups == {"g": {"train": ("1", "3"), "test": ("2",)}}
    with pytest.raises(SplitError, match=r"found 1 in more \(g: 1 in train, 2 in test\).*--allow-duplicates"):
        found.refuse()


def test_an_image_with_two_labels_is_reported_and_is_no_duplicate():
    torn = dataset(("1", "a", "x", "train", None), ("2", "a", "y", "test", None), ("3", "b", "x", "test", None))
    found = find_leaks(torn)
    assert found.two_labels == (("1", "2"),)
    assert found.duplicates == ()
    assert one_label(torn).paths == ("3",)
    assert one_label(CLEAN) is CLEAN


# --- near copies ------------------------------------------------------------------------------------------------


def brute_force(train, heldout, labels):
    """Return the cosine of each held-out row and each training row, seen from the mean of the latter's class."""
    cosines = np.empty((len(heldout), len(train)))
    centre = train.mean(axis=0, dtype=float)
    for place, row in enumerate(train):
        others = train[labels == labels[place]]
        mean = centre + (others - centre).sum(axis=0) / (len(others) + 1)
        a, b = row - mean, heldout - mean
        cosines[:, place] = b @ a / np.linalg.norm(a) / np.linalg.norm(b, axis=1)
    return cosines


@each("block", [7, 16, 1000])
def test_the_nearest_row_is_that_of_brute_force_for_any_block_size(rows, block):
    train, heldout, labels = rows
    expected = brute_force(train, heldout, labels)
    pairs, cosines = near_duplicates(train, heldout, -1, labels=labels, block_size=block)
    assert sorted(pairs[:, 1]) == list(range(40))
    assert np.array_equal(pairs[:, 0], expected.argmax(axis=1)[pairs[:, 1]])
    assert cosines == pytest.approx(expected.max(axis=1)[pairs[:, 1]], abs=1e-5)
    assert (np.diff(cosines) <= 0).all()


def test_only_a_copy_with_a_little_noise_is_found(rows):
    train, heldout, labels = rows
    noise = np.random.default_rng(1).normal(size=64)
    heldout[5], heldout[9] = train[30] + 0.3 * noise, train[31] + 0.1 * noise
    pairs, cosines = near_duplicates(train, heldout, labels=labels)
    assert pairs.tolist() == [[31, 9], [30, 5]]
    assert NEAR <= cosines[1] < cosines[0] <= 1 + 1e-6


def test_images_of_one_class_are_no_near_duplicates_however_far_the_classes_are(rows):
    train, heldout, labels = rows
    assert len(near_duplicates(train, heldout, labels=labels)[0]) == 0
    assert len(near_duplicates(train, heldout)[0]) > 30  # what the labels are for


def test_a_near_duplicate_of_the_only_image_of_a_class_is_found(rows):
    train, heldout, labels = rows
    labels[0] = 2
    heldout[3] = train[0] = 20 * np.random.default_rng(1).normal(size=64)
    assert near_duplicates(train, heldout, labels=labels)[0].tolist() == [[0, 3]]


def test_without_images_nothing_is_found(rows):
    train, heldout, labels = rows
    for some, others in ((train[:0], heldout), (train, heldout[:0])):
        pairs, cosines = near_duplicates(some, others, labels=labels[: len(some)])
        assert (pairs.shape, cosines.shape) == ((0, 2), (0,))


def test_equal_rows_do_not_divide_by_zero():
    same = np.ones((5, 8), np.float32)
    with np.errstate(all="raise"):
        pairs, cosines = near_duplicates(same, same)
    assert len(pairs) == len(cosines)
    assert np.isfinite(cosines).all()


def test_exact_copies_are_no_near_duplicates():
    train = dataset(*((str(n), key, "x", "train", None) for n, key in enumerate("abcd")))
    heldout = dataset(("8", "a", "x", "test", None), ("9", "e", "x", "test", None))
    features = np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    found = find_near_duplicates(train, features, heldout, features[[0, 1]])
    assert found == NearDuplicates((("1", "9", 1.0),), NEAR)
    message = found.message(Path("images"))
    assert "1 held-out image has a near duplicate" in message
    assert "9 is like 1 (1.00)" in message


# --- what is said of them ---------------------------------------------------------------------------------------


def test_a_message_names_two_pairs_by_relative_paths_and_counts_the_others():
    pairs = tuple((f"photos/a/t{n}", f"photos/a/h{n}", 0.95) for n in range(5))
    message = NearDuplicates(pairs, 0.9).message(Path("photos").absolute())
    assert "5 held-out images have" in message
    assert ": a/h0 is like a/t0 (0.95), a/h1 is like a/t1 (0.95) and 3 more. Give" in message


def test_the_card_lists_some_leaks_and_counts_all():
    found = replace(find_leaks(CLEAN), duplicates=(("1", "2"), ("3", "4")), groups={"g": {}}, two_labels=(("5", "6"),))
    assert found.card(NearDuplicates((("t", "h", 0.95), ("u", "i", 0.94)), 0.9), listed=1) == {
        "counts": {"near_duplicates": 2, "duplicates_allowed": 2, "groups_allowed": 1, "two_labels": 1},
        "near_threshold": 0.9,
        "near_duplicates": [["t", "h", 0.95]],
        "duplicates_allowed": [["1", "2"]],
        "groups_allowed": [{"group": "g"}],
        "two_labels": [["5", "6"]],
    }

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import SplitError
from bottleneck.evaluation.leakage import find_leaks, one_label
from bottleneck.evaluation.near_duplicates import NearDuplicates
from bottleneck.images.dataset import Dataset


def dataset(*rows):
    """Return a dataset of rows (path, byte that the digest repeats, label, split, group)."""
    paths, keys, labels, splits, groups = zip(*rows, strict=True)
    digests = np.repeat(np.array([[ord(key)] for key in keys], np.uint8), 32, axis=1)
    return Dataset(
        source=Path("/images"), paths=paths, digests=digests, labels=labels, given_splits=splits, groups=groups
    )


CLEAN = dataset(("1", "a", "x", "train", None), ("2", "b", "x", "test", None), ("3", "a", "x", "train", "g"))


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


# --- what is said of them ---------------------------------------------------------------------------------------


def test_the_card_lists_some_leaks_and_counts_all():
    found = replace(find_leaks(CLEAN), duplicates=(("1", "2"), ("3", "4")), groups={"g": {}}, two_labels=(("5", "6"),))
    assert found.card(NearDuplicates((("t", "h", 0.95), ("u", "i", 0.94)), 0.7, 0.4, 9), listed=1) == {
        "counts": {"near_duplicates": 2, "duplicates_allowed": 2, "groups_allowed": 1, "two_labels": 1},
        "near_threshold": 0.7,
        "near_thumbnails": 9,
        "near_duplicates": [["t", "h", 0.95]],
        "duplicates_allowed": [["1", "2"]],
        "groups_allowed": [{"group": "g"}],
        "two_labels": [["5", "6"]],
    }

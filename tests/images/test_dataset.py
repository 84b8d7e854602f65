from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.splits import Shares
from tests.variants import each


def dataset(names: str, labels: list[str | None] | None = None, **options: object) -> Dataset:
    """Return a dataset of one image a letter; the same letter is the same image."""
    empty = (None,) * len(names)
    rows = [np.random.default_rng(ord(name)).integers(0, 256, 32, np.uint8) for name in names]
    values: dict[str, object] = {
        "source": Path("/images"),
        "paths": tuple(f"/images/{row}.jpg" for row in range(len(names))),
        "digests": np.array(rows, np.uint8).reshape(-1, 32),
        "labels": empty if labels is None else tuple(labels),
        "given_splits": empty,
        "groups": empty,
        **options,
    }
    return Dataset(**values)  # type: ignore[arg-type]


LETTERS = "abcdefghijklmnopqrstuvwxyz"


def test_the_length_is_that_of_the_paths() -> None:
    assert len(dataset("aab")) == 3
    assert len(dataset("")) == 0


@each("labels, labelled", [(["x", "y"], True), (["x", None], False), ([None, None], False), ([], False)])
def test_a_dataset_is_labelled_when_every_image_is(labels: list[str | None], labelled: bool) -> None:
    assert dataset("ab"[: len(labels)], labels).labelled is labelled


def test_the_classes_are_sorted_and_stand_once() -> None:
    assert dataset("abcd", ["y", "x", "y", None]).classes == ("x", "y")
    assert dataset("ab").classes == ()


def test_given_splits_stand_and_the_others_are_decided() -> None:
    given = ("test", *(None,) * 25)
    splits = dataset(LETTERS, given_splits=given).splits
    assert splits[0] == "test"
    assert splits[1:] == dataset(LETTERS).splits[1:]
    assert "train" in splits


def test_groups_stay_together() -> None:
    splits = dataset(LETTERS, groups=("g",) * 26).splits
    assert len(set(splits)) == 1


def test_other_shares_divide_the_same_images_otherwise() -> None:
    before = dataset(LETTERS)
    after = before.with_shares(Shares(1, 1, 98))
    assert after.paths == before.paths
    assert after.splits.count("test") > before.splits.count("test")
    assert before.shares == Shares()


def test_a_subset_has_the_rows_in_the_order_asked_for() -> None:
    whole = dataset("abcd", ["w", "x", "y", "z"], groups=("1", "2", "3", "4"))
    part = whole.subset([3, 1])
    assert part.paths == ("/images/3.jpg", "/images/1.jpg")
    assert part.labels == ("z", "x")
    assert part.groups == ("4", "2")
    assert np.array_equal(part.digests, whole.digests[[3, 1]])


def test_a_subset_keeps_the_splits_of_the_whole() -> None:
    whole = dataset("a" + LETTERS, given_splits=("val", *(None,) * 26))  # the second "a" follows the first
    rows = list(range(1, 27))
    assert whole.subset(rows).splits == whole.splits[1:]
    assert whole.subset(rows).splits[0] == "val"


def test_a_subset_of_no_rows_is_empty() -> None:
    part = dataset("abc").subset([])
    assert len(part) == 0
    assert part.splits == ()
    assert part.digests.shape == (0, 32)


def test_a_subset_decides_the_splits_once_and_not_for_each_row() -> None:
    calls: list[int] = []

    class Watched(tuple[None, ...]):
        def __iter__(self) -> Iterator[None]:
            calls.append(1)
            return super().__iter__()

    dataset(LETTERS, groups=Watched([None] * 26)).subset(range(26))
    assert len(calls) == 1


def test_first_rows_are_those_of_each_images_first_path() -> None:
    assert dataset("cabcab").first_rows().tolist() == [0, 1, 2]
    assert dataset("aabba").first_rows().tolist() == [0, 2]
    assert dataset("").first_rows().tolist() == []


def test_the_fingerprint_does_not_depend_on_paths_order_or_repetition() -> None:
    there = dataset("ab", ["x", "y"])
    assert dataset("ba", ["y", "x"]).fingerprint() == there.fingerprint()
    assert dataset("aab", ["x", "x", "y"]).fingerprint() == there.fingerprint()
    assert dataset(LETTERS).fingerprint() == dataset(LETTERS[::-1]).fingerprint()
    assert replace(there, paths=("/elsewhere/1", "/elsewhere/2"), source=Path("/")).fingerprint() == there.fingerprint()


@each(
    "other",
    [
        dataset("ac", ["x", "y"], given_splits=("train", "test")),
        dataset("ab", ["x", "z"], given_splits=("train", "test")),
        dataset("ab", ["x", "y"], given_splits=("train", "val")),
        dataset("a", ["x"], given_splits=("train",)),
    ],
)
def test_the_fingerprint_depends_on_images_labels_and_splits(other: Dataset) -> None:
    assert other.fingerprint() != dataset("ab", ["x", "y"], given_splits=("train", "test")).fingerprint()


def test_an_image_under_two_labels_is_found_with_all_its_paths_in_their_order() -> None:
    found = dataset("babbca", ["x", "y", "x", "z", "x", "y"])
    b = found.digests[0].tobytes()
    assert two_labels(found) == {b: ["/images/0.jpg", "/images/2.jpg", "/images/3.jpg"]}


def test_images_under_two_labels_are_in_the_order_of_their_first_paths() -> None:
    found = dataset("cabbac", ["x", "x", "x", "y", "y", "y"])
    assert list(two_labels(found)) == [row.tobytes() for row in found.digests[:3]]


def test_an_image_with_a_label_and_one_without_stand_under_two() -> None:
    assert len(two_labels(dataset("aa", ["x", None]))) == 1


@each("names, labels", [("aab", ["x", "x", "y"]), ("abc", ["x", "y", "x"]), ("aa", None), ("", [])])
def test_copies_under_one_label_are_no_contradiction(names: str, labels: list[str | None] | None) -> None:
    assert two_labels(dataset(names, labels)) == {}

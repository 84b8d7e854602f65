from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.splits import Shares


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


def test_length_and_classes_are_those_of_the_rows() -> None:
    assert len(dataset("aab")) == 3
    assert len(dataset("")) == 0

    assert dataset("abcd", ["y", "x", "y", None]).classes == ("x", "y")
    assert dataset("ab").classes == ()

    for labels, labelled in [(["x", "y"], True), (["x", None], False), ([None, None], False), ([], False)]:
        assert dataset("ab"[: len(labels)], labels).labelled is labelled


def test_splits_are_given_or_decided_by_groups_and_shares() -> None:
    given = ("test", *(None,) * 25)
    splits = dataset(LETTERS, given_splits=given).splits
    assert splits[0] == "test"
    assert splits[1:] == dataset(LETTERS).splits[1:]
    assert "train" in splits

    splits = dataset(LETTERS, groups=("g",) * 26).splits
    assert len(set(splits)) == 1

    before = dataset(LETTERS)
    after = before.with_shares(Shares(1, 1, 98))
    assert after.paths == before.paths
    assert after.splits.count("test") > before.splits.count("test")
    assert before.shares == Shares()


def test_a_subset_has_its_rows_in_order_with_the_splits_of_the_whole() -> None:
    whole = dataset("abcd", ["w", "x", "y", "z"], groups=("1", "2", "3", "4"))
    part = whole.subset([3, 1])
    assert part.paths == ("/images/3.jpg", "/images/1.jpg")
    assert part.labels == ("z", "x")
    assert part.groups == ("4", "2")
    assert np.array_equal(part.digests, whole.digests[[3, 1]])

    whole = dataset("a" + LETTERS, given_splits=("val", *(None,) * 26))  # the second "a" follows the first
    rows = list(range(1, 27))
    assert whole.subset(rows).splits == whole.splits[1:]
    assert whole.subset(rows).splits[0] == "val"

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


def test_the_fingerprint_is_that_of_images_labels_and_splits() -> None:
    there = dataset("ab", ["x", "y"])
    assert dataset("ba", ["y", "x"]).fingerprint() == there.fingerprint()
    assert dataset("aab", ["x", "x", "y"]).fingerprint() == there.fingerprint()
    assert dataset(LETTERS).fingerprint() == dataset(LETTERS[::-1]).fingerprint()
    assert replace(there, paths=("/elsewhere/1", "/elsewhere/2"), source=Path("/")).fingerprint() == there.fingerprint()

    for other in [
        dataset("ac", ["x", "y"], given_splits=("train", "test")),
        dataset("ab", ["x", "z"], given_splits=("train", "test")),
        dataset("ab", ["x", "y"], given_splits=("train", "val")),
        dataset("a", ["x"], given_splits=("train",)),
    ]:
        assert other.fingerprint() != dataset("ab", ["x", "y"], given_splits=("train", "test")).fingerprint()


def test_two_labels_are_found_with_all_paths_in_the_order_of_the_first() -> None:
    found = dataset("babbca", ["x", "y", "x", "z", "x", "y"])
    b = found.digests[0].tobytes()
    assert two_labels(found) == {b: ["/images/0.jpg", "/images/2.jpg", "/images/3.jpg"]}

    found = dataset("cabbac", ["x", "x", "x", "y", "y", "y"])
    assert list(two_labels(found)) == [row.tobytes() for row in found.digests[:3]]

    assert len(two_labels(dataset("aa", ["x", None]))) == 1

    for names, labels in [("aab", ["x", "x", "y"]), ("abc", ["x", "y", "x"]), ("aa", None), ("", [])]:
        assert two_labels(dataset(names, labels)) == {}

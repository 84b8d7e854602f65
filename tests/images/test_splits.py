import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bottleneck.errors import SplitError
from bottleneck.images.splits import SPLITS, Shares, across_splits, assign, split_of

SHARES = Shares()


def digests(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 32), np.uint8)


def undecided(images: NDArray[np.uint8], shares: Shares = SHARES) -> tuple[str, ...]:
    return assign(images, [None] * len(images), [None] * len(images), shares)


# Shares


def test_shares_are_read_as_they_are_written() -> None:
    for text in ["80/10/10", "90/10/0", "80/0/20", "1/1/98", "34/33/33"]:
        assert str(Shares.parse(text)) == text

    assert Shares.parse("80/10/10") == Shares() == Shares(80, 10, 10)


def test_what_makes_no_split_is_refused() -> None:
    for text in ["", "80", "80/20", "80/10/10/0", "a/b/c", "80/10/", "80.5/10/9.5", "80,10,10"]:
        with pytest.raises(SplitError, match="as in 80/10/10, got") as error:
            Shares.parse(text)
        assert repr(text) in str(error.value)

    for text in ["80/10/5", "80/20/10", "0/50/50", "100/0/0", "110/-10/0", "-10/100/10"]:
        with pytest.raises(SplitError, match="add up to 100") as error:
            Shares.parse(text)
        assert text in str(error.value)

    with pytest.raises(ValueError, match="percentages"):
        Shares(1, 2, 3)


# One image


def test_the_rule_is_that_of_the_first_version() -> None:
    keys = [b"digest " + bytes([number]) * 32 for number in range(24)]
    sign = {"train": "-", "val": "v", "test": "t"}
    assert "".join(sign[split_of(key, Shares(50, 25, 25))] for key in keys) == "--ttv-----vvvttt-t-vv---"

    assert {split_of(bytes([a, b]), Shares(98, 1, 1)) for a in range(8) for b in range(256)} == set(SPLITS)


def test_each_class_gets_its_shares_in_expectation() -> None:
    for seed in range(5):
        n = 3000
        splits = undecided(digests(n, seed))
        for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
            assert abs(splits.count(split) - share * n) < 4 * math.sqrt(n * share * (1 - share))

    assert set(undecided(digests(1000), Shares(80, 0, 20))) == {"train", "test"}
    assert set(undecided(digests(1000), Shares(80, 20, 0))) == {"train", "val"}


# Growing sets


def test_the_split_of_an_image_does_not_depend_on_other_images() -> None:
    for n in [1, 2, 17, 250]:
        images = digests(500)
        assert undecided(images)[:n] == undecided(images[:n])

    images = digests(60)
    for seed in range(20):
        chosen = np.random.default_rng(seed).permutation(60)[: seed + 5]
        assert undecided(images[chosen]) == tuple(undecided(images[[row]])[0] for row in chosen)

    images = np.concatenate([digests(100), digests(50)])
    groups = [None if row % 3 else f"g{row % 7}" for row in range(150)]
    order = np.random.default_rng(1).permutation(150)
    there = assign(images, groups, [None] * 150, SHARES)
    assert assign(images[order], [groups[row] for row in order], [None] * 150, SHARES) == tuple(
        there[row] for row in order
    )


def test_the_name_of_a_group_decides_and_not_its_images() -> None:
    images = digests(400)
    groups = [f"patient {row % 40} of a study whose name is longer than a digest" for row in range(400)]
    first, all_of_them = (assign(images[:n], groups[:n], [None] * n, SHARES) for n in (40, 400))
    assert all_of_them[:40] == first
    assert all_of_them == first * 10

    names = [f"patient {number}" for number in range(100)]
    a, b = (assign(digests(100, seed), names, [None] * 100, SHARES) for seed in (1, 2))
    assert a == b
    assert set(a) == set(SPLITS)

    splits = assign(digests(100), [f"g{row}" for row in range(100)], [None] * 100, Shares(34, 33, 33))
    assert set(splits) == set(SPLITS)


# Ties


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 5))), min_size=1, max_size=14))
@example([(0, None), (0, 1), (0, None), (0, 2), (0, 3)])
@example([(1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (4, 2)])  # 1 - g0 - 2 - g1 - 3 - g2 - 4
def test_images_tied_by_digests_and_groups_never_part(images: list[tuple[int, int | None]]) -> None:
    splits = assign(
        digests(6)[[image for image, _ in images]],
        [None if group is None else f"g{group}" for _, group in images],
        [None] * len(images),
        Shares(34, 33, 33),
    )
    of_key: dict[tuple[str, int], str] = {}
    for (image, group), split in zip(images, splits, strict=True):
        assert of_key.setdefault(("image", image), split) == split
        assert group is None or of_key.setdefault(("group", group), split) == split


def test_an_undecided_image_follows_a_given_one() -> None:
    for split in SPLITS:
        images = np.repeat(digests(20), 2, axis=0)
        assert assign(images, [None] * 40, [split, None] * 20, SHARES) == (split,) * 40

    for split in SPLITS:
        groups = [f"g{row // 3}" for row in range(60)]
        assert assign(digests(60), groups, [None, split, None] * 20, SHARES) == (split,) * 60

    for split in SPLITS:
        a, b, c = digests(3)
        images = np.stack([a, b, b, c])
        assert assign(images, ["g", "g", "h", "h"], [split, None, None, None], SHARES) == (split,) * 4


# Given splits


def test_given_splits_are_kept() -> None:
    given = [SPLITS[row % 3] if row % 2 else None for row in range(300)]
    splits = assign(digests(300), [None] * 300, given, SHARES)
    assert all(split == wanted for split, wanted in zip(splits, given, strict=True) if wanted)
    undone = [row for row in range(300) if given[row] is None]
    assert [splits[row] for row in undone] == [undecided(digests(300))[row] for row in undone]

    images = np.repeat(digests(1), 2, axis=0)
    assert assign(images, ["g", "g"], ["train", "test"], SHARES) == ("train", "test")
    assert assign(np.repeat(images, 2, axis=0), [None] * 4, ["train", "test", "val", None], SHARES)[:3] == (
        "train",
        "test",
        "val",
    )

    assert undecided(digests(0)) == ()


# Other shares


def moves(before: Shares, after: Shares) -> set[tuple[str, str]]:
    images = digests(3000)
    pairs = zip(undecided(images, before), undecided(images, after), strict=True)
    return {(a, b) for a, b in pairs if a != b}


def test_other_shares_move_images_only_between_neighbours() -> None:
    assert moves(Shares(80, 10, 10), Shares(70, 20, 10)) == {("train", "val")}

    assert moves(Shares(80, 10, 10), Shares(80, 5, 15)) == {("val", "test")}

    moved = moves(Shares(80, 10, 10), Shares(60, 20, 20))
    assert not {("val", "train"), ("test", "train"), ("test", "val")} & moved


# Leaks


def test_parted_names_the_keys_in_more_than_one_split() -> None:
    assert across_splits("abab", ["train", "test", "val", "test"]) == {"a": {"train", "val"}}
    assert across_splits([], []) == {}

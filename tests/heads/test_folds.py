import numpy as np

from bottleneck.heads.folds import divide, everything, stratified
from tests.variants import each


def folds(labels: list[str], folds: int = 5, seed: int = 0, groups: list[str | None] | None = None):
    """Return the rows that each fold is trained and tested on."""
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    found = divide(codes, groups, folds, seed)
    return [
        (set(np.flatnonzero(found.trained[:, fold]).tolist()), set(np.flatnonzero(found.tested == fold).tolist()))
        for fold in range(len(found))
    ]


def test_each_row_is_tested_once_and_never_trained_on_then():
    found = folds(list("abc" * 10))

    assert len(found) == 5
    assert sorted(row for _, test in found for row in test) == list(range(30))


def test_every_fold_has_its_share_of_each_class():
    labels = list("a" * 40 + "b" * 10)

    for _, test in folds(labels):
        assert sum(labels[row] == "b" for row in test) == 2


@each("labels, expected", [("a" * 20 + "b" * 2, 5), ("aaab", 3), ("ab" * 9, 5)])
def test_there_are_no_more_folds_than_images_of_the_largest_class(labels, expected):
    assert len(folds(list(labels))) == expected


def test_the_number_of_folds_can_be_given():
    assert len(folds(list("ab" * 10), folds=3)) == 3


def test_the_seed_decides_the_folds():
    one, same, other = (sorted(sorted(test) for _, test in folds(list("ab" * 10), seed=seed)) for seed in (1, 1, 2))

    assert one == same
    assert one != other


GROUPED = {
    "pairs": (list("ab" * 20), [f"g{row // 4}" for row in range(40)]),
    "some alone": (list("ab" * 20), [f"g{row // 4}" if row < 20 else None for row in range(40)]),
    "the only image of a class in a group with others": (list("abbbbb"), ["g0", "g0", "g1", "g2", "g3", None]),
    "a class in one group that others share": (list("aabbbbbbbb"), ["g0", "g0", "g0", "g0", *"123456"]),
    "three classes": (list("accbbcac"), ["1", "1", "2", "2", "3", "1", None, "3"]),
}


@each("case", GROUPED)
def test_a_group_is_never_on_both_sides_of_a_fold(case):
    labels, groups = GROUPED[case]

    for train, test in folds(labels, groups=groups):
        assert not {groups[row] for row in train} & {groups[row] for row in test} - {None}


def test_the_only_image_of_a_class_is_always_trained_on():
    found = folds(list("aaaaabbbbbc"))

    assert all(10 in train for train, _ in found)


def test_folds_are_as_large_as_each_other():
    for train, test in folds(list("aabbbbcccccc" * 9)):
        assert len(test) in (21, 22)
        assert not train & test
        assert len(train | test) == 108


def test_everything_is_one_fold_that_tests_nothing():
    found = everything(7)

    assert len(found) == 1
    assert found.trained.all()
    assert (found.tested == -1).all()


def test_a_stratified_sample_keeps_the_shares_but_no_fewer_than_the_least():
    codes = np.repeat([0, 1, 2], [7000, 995, 5])
    assert np.bincount(codes[stratified(codes, 800, 10, 0)]).tolist() == [700, 99, 5]
    assert stratified(codes, 8000, 10, 0).tolist() == list(range(8000))
    assert (stratified(codes, 800, 10, 0) == stratified(codes, 800, 10, 0)).all()

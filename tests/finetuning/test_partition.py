import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, TuningError
from bottleneck.finetuning.partition import Parts, codes, divide, fold_parts, together, warn_of_classes
from bottleneck.images.dataset import Dataset


def made(tmp_path, splits, labels=None, groups=None, seed=0):
    count = len(splits)
    return Dataset(
        source=tmp_path,
        paths=tuple(f"{number}.png" for number in range(count)),
        digests=np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8),
        labels=tuple(labels or ("ab"[number % 2] for number in range(count))),
        given_splits=tuple(splits),
        groups=tuple(groups or [None] * count),
    )


def keys(part):
    return {row.tobytes() for row in part.digests}


def test_three_splits_are_the_three_parts(tmp_path):
    parts = divide(made(tmp_path, ["train"] * 6 + ["val"] * 3 + ["test"] * 2), "test")
    assert [len(one) for one in (parts.train, parts.val, parts.heldout)] == [6, 3, 2]
    assert (parts.cut, parts.val_is_heldout, parts.name) == (False, False, "test")


def test_where_val_is_held_out_it_is_both(tmp_path):
    parts = divide(made(tmp_path, ["train"] * 6 + ["val"] * 3), "val")
    assert parts.val_is_heldout
    assert keys(parts.val) == keys(parts.heldout)


def test_an_image_counts_once(tmp_path):
    one = made(tmp_path, ["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    twice = one.subset([*range(10), 0, 0, 7, 9])
    assert [len(part) for part in (divide(twice, "test").train, divide(twice, "test").val)] == [6, 2]


def test_a_tenth_of_train_is_cut_off_where_there_is_no_val(tmp_path):
    whole = made(tmp_path, ["train"] * 600 + ["test"] * 20)
    parts = divide(whole, "test")
    assert parts.cut
    assert len(parts.train) + len(parts.val) == 600
    assert not keys(parts.train) & keys(parts.val)
    assert not keys(parts.heldout) & (keys(parts.train) | keys(parts.val))
    assert 35 <= len(parts.val) <= 85
    assert keys(divide(whole.subset(range(619, -1, -1)), "test").val) == keys(parts.val)  # by the image alone
    assert parts.val.labels[0] in "ab"


def test_the_cut_is_another_than_that_of_the_splits(tmp_path):
    undecided = made(tmp_path, [None] * 1000)
    train = undecided.subset([row for row, split in enumerate(undecided.splits) if split != "val"])
    parts = divide(train, "test")
    assert 0.05 < len(parts.val) / (len(parts.val) + len(parts.train)) < 0.15


def test_groups_stay_together(tmp_path):
    groups = [f"patient {number % 60}" for number in range(300)]
    parts = divide(made(tmp_path, ["train"] * 300, groups=groups), "test")
    assert len(parts.val)
    assert not set(parts.train.groups) & set(parts.val.groups)


def test_the_only_image_of_a_class_stays(tmp_path):
    for seed in range(30):
        labels = ["rare", *"ab" * 30]
        parts = divide(made(tmp_path, ["train"] * 61, labels, seed=seed), "test")
        assert "rare" in parts.train.labels
        assert set(parts.train.labels) == {"rare", "a", "b"}


def test_the_group_that_holds_all_of_a_class_stays_whole(tmp_path):
    for number in range(40):
        groups = [f"rare {number}"] * 3 + [f"{place // 2}" for place in range(60)]
        labels = ["rare", "rare", "a", *"ab" * 30]
        parts = divide(made(tmp_path, ["train"] * 63, labels, groups), "test")
        assert parts.train.labels.count("rare") == 2
        assert not set(parts.train.groups) & set(parts.val.groups)


def test_nothing_to_cut_from(tmp_path):
    with pytest.raises(TuningError, match="found no val part and 2 training images, too few"):
        divide(made(tmp_path, ["train", "train", "test"], ["a", "b", "a"]), "test")
    with pytest.raises(TuningError, match="and 0 training images"):
        divide(made(tmp_path, ["test"] * 3), "test")


def test_codes_are_places_among_the_classes(tmp_path):
    found = codes(made(tmp_path, ["train"] * 4, ["b", "a", "z", None]), ("a", "b"))
    assert found.tolist() == [1, 0, -1, -1]
    assert found.dtype == np.int64


def test_classes_that_validation_lacks_are_told(tmp_path, recwarn):
    splits = ["train"] * 3 + ["val"] * 2
    with pytest.warns(BottleneckWarning, match="no validation image of c: the epoch"):
        warn_of_classes(divide(made(tmp_path, splits, ["a", "b", "c", "a", "b"]), "val"))
    warn_of_classes(divide(made(tmp_path, splits, ["a", "b", "a", "a", "b"]), "val"))
    assert not recwarn.list


def test_folds_test_each_training_image_once_and_train_on_none_that_they_test(tmp_path):
    whole = made(tmp_path, ["train"] * 40 + ["val"] * 6 + ["test"] * 4)
    parts = divide(whole, "test")
    found = fold_parts(whole, parts, 4, seed=0)
    assert sorted(key for one in found for key in keys(one.heldout)) == sorted(keys(parts.train))
    for one in found:
        assert (len(one.train), len(one.heldout)) == (30, 10)
        assert not keys(one.train) & keys(one.heldout)
        assert keys(one.val) == keys(parts.val)
        assert one.heldout.labels.count("a") == 5


def test_images_that_were_cut_off_are_tested_too_and_train_in_no_fold(tmp_path):
    whole = made(tmp_path, ["train"] * 200 + ["test"] * 4)
    parts = divide(whole, "test")
    found = fold_parts(whole, parts, 4, seed=0)
    assert len({key for one in found for key in keys(one.heldout)}) == 200
    for one in found:
        assert one.cut
        assert keys(one.val) == keys(parts.val) - keys(one.heldout)
        assert keys(one.train) == keys(parts.train) - keys(one.heldout)


def test_a_group_is_on_one_side_of_each_fold(tmp_path):
    groups = [f"g{number // 4}" for number in range(60)] + [None] * 4
    whole = made(tmp_path, ["train"] * 60 + ["val"] * 4, groups=groups)
    for one in fold_parts(whole, divide(whole, "val"), 3, seed=0):
        assert len(one.heldout)
        assert not set(one.heldout.groups) & set(one.train.groups)


def test_folds_without_images_to_select_an_epoch_by_are_refused(tmp_path):
    whole = made(tmp_path, ["train"] * 12 + ["test"] * 2)
    train = whole.subset(range(12))
    parts = Parts(train=train.subset(range(1, 12)), val=train.subset([0]), heldout=whole.subset([12]), name="test",
                  cut=True)  # fmt: skip
    with pytest.raises(TuningError, match="too few: take fewer folds"):
        fold_parts(whole, parts, 3, seed=0)


def test_parts_together_have_each_image_once(tmp_path):
    whole = made(tmp_path, ["train"] * 6)
    twice = whole.subset([*range(6), 2, 3])
    found = together(twice, [whole.subset([0, 2]), whole.subset([2, 5])])
    assert sorted(found.paths) == ["0.png", "2.png", "5.png"]
    keys = [digest.tobytes() for digest in found.digests]
    assert keys == sorted(keys)  # whatever the files are called

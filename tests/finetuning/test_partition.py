import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, TuningError
from bottleneck.finetuning.partition import (
    Partition,
    fold_partitions,
    label_codes,
    partition_of,
    union,
    warn_of_classes,
)
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
    partition = partition_of(made(tmp_path, ["train"] * 6 + ["val"] * 3 + ["test"] * 2), "test")
    assert [len(one) for one in (partition.train, partition.val, partition.heldout)] == [6, 3, 2]
    assert (partition.cut, partition.val_is_heldout, partition.name) == (False, False, "test")


def test_a_held_out_val_split_also_validates(tmp_path):
    partition = partition_of(made(tmp_path, ["train"] * 6 + ["val"] * 3), "val")
    assert partition.val_is_heldout
    assert keys(partition.val) == keys(partition.heldout)


def test_an_image_counts_once(tmp_path):
    one = made(tmp_path, ["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    twice = one.subset([*range(10), 0, 0, 7, 9])
    assert [len(part) for part in (partition_of(twice, "test").train, partition_of(twice, "test").val)] == [6, 2]


def test_without_val_a_tenth_of_train_is_cut_off(tmp_path):
    whole = made(tmp_path, ["train"] * 600 + ["test"] * 20)
    partition = partition_of(whole, "test")
    assert partition.cut
    assert len(partition.train) + len(partition.val) == 600
    assert not keys(partition.train) & keys(partition.val)
    assert not keys(partition.heldout) & (keys(partition.train) | keys(partition.val))
    assert 35 <= len(partition.val) <= 85
    assert keys(partition_of(whole.subset(range(619, -1, -1)), "test").val) == keys(partition.val)  # by the image alone
    assert partition.val.labels[0] in "ab"


def test_the_cut_differs_from_that_of_the_splits(tmp_path):
    undecided = made(tmp_path, [None] * 1000)
    train = undecided.subset([row for row, split in enumerate(undecided.splits) if split != "val"])
    partition = partition_of(train, "test")
    assert 0.05 < len(partition.val) / (len(partition.val) + len(partition.train)) < 0.15


def test_groups_stay_together(tmp_path):
    groups = [f"patient {number % 60}" for number in range(300)]
    partition = partition_of(made(tmp_path, ["train"] * 300, groups=groups), "test")
    assert len(partition.val)
    assert not set(partition.train.groups) & set(partition.val.groups)


def test_the_only_image_of_a_class_keeps_training(tmp_path):
    for seed in range(30):
        labels = ["rare", *"ab" * 30]
        partition = partition_of(made(tmp_path, ["train"] * 61, labels, seed=seed), "test")
        assert "rare" in partition.train.labels
        assert set(partition.train.labels) == {"rare", "a", "b"}


def test_a_group_with_all_images_of_a_class_keeps_training(tmp_path):
    for number in range(40):
        groups = [f"rare {number}"] * 3 + [f"{place // 2}" for place in range(60)]
        labels = ["rare", "rare", "a", *"ab" * 30]
        partition = partition_of(made(tmp_path, ["train"] * 63, labels, groups), "test")
        assert partition.train.labels.count("rare") == 2
        assert not set(partition.train.groups) & set(partition.val.groups)


def test_too_few_images_to_cut_from_are_refused(tmp_path):
    with pytest.raises(TuningError, match="found no val split and 2 training images, too few"):
        partition_of(made(tmp_path, ["train", "train", "test"], ["a", "b", "a"]), "test")
    with pytest.raises(TuningError, match="and 0 training images"):
        partition_of(made(tmp_path, ["test"] * 3), "test")


def test_codes_are_indices_of_the_classes(tmp_path):
    found = label_codes(made(tmp_path, ["train"] * 4, ["b", "a", "z", None]), ("a", "b"))
    assert found.tolist() == [1, 0, -1, -1]
    assert found.dtype == np.int64


def test_a_warning_names_classes_without_validation_images(tmp_path, recwarn):
    splits = ["train"] * 3 + ["val"] * 2
    with pytest.warns(BottleneckWarning, match="no validation image of c: the epoch"):
        warn_of_classes(partition_of(made(tmp_path, splits, ["a", "b", "c", "a", "b"]), "val"))
    warn_of_classes(partition_of(made(tmp_path, splits, ["a", "b", "a", "a", "b"]), "val"))
    assert not recwarn.list


def test_folds_test_each_training_image_once_and_train_on_none_that_they_test(tmp_path):
    whole = made(tmp_path, ["train"] * 40 + ["val"] * 6 + ["test"] * 4)
    partition = partition_of(whole, "test")
    found = fold_partitions(whole, partition, 4, seed=0)
    assert sorted(key for one in found for key in keys(one.heldout)) == sorted(keys(partition.train))
    for one in found:
        assert (len(one.train), len(one.heldout)) == (30, 10)
        assert not keys(one.train) & keys(one.heldout)
        assert keys(one.val) == keys(partition.val)
        assert one.heldout.labels.count("a") == 5


def test_images_cut_off_for_validation_are_tested_and_never_train(tmp_path):
    whole = made(tmp_path, ["train"] * 200 + ["test"] * 4)
    partition = partition_of(whole, "test")
    found = fold_partitions(whole, partition, 4, seed=0)
    assert len({key for one in found for key in keys(one.heldout)}) == 200
    for one in found:
        assert one.cut
        assert keys(one.val) == keys(partition.val) - keys(one.heldout)
        assert keys(one.train) == keys(partition.train) - keys(one.heldout)


def test_a_group_is_on_one_side_of_each_fold(tmp_path):
    groups = [f"g{number // 4}" for number in range(60)] + [None] * 4
    whole = made(tmp_path, ["train"] * 60 + ["val"] * 4, groups=groups)
    for one in fold_partitions(whole, partition_of(whole, "val"), 3, seed=0):
        assert len(one.heldout)
        assert not set(one.heldout.groups) & set(one.train.groups)


def test_folds_without_validation_images_are_refused(tmp_path):
    whole = made(tmp_path, ["train"] * 12 + ["test"] * 2)
    train = whole.subset(range(12))
    partition = Partition(train=train.subset(range(1, 12)), val=train.subset([0]), heldout=whole.subset([12]),
                          name="test", cut=True)  # fmt: skip
    with pytest.raises(TuningError, match="too few: take fewer folds"):
        fold_partitions(whole, partition, 3, seed=0)


def test_a_union_has_each_image_once(tmp_path):
    whole = made(tmp_path, ["train"] * 6)
    twice = whole.subset([*range(6), 2, 3])
    found = union(twice, [whole.subset([0, 2]), whole.subset([2, 5])])
    assert sorted(found.paths) == ["0.png", "2.png", "5.png"]
    keys = [digest.tobytes() for digest in found.digests]
    assert keys == sorted(keys)  # whatever the files are called

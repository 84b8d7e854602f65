import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, TuningError
from bottleneck.finetuning.partition import partition_of, warn_of_classes
from bottleneck.images.dataset import Dataset


def images_of(tmp_path, splits, labels):
    return Dataset(
        source=tmp_path,
        paths=tuple(f"{number}.png" for number in range(len(splits))),
        digests=np.random.default_rng(0).integers(0, 256, (len(splits), 32), np.uint8),
        labels=tuple(labels),
        given_splits=tuple(splits),
        groups=(None,) * len(splits),
    )


def test_validation_images_of_other_classes_only_are_refused(tmp_path):
    splits = ["train"] * 4 + ["val"] * 2 + ["test"]
    assert len(partition_of(images_of(tmp_path, splits, "ababbca"), "test").val) == 2
    with pytest.raises(TuningError, match=r"of the classes in the training split, found only c, d$"):
        partition_of(images_of(tmp_path, splits, "ababcda"), "test")


def test_few_validation_images_that_were_cut_off_give_a_warning(tmp_path):
    partition = partition_of(images_of(tmp_path, ["train"] * 20 + ["test"], "a" * 21), "test")
    assert partition.cut
    with pytest.warns(BottleneckWarning, match=rf"^only {len(partition.val)} of the training images could be set"):
        warn_of_classes(partition)

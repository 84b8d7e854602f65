"""Partition of a dataset into training, validation and held-out images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import TuningError
from bottleneck.fitting.partition import once
from bottleneck.heads import folds
from bottleneck.images.dataset import Dataset
from bottleneck.images.naming import examples
from bottleneck.images.splits import Shares, assign
from bottleneck.utils.text import counted
from bottleneck.utils.warn import warn

_SALT = b"bottleneck validation 1\0"
_FEW = 5  # validation images
_CUT = Shares(train=90, val=10, test=0)

Codes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Three parts of a dataset, each image once.

    Parameters
    ----------
    train, val, heldout : Dataset
        `val` selects the epoch. If the dataset has only two splits, it is the held-out part itself.
    name : str
        The held-out split: ``test`` or ``val``.
    cut : bool
        Whether `val` was cut from the training split, since the dataset had no validation split.
    """

    train: Dataset
    val: Dataset
    heldout: Dataset
    name: str
    cut: bool

    @property
    def val_is_heldout(self) -> bool:
        """Whether the images that select the epoch are also the test images."""
        return self.name == "val"


def partition_of(usable: Dataset, heldout: str) -> Partition:
    """Return the parts of a dataset whose held-out split is `heldout`.

    Without a validation split, a tenth of the training split is cut off by the hash of each image. Groups stay
    together, and at least one image of each class keeps training.

    Raises
    ------
    TuningError
        If there is nothing to validate with.
    """
    train, val, test = (_split(usable, split) for split in ("train", "val", heldout))
    in_train = {digest.tobytes() for digest in train.digests}  # the head may have been fitted with --allow-duplicates
    val = val.subset(row for row, digest in enumerate(val.digests) if digest.tobytes() not in in_train)
    if len(val) and not {str(label) for label in val.labels} & {str(label) for label in train.labels}:
        only = examples(sorted({str(label) for label in val.labels}))
        raise TuningError(f"expected validation images of the classes in the training split, found only {only}")
    if len(val):
        return Partition(train=train, val=val, heldout=test, name=heldout, cut=False)
    validates = _validation_rows(train)
    if not validates.any():
        raise TuningError(
            f"expected images to validate with, found no val split and {counted(len(train), 'training image')}, "
            f"too few to set some aside: give folders train/, val/ and test/, or more images"
        )
    return Partition(
        train=_rows_where(train, ~validates),
        val=_rows_where(train, validates),
        heldout=test,
        name=heldout,
        cut=True,
    )


def _validation_rows(train: Dataset) -> NDArray[np.bool_]:
    """Choose the training images to validate with ``(n,)``, none of a class that would lose all its images."""
    chosen = np.array([split == "val" for split in _cut(train)], bool)
    counts = Counter(label for label, validates in zip(train.labels, chosen, strict=True) if not validates)
    emptied = [not counts[label] for label in train.labels]
    groups = {group for group, empty in zip(train.groups, emptied, strict=True) if empty and group is not None}
    trains = [empty or group in groups for group, empty in zip(train.groups, emptied, strict=True)]
    chosen &= ~np.array(trains, bool)
    return chosen


def fold_partitions(usable: Dataset, partition: Partition, count: int, seed: int) -> list[Partition]:
    """Divide the training split, including images cut off for validation, into stratified folds.

    Parameters
    ----------
    usable : Dataset
    partition : Partition
        From `partition_of`. Images that were cut off never train in a fold; the images of a validation split validate
        in all folds.
    count : int
        The largest number of folds; there are fewer if no class has that many images.
    seed : int

    Returns
    -------
    list of Partition
        One for each fold; its held-out part contains the images that the fold tests.

    Raises
    ------
    TuningError
        If a fold would have nothing to train on, to validate with or to test.
    HeadError
        If no class has two images of two groups.
    """
    train = once(usable.subset(row for row, split in enumerate(usable.splits) if split == "train"))
    labels = label_codes(train, sorted({str(label) for label in train.labels}))
    divided = folds.divide(labels, train.groups, count, seed)
    validating = {digest.tobytes() for digest in partition.val.digests} if partition.cut else set()
    cut = np.array([digest.tobytes() in validating for digest in train.digests], bool)
    found = []
    for fold in range(len(divided)):
        others, tested = divided.trained[:, fold], divided.tested == fold
        found.append(
            replace(
                partition,
                train=_rows_where(train, others & ~cut),
                val=_rows_where(train, others & cut) if partition.cut else partition.val,
                heldout=_rows_where(train, tested),
            )
        )
    if any(not (len(one.train) and len(one.val) and len(one.heldout)) for one in found):
        raise TuningError(
            f"expected images to train on, to select the epoch with and to test in each of {count} folds, found "
            f"{counted(len(train), 'training image')}, too few: take fewer folds, or give a val split"
        )
    return found


def union(usable: Dataset, parts: Sequence[Dataset]) -> Dataset:
    """Return the images of several parts of a dataset, each once."""
    wanted = {digest.tobytes() for part in parts for digest in part.digests}
    return once(usable.subset(row for row, digest in enumerate(usable.digests) if digest.tobytes() in wanted))


def label_codes(dataset: Dataset, classes: Sequence[str]) -> Codes:
    """Return the index of each image's label in `classes`, ``(n,)``; -1 for a label that is not among them."""
    index = {name: code for code, name in enumerate(classes)}
    return np.array([index.get(label or "", -1) for label in dataset.labels], np.int64)


def warn_of_classes(partition: Partition) -> None:
    """Warn of classes that have no training or no validation images, and of few validation images."""
    train, val = ({str(label) for label in part.labels} for part in (partition.train, partition.val))
    messages = []
    if unknown := sorted(val - train):
        messages.append(f"no training image of {examples(unknown)}: validation images of these classes count as errors")
    if partition.cut and len(partition.val) < _FEW:
        messages.append(
            f"only {len(partition.val)} of the training images could be set aside to select the epoch, too few to "
            f"select it reliably: give a val split, or more images"
        )
    if missing := sorted(train - val):
        messages.append(f"no validation image of {examples(missing)}: the epoch is selected without these classes")
    for message in messages:
        warn(message)


def _rows_where(dataset: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    return dataset.subset(np.flatnonzero(chosen).tolist())


def _split(dataset: Dataset, split: str) -> Dataset:
    own = dataset.subset(row for row, name in enumerate(dataset.splits) if name == split)
    return own.subset(own.first_rows())


def _cut(train: Dataset) -> tuple[str, ...]:
    """Assign each training image to train or val, by a different hash than the one that assigned it to this split."""
    keys = [np.frombuffer(sha256(_SALT + digest.tobytes()).digest(), np.uint8) for digest in train.digests]
    groups = [None if group is None else f"validation {group}" for group in train.groups]
    salted = replace(train, digests=np.stack(keys)) if keys else train
    return assign(salted.digests, groups, [None] * len(train), _CUT)

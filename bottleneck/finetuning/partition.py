"""The images that are trained on, those that say which epoch is best, and those that are held out."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import BottleneckWarning, TuningError
from bottleneck.finetuning.train import Codes
from bottleneck.fitting.partition import once
from bottleneck.heads import folds
from bottleneck.images.dataset import Dataset
from bottleneck.images.naming import examples
from bottleneck.images.splits import Shares, assign
from bottleneck.utils.text import counted

_SALT = b"bottleneck validation 1\0"
_FEW = 5  # validation images
_CUT = Shares(train=90, val=10, test=0)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Three parts of a dataset, each image once.

    Parameters
    ----------
    train, val, heldout : Dataset
        `val` says which epoch is best. Where only two splits are given, it is the held-out part itself.
    name : str
        The split that is held out: ``test`` or ``val``.
    cut : bool
        Whether `val` was cut from the training part, since there was none.
    """

    train: Dataset
    val: Dataset
    heldout: Dataset
    name: str
    cut: bool

    @property
    def val_is_heldout(self) -> bool:
        """Whether the images that choose the epoch are those that tell how good it is."""
        return self.name == "val"


def divide(usable: Dataset, heldout: str) -> Parts:
    """Return the parts of a dataset whose split `heldout` is held out.

    Without a validation part a tenth of the training part is cut off, by the hash of each image (groups stay together),
    but for all images of a class.

    Raises
    ------
    TuningError
        If there is nothing to validate with.
    """
    train, val, test = (_once(usable, split) for split in ("train", "val", heldout))
    seen = {digest.tobytes() for digest in train.digests}  # images may stand in both, where `fit` was told to let them
    val = val.subset(row for row, digest in enumerate(val.digests) if digest.tobytes() not in seen)
    if len(val) and not {str(label) for label in val.labels} & {str(label) for label in train.labels}:
        only = examples(sorted({str(label) for label in val.labels}))
        raise TuningError(f"expected validation images of classes that are trained on, found only {only}")
    if len(val):
        return Parts(train=train, val=val, heldout=test, name=heldout, cut=False)
    wanted = np.array([split == "val" for split in _cut(train)], bool)
    counts = Counter(label for label, gone in zip(train.labels, wanted, strict=True) if not gone)
    alone = [not counts[label] for label in train.labels]  # of classes that would all be gone
    groups = {group for group, stays in zip(train.groups, alone, strict=True) if stays and group is not None}
    wanted &= ~np.array([stays or group in groups for group, stays in zip(train.groups, alone, strict=True)], bool)
    if not wanted.any():
        raise TuningError(
            f"expected images to validate with, found no val part and {counted(len(train), 'training image')}, "
            f"too few to cut one from: give folders train/, val/ and test/, or more images"
        )
    return Parts(
        train=_where(train, ~wanted),
        val=_where(train, wanted),
        heldout=test,
        name=heldout,
        cut=True,
    )


def fold_parts(usable: Dataset, parts: Parts, count: int, seed: int) -> list[Parts]:
    """Divide the training images of a dataset, those that were cut off to validate with too, into stratified folds.

    Parameters
    ----------
    usable : Dataset
    parts : Parts
        As `divide` gave them. Images that were cut off never train in a fold; images of a validation part validate in
        all folds.
    count : int
        At most; fewer where no class has so many images.
    seed : int

    Returns
    -------
    list of Parts
        Of each fold the images that it trains on, those that select its epoch, and, as the held-out part, those that
        it tests.

    Raises
    ------
    TuningError
        If a fold would have nothing to train on, to validate with or to test.
    HeadError
        If no class has two images of two groups.
    """
    train = once(usable.subset(row for row, split in enumerate(usable.splits) if split == "train"))
    labels = codes(train, sorted({str(label) for label in train.labels}))
    found = folds.divide(labels, train.groups, count, seed)
    aside = {digest.tobytes() for digest in parts.val.digests} if parts.cut else set()
    cut = np.array([digest.tobytes() in aside for digest in train.digests], bool)
    made = []
    for fold in range(len(found)):
        others, tested = found.trained[:, fold], found.tested == fold
        made.append(
            Parts(
                train=_where(train, others & ~cut),
                val=_where(train, others & cut) if parts.cut else parts.val,
                heldout=_where(train, tested),
                name=parts.name,
                cut=parts.cut,
            )
        )
    if any(not (len(one.train) and len(one.val) and len(one.heldout)) for one in made):
        raise TuningError(
            f"expected images to train on, to select the epoch by and to test in each of {count} folds, found "
            f"{counted(len(train), 'training image')}, too few: take fewer folds, or give a val part"
        )
    return made


def together(usable: Dataset, parts: Sequence[Dataset]) -> Dataset:
    """Return the images of several parts of a dataset, each once."""
    wanted = {digest.tobytes() for part in parts for digest in part.digests}
    return once(usable.subset(row for row, digest in enumerate(usable.digests) if digest.tobytes() in wanted))


def codes(dataset: Dataset, classes: Sequence[str]) -> Codes:
    """Return the place of each image's label among the classes ``(n,)``, -1 for one that is not among them."""
    place = {name: code for code, name in enumerate(classes)}
    return np.array([place.get(label or "", -1) for label in dataset.labels], np.int64)


def warn_of_classes(parts: Parts) -> None:
    """Warn of classes that the choice of the epoch cannot see."""
    unknown = sorted({str(label) for label in parts.val.labels} - {str(label) for label in parts.train.labels})
    if unknown:
        warnings.warn(
            f"no training image of {examples(unknown)}: validation images of them cannot be right",
            BottleneckWarning,
            stacklevel=3,
        )
    if parts.cut and len(parts.val) < _FEW:
        warnings.warn(
            f"only {len(parts.val)} of the training images could be set aside to choose the epoch by, which says "
            f"little: give a val part, or more images",
            BottleneckWarning,
            stacklevel=3,
        )
    missing = sorted({str(label) for label in parts.train.labels} - {str(label) for label in parts.val.labels})
    if missing:
        warnings.warn(
            f"no validation image of {examples(missing)}: the epoch is chosen without looking at them",
            BottleneckWarning,
            stacklevel=3,
        )


def _where(dataset: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    return dataset.subset(np.flatnonzero(chosen).tolist())


def _once(dataset: Dataset, split: str) -> Dataset:
    own = dataset.subset(row for row, found in enumerate(dataset.splits) if found == split)
    return own.subset(own.first_rows())


def _cut(train: Dataset) -> tuple[str, ...]:
    """Decide anew about images that have been decided about: by another hash of each."""
    keys = [np.frombuffer(sha256(_SALT + digest.tobytes()).digest(), np.uint8) for digest in train.digests]
    groups = [None if group is None else f"validation {group}" for group in train.groups]
    salted = replace(train, digests=np.stack(keys)) if keys else train
    return assign(salted.digests, groups, [None] * len(train), _CUT)

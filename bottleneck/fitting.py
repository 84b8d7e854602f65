"""From cached features to a run: read, search, fit, look at the held-out part once, write it all down."""

import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck import __version__
from bottleneck.cache.store import Store
from bottleneck.engines.kept import Kept
from bottleneck.errors import BottleneckWarning, ImagesError, SplitError
from bottleneck.evaluate import evaluate
from bottleneck.heads.family import family
from bottleneck.heads.linear import Features
from bottleneck.heads.search import Search, search
from bottleneck.images.dataset import Dataset, two_labels
from bottleneck.images.keys import DigestSet
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares, parted
from bottleneck.runs import Run, save_run
from bottleneck.selection import Selection, select, some

_PACKAGES = ("torch", "torchvision", "timm", "openvino", "scikit-learn", "h5py", "numpy", "pillow")


@dataclass(frozen=True)
class _Part:
    """The images of one split, each once."""

    dataset: Dataset
    features: Features

    @property
    def labels(self) -> list[str]:
        return [label for label in self.dataset.labels if label is not None]


def fit(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    head: str = "logistic",
    model: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    split: str | None = None,
    C: Sequence[float] | None = None,
    folds: int = 5,
    seed: int = 0,
    allow_duplicates: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train a head on cached features and test it on held-out images.

    Features are standardised, and C is chosen by stratified cross-validation, on the training part alone. The head
    is then looked at once on the held-out part: ``test`` where there is one, else ``val``.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default what was last extracted with this cache.
    head : str
        ``logistic``, ``svm`` or ``softmax``.
    model : str, optional
        The backbone whose features are used; by default that of the last extraction.
    cache, runs : path
        Where features are read, and where the run is written.
    split : str, optional
        Percentages ``train/val/test`` for images whose split is not given; by default those of the dataset, which
        are 80/10/10 unless it was scanned with others.
    C : sequence of float, optional
        The values that are searched; by default the family's grid.
    folds : int
        Of the cross-validation.
    seed : int
        Equal seeds give equal heads.
    allow_duplicates : bool
        Whether an image, or a group, may stand in more than one split.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Run

    Raises
    ------
    ImagesError
        If the images have no labels.
    SplitError
        If nothing is held out, or an image or group stands in more than one split.
    CacheError
        If there is no such model in the cache, or features are missing: extract first.
    HeadError
        If no head can be trained, on one class, say.
    """
    started = time.perf_counter()
    chosen = family(head)
    shares = Shares.parse(split) if split else None
    selected = select(images, model=model, cache=cache, runs=runs, labels=True, shares=shares, progress=progress)
    dataset, store = selected.dataset, selected.store
    usable = _labelled(selected)
    if not allow_duplicates:
        _refuse_leaks(usable)
    held_out = _held_out(usable)
    train, test = _part(usable, store, "train"), _part(usable, store, held_out)
    _warn_of_classes(train, test, held_out)
    found = search(
        train.features,
        train.labels,
        chosen,
        groups=train.dataset.groups,
        grid=C,
        folds=folds,
        seed=seed,
        fingerprint=store.spec.fingerprint,
    )
    probabilities = found.head.probabilities(test.features)
    predicted = [found.head.classes[code] for code in probabilities.argmax(axis=1)]
    card = {
        "kind": "fit",
        "bottleneck": __version__,
        "head": found.head.family,
        "model": store.spec.backbone,
        "classes": list(found.head.classes),
        "params": {"C": found.C},
        "sharpness": found.head.sharpness,
        "search": _search_card(found, folds),
        "seed": seed,
        "heldout": held_out,
        "n_train": len(train.dataset),
        "n_heldout": len(test.dataset),
        "metrics": evaluate(test.labels, predicted, found.head.classes),
        "dataset": _dataset_card(dataset, usable),
        "failures": [vars(failure) for failure in selected.failures],
        "spec": store.spec.to_json(),
        "fingerprint": store.spec.fingerprint,
        "request": store.request(),
        "engines": [asdict(check) for check in Kept(store.engines).checks() if check.passed],
        "versions": _versions(),
        "seconds": time.perf_counter() - started,
    }
    rows = _predictions(test.dataset, dataset, predicted, probabilities)
    columns = ["path", "digest", "split", "label", "predicted", "probability"]
    return save_run(runs, f"{store.spec.backbone.replace('/', '_')}-{head}", found.head, card, columns, rows)


def _labelled(selected: Selection) -> Dataset:
    """Return the usable images that have one label.

    Raises
    ------
    ImagesError
        If there are no labels.
    """
    if not selected.dataset.labelled:
        raise ImagesError(
            f"expected labels for the images of {selected.dataset.source}, found none: give each class a folder of its "
            f"own, or list the images in a CSV with columns path,label"
        )
    torn = two_labels(selected.dataset)
    usable = selected.usable
    return usable.subset(row for row, digest in enumerate(usable.digests) if digest.tobytes() not in torn)


def _refuse_leaks(dataset: Dataset) -> None:
    digests = [row.tobytes().hex() for row in dataset.digests]
    leaks = parted(digests, dataset.splits)
    if leaks:
        paths = [path for path, digest in zip(dataset.paths, digests, strict=True) if digest in leaks]
        raise SplitError(
            f"expected each image in one split, found {len(leaks)} in more ({some(paths)}): the score would be too "
            f"good. Remove the copies, or say --allow-duplicates"
        )
    named = [(group, split) for group, split in zip(dataset.groups, dataset.splits, strict=True) if group is not None]
    if named and (leaks := parted(*zip(*named, strict=True))):
        raise SplitError(
            f"expected each group in one split, found {len(leaks)} in more ({some(sorted(leaks))}): the score would "
            f"be too good. Mend the splits, or say --allow-duplicates"
        )


def _held_out(dataset: Dataset) -> str:
    counts = Counter(dataset.splits)
    for split in ("test", "val"):
        if counts["train"] and counts[split]:
            return split
    raise SplitError(
        f"expected images to train on and images to hold out, found {dict(counts)}. Give more images, other shares "
        f"with --split (60/0/40, say), or folders train/ and val/"
    )


def _part(dataset: Dataset, store: Store, split: str) -> _Part:
    part = dataset.subset(row for row, found in enumerate(dataset.splits) if found == split)
    part = part.subset(part.first_rows())
    return _Part(part, store.read(part.digests))


def _warn_of_classes(train: _Part, test: _Part, held_out: str) -> None:
    missing = sorted(set(train.labels) - set(test.labels))
    unknown = sorted(set(test.labels) - set(train.labels))
    single = sorted(name for name, count in Counter(train.labels).items() if count == 1)
    if single:
        _warn(f"only one training image of {some(single)}: it cannot be cross-validated")
    if missing:
        _warn(f"no {held_out} image of {some(missing)}: the scores say nothing about it")
    if unknown:
        _warn(f"no training image of {some(unknown)}: its {held_out} images cannot be right")


def _search_card(found: Search, folds: int) -> dict[str, Any]:
    return {
        "cv_accuracy": found.accuracy,
        "folds": found.fold_accuracy.shape[1],
        "grid": list(found.grid),
        "fold_accuracy": found.fold_accuracy.tolist(),
        "rule": "the smallest C whose balanced accuracy is within one standard error of the best",
    }


def _dataset_card(dataset: Dataset, usable: Dataset) -> dict[str, Any]:
    return {
        "source": str(dataset.source),
        "digest": usable.fingerprint(),
        "images": len(dataset),
        "used": len(usable),
        "splits": dict(Counter(usable.splits)),
        "split_given": all(split is not None for split in dataset.given_splits),
        "shares": str(dataset.shares),
        "labels": dict(Counter(label for label in usable.labels if label is not None)),
    }


def _predictions(
    part: Dataset, dataset: Dataset, predicted: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of ``predictions.csv``: every path of every held-out image."""
    rows = DigestSet(part.digests).find(dataset.digests).tolist()
    for path, row, digest, split, label in zip(
        dataset.paths, rows, dataset.digests, dataset.splits, dataset.labels, strict=True
    ):
        if row >= 0 and split == part.splits[row]:
            best = f"{probabilities[row].max():.6f}"
            yield path, digest.tobytes().hex(), split, label, predicted[row], best


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform, "bottleneck": __version__}
    for package in _PACKAGES:
        found[package] = metadata.version(package)
    return found


def _warn(message: str) -> None:
    warnings.warn(message, BottleneckWarning, stacklevel=3)

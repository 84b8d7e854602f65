"""From cached features to a run: read, search, fit, look at the held-out part once, write it all down."""

import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck import __version__
from bottleneck.cache.scans import load_last, load_scan
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import BottleneckWarning, CacheError, ImageError, ImagesError, MissingFeatures, SplitError
from bottleneck.evaluate import evaluate
from bottleneck.heads.family import family
from bottleneck.heads.linear import Features
from bottleneck.heads.search import Search, search
from bottleneck.images.dataset import Dataset, Failure, digest_keys
from bottleneck.images.scan import Progress, scan, two_labels
from bottleneck.images.splits import Shares, parted
from bottleneck.runs import Run, save_run

_SHOWN = 4  # paths that a message names
_PACKAGES = ("torch", "torchvision", "timm", "scikit-learn", "h5py", "numpy", "pillow")


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
    home = FeatureCache(cache)
    dataset = _dataset(images, home, Path(runs), Shares.parse(split) if split else None, progress)
    store = _store(home, model)
    usable, failures = _usable(dataset, store)
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
        "failures": [vars(failure) for failure in failures],
        "spec": store.spec.to_json(),
        "fingerprint": store.spec.fingerprint,
        "request": store.request(),
        "versions": _versions(),
        "seconds": time.perf_counter() - started,
    }
    rows = _predictions(test.dataset, dataset, predicted, probabilities)
    columns = ["path", "digest", "split", "label", "predicted", "probability"]
    return save_run(runs, f"{store.spec.backbone.replace('/', '_')}-{head}", found.head, card, columns, rows)


def _dataset(
    images: "str | os.PathLike[str] | Dataset | None",
    cache: FeatureCache,
    runs: Path,
    shares: Shares | None,
    progress: Progress | None,
) -> Dataset:
    if isinstance(images, Dataset):
        return images.with_shares(shares) if shares else images
    shares = shares or Shares()
    if images is None:
        last = load_last(cache.root)
        if last is None:
            raise CacheError(f"expected features in {cache.root}, found none: run `bottleneck extract IMAGES` first")
        images = last.source
    if Path(images).exists():
        return scan(images, split=str(shares), cache=cache.root, exclude=(runs,), progress=progress)
    dataset = load_scan(cache.root, images, shares)
    warnings.warn(f"{images} is not there: the features of its last scan are used", BottleneckWarning, stacklevel=3)
    return dataset


def _store(cache: FeatureCache, model: str | None) -> Store:
    """Return the store of `model`; by default, and among several specs of it, that of the last extraction."""
    recent = None
    if last := load_last(cache.root):
        with suppress(CacheError):  # deleted since
            recent = cache.open(last.store)
    if recent and model in (None, recent.spec.backbone):
        return recent
    if model is None:
        raise CacheError(f"expected features in {cache.root}, found none: run `bottleneck extract IMAGES` first")
    return cache.find(model)


def _usable(dataset: Dataset, store: Store) -> tuple[Dataset, tuple[Failure, ...]]:
    """Return the labelled images that have features and one label, and the images that cannot be used.

    Raises
    ------
    ImagesError
        If there are no labels.
    MissingFeatures
        If features are missing that an extraction could compute.
    """
    if not dataset.labelled:
        raise ImagesError(
            f"expected labels for the images of {dataset.source}, found none: give each class a folder of its own, or "
            f"list the images in a CSV with columns path,label"
        )
    has = store.has(dataset.digests)
    failed = _failures(dataset, store)
    unknown = [row for row in np.flatnonzero(~has) if dataset.digests[row].tobytes().hex() not in failed]
    if unknown:
        raise MissingFeatures(
            f"expected features of {store.spec.backbone} for {len(dataset)} images, {len(unknown)} have none "
            f"({_some([dataset.paths[row] for row in unknown])}): run `bottleneck extract {dataset.source} "
            f"--model {store.spec.backbone}` again"
        )
    torn = two_labels(dataset)
    keep = [row for row in np.flatnonzero(has).tolist() if dataset.digests[row].tobytes() not in torn]
    failures = [failed[digest] for row in dataset.digests[~has] if (digest := row.tobytes().hex()) in failed]
    return dataset.subset(keep), (*dataset.failures, *failures)


def _failures(dataset: Dataset, store: Store) -> dict[str, Failure]:
    """Return, by digest, the images that the last extraction found to be undecodable, whatever is tried again."""
    root = store.folder.parents[1]
    with suppress(CacheError):
        last = load_scan(root, dataset.source, dataset.shares)
        return {f.digest: f for f in last.failures if f.digest and f.code in ImageError.FINAL}
    return {}


def _refuse_leaks(dataset: Dataset) -> None:
    digests = [row.tobytes().hex() for row in dataset.digests]
    leaks = parted(digests, dataset.splits)
    if leaks:
        paths = [path for path, digest in zip(dataset.paths, digests, strict=True) if digest in leaks]
        raise SplitError(
            f"expected each image in one split, found {len(leaks)} in more ({_some(paths)}): the score would be too "
            f"good. Remove the copies, or say --allow-duplicates"
        )
    named = [(group, split) for group, split in zip(dataset.groups, dataset.splits, strict=True) if group is not None]
    if named and (leaks := parted(*zip(*named, strict=True))):
        raise SplitError(
            f"expected each group in one split, found {len(leaks)} in more ({_some(sorted(leaks))}): the score would "
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
        _warn(f"only one training image of {_some(single)}: it cannot be cross-validated")
    if missing:
        _warn(f"no {held_out} image of {_some(missing)}: the scores say nothing about it")
    if unknown:
        _warn(f"no training image of {_some(unknown)}: its {held_out} images cannot be right")


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
    row_of = {key: row for row, key in enumerate(digest_keys(part.digests))}
    for path, key, digest, split, label in zip(
        dataset.paths, digest_keys(dataset.digests), dataset.digests, dataset.splits, dataset.labels, strict=True
    ):
        row = row_of.get(key)
        if row is not None and split == part.splits[row]:
            best = f"{probabilities[row].max():.6f}"
            yield path, digest.tobytes().hex(), split, label, predicted[row], best


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform, "bottleneck": __version__}
    for package in _PACKAGES:
        found[package] = metadata.version(package)
    return found


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _warn(message: str) -> None:
    warnings.warn(message, BottleneckWarning, stacklevel=3)

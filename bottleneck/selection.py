"""Images whose features are cached: which dataset, which store, which of them can be used."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bottleneck.backbones.request import full_name
from bottleneck.cache.scans import load_last, load_scan
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.scan import Progress, scan
from bottleneck.images.splits import Shares

_SHOWN = 4  # paths that a message names


@dataclass(frozen=True)
class Selection:
    """What a command works on.

    Parameters
    ----------
    dataset : Dataset
        All images that could be read.
    store : Store
        Where their features are.
    usable : Dataset
        The part of `dataset` that has features, each image in the split it has among all.
    failures : tuple of Failure
        The images that cannot be used.
    """

    dataset: Dataset
    store: Store
    usable: Dataset
    failures: tuple[Failure, ...]


def select(
    images: "str | os.PathLike[str] | Dataset | None",
    *,
    model: str | None,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    labels: bool | None = None,
    shares: Shares | None = None,
    progress: Progress | None = None,
) -> Selection:
    """Return the images and the store that a user means, as `bottleneck.fit` describes.

    Parameters
    ----------
    images, model, cache, runs, progress
        As for `bottleneck.fit`.
    labels : bool, optional
        Whether folders, or the CSV, give labels; by default as they did when the images were extracted last.
    shares : Shares, optional
        How images without a given split are divided; by default as they were, or 80/10/10.

    Raises
    ------
    CacheError
        If there is no such model in the cache, or nothing was extracted yet.
    MissingFeatures
        If features are missing that an extraction could compute.
    """
    home = FeatureCache(cache)
    dataset = find_images(images, home, Path(runs), labels, shares, progress)
    store = _store(home, model)
    has = store.has(dataset.digests)
    failed = _failures(dataset, store)
    lost = {row: dataset.digests[row].tobytes().hex() for row in np.flatnonzero(~has).tolist()}
    unknown = [row for row, digest in lost.items() if digest not in failed]
    if unknown:
        raise MissingFeatures(
            f"expected features of {store.spec.backbone} for {len(dataset)} images, {len(unknown)} have none "
            f"({some([dataset.paths[row] for row in unknown])}): run `bottleneck extract {dataset.source} "
            f"{_options(store)}` again"
        )
    failures = (*dataset.failures, *(replace(failed[digest], path=dataset.paths[row]) for row, digest in lost.items()))
    return Selection(dataset, store, dataset.subset(np.flatnonzero(has).tolist()), failures)


def find_images(
    images: "str | os.PathLike[str] | Dataset | None",
    cache: FeatureCache,
    runs: Path,
    labels: bool | None,
    shares: Shares | None,
    progress: Progress | None,
) -> Dataset:
    """Return the images that a user means, as `select` describes."""
    if isinstance(images, Dataset):
        return images.with_shares(shares) if shares else images
    shares = shares or Shares()
    if images is None:
        last = load_last(cache.root)
        if last is None:
            raise CacheError(f"expected features in {cache.root}, found none: run `bottleneck extract IMAGES` first")
        images, labels = last.source, last.labels if labels is None else labels
    if Path(images).exists():
        return scan(
            images, labels=labels is not False, split=str(shares), cache=cache.root, exclude=(runs,), progress=progress
        )
    dataset = load_scan(cache.root, images, shares)
    warnings.warn(f"{images} is not there: the features of its last scan are used", BottleneckWarning, stacklevel=4)
    return dataset


def some(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _store(cache: FeatureCache, model: str | None) -> Store:
    """Return the store of `model`; by default, and among several specs of it, that of the last extraction."""
    recent = None
    if last := load_last(cache.root):
        with suppress(CacheError):  # deleted since
            recent = cache.open(last.store)
    if recent and (model is None or full_name(model) in (recent.spec.backbone, _asked(recent))):
        return recent
    if model is None:
        raise CacheError(f"expected features in {cache.root}, found none: run `bottleneck extract IMAGES` first")
    return cache.find(model)


def _asked(store: Store) -> str | None:
    asked = store.asked()
    return asked.model if asked else None


def _options(store: Store) -> str:
    """Return the options with which the features of a store were asked for."""
    asked = store.asked()
    return asked.command() if asked else f"--model {store.spec.backbone}"


def _failures(dataset: Dataset, store: Store) -> dict[str, Failure]:
    """Return, by digest, the images that the last extraction could not use; it has said so, and why."""
    root = store.folder.parents[1]
    with suppress(CacheError):
        last = load_scan(root, dataset.source, dataset.shares)
        return {failure.digest: failure for failure in last.failures if failure.digest}
    return {}

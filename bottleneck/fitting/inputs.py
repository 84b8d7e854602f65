"""Images whose features are cached: which dataset, which store, which of them can be used."""

import os
import shlex
import warnings
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bottleneck.cache.feature_cache import FeatureCache, matching, names_of
from bottleneck.cache.last import Last, load_last, load_latest
from bottleneck.cache.scans import columns_of, load_scan
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.scan import Progress, scan
from bottleneck.images.splits import Shares
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.utils.files import NotRegularError
from bottleneck.utils.folder import LinkError
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted, first_few


@dataclass(frozen=True)
class CachedImages:
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
    columns: Columns | None = None,
) -> CachedImages:
    """Return the images and the store that a user means, as `bottleneck.fit` describes.

    Parameters
    ----------
    images, model, cache, runs, progress
        As for `bottleneck.fit`.
    labels : bool, optional
        Whether folders, or the CSV, give labels; by default as they did when the images were extracted last.
    shares : Shares, optional
        How images without a given split are divided; by default as they were, or 80/10/10.
    columns : Columns, optional
        Of a table; by default those that were named when it was extracted last.

    Raises
    ------
    CacheError
        If there is no such model in the cache, nothing was extracted yet, or several specs would do.
    MissingFeatures
        If features are missing that an extraction could compute.
    """
    home = FeatureCache(cache)
    dataset = find_images(images, home, expanded(runs), labels, shares, progress, columns)
    failed = _failures(dataset, home.root)
    recall = images is None and model is None
    store = _of_last(home) if recall else _store(home, dataset, failed, model)
    has = store.has(dataset.digests)
    lost = {row: dataset.digests[row].tobytes().hex() for row in np.flatnonzero(~has).tolist()}
    unknown = [row for row, digest in lost.items() if digest not in failed]
    if unknown:
        raise MissingFeatures(
            f"expected features of {store.spec.backbone} for {counted(len(dataset), 'image')}, "
            f"{len(unknown)} have none "
            f"({first_few([dataset.paths[row] for row in unknown])}): run `bottleneck extract {_shell(dataset.source)} "
            f"{_options(store)}`, which computes what is missing"
        )
    failures = (*dataset.failures, *(replace(failed[digest], path=dataset.paths[row]) for row, digest in lost.items()))
    return CachedImages(dataset, store, dataset.subset(np.flatnonzero(has).tolist()), failures)


def find_images(
    images: "str | os.PathLike[str] | Dataset | None",
    cache: FeatureCache,
    runs: Path,
    labels: bool | None,
    shares: Shares | None,
    progress: Progress | None,
    columns: Columns | None = None,
) -> Dataset:
    """Return the images that a user means, as `select` describes."""
    if isinstance(images, Dataset):
        return images.with_shares(shares) if shares else images
    shares = shares or Shares()
    if images is None:
        last = default_images(cache.root)
        images, labels = last.source, last.labels if labels is None else labels
    images = expanded(images)
    if os.path.exists(images):
        return scan(
            images,
            labels=labels is not False,
            split=str(shares),
            cache=cache.root,
            exclude=(runs,),
            progress=progress,
            **(columns or columns_of(cache.root, images)).keywords(),
        )
    dataset = load_scan(cache.root, images, shares)
    warnings.warn(f"{images} is not there: the features of its last scan are used", BottleneckWarning, stacklevel=4)
    return dataset


def default_images(cache: Path) -> Last:
    """Return what a command works on that is given no IMAGES: what was last extracted in the current folder.

    Raises
    ------
    CacheError
        If nothing was, or if that extraction failed before it had features.
    """
    last = load_last(cache)
    if last is None:
        raise CacheError(
            f"expected IMAGES, or an earlier `bottleneck extract` in this folder; found none with the cache {cache}: "
            f"run `bottleneck extract IMAGES`, or name IMAGES that were extracted elsewhere"
        )
    if last.store is None:
        raise CacheError(
            f"expected IMAGES: the last `bottleneck extract {_shell(last.shown)}` in this folder failed. Run it again, "
            f"or name the images to work on"
        )
    return last


def _of_last(cache: FeatureCache) -> Store:
    """Return the store of the last extraction in the current folder, complete or not.

    Raises
    ------
    MissingFeatures
        If it was deleted since.
    """
    last = default_images(cache.root)
    try:
        return cache.open(str(last.store))
    except CacheError as error:
        if isinstance(error.__cause__, (LinkError, NotRegularError)):
            raise
        again = f"bottleneck extract {_shell(last.shown)}"
        raise MissingFeatures(
            f"expected the features of the last `{again}` in {cache.root}, found none: run it again, or name IMAGES"
        ) from error


def _store(cache: FeatureCache, dataset: Dataset, failed: dict[str, Failure], model: str | None) -> Store:
    """Return the store with the features of these images: of `model` where one is named.

    Among several it is the one that took their features last, then the only one that has all of them.

    Raises
    ------
    CacheError
        If there is none, or if several have all features and nothing says which was meant.
    MissingFeatures
        If no store has features of these images.
    """
    stores = cache.stores() if model is None else matching(cache.stores(), model)
    if model is not None and len(stores) < 2:
        return cache.find(model)
    latest = load_latest(cache.root, dataset.source)
    recent = next((store for store in stores if store.name == latest), None)
    if recent and _complete(recent, dataset, failed):
        return recent
    counts = [int(store.has(dataset.digests).sum()) for store in stores]
    if not any(counts):
        of = f" of {model}" if model else ""
        raise MissingFeatures(
            f"expected features{of} for the images of {dataset.source} in {cache.root}, found none: run "
            f"`bottleneck extract {_shell(dataset.source)}` first"
        )
    complete = [store for store in stores if _complete(store, dataset, failed)]
    if len(complete) > 1:
        raise CacheError(
            f"expected one spec with features of {dataset.source}, found {len(complete)}: name one with --model, "
            f"{', '.join(names_of(complete))}"
        )
    if complete:
        return complete[0]
    return recent or stores[counts.index(max(counts))]


def _complete(store: Store, dataset: Dataset, failed: dict[str, Failure]) -> bool:
    """Whether a store has features of all images that can be used, and of one at least."""
    has = store.has(dataset.digests)
    return bool(has.any()) and all(row.tobytes().hex() in failed for row in dataset.digests[~has])


def _options(store: Store) -> str:
    """Return the options with which the features of a store were asked for."""
    asked = store.asked()
    return asked.command() if asked else f"--model {store.spec.backbone}"


def _failures(dataset: Dataset, root: Path) -> dict[str, Failure]:
    """Return, by digest, the images that cannot be used: earlier extractions have said so, and why."""
    found = {
        digest.hex(): Failure("", error.code, str(error), digest.hex())
        for digest, error in UndecodableMemo(root / "digests.sqlite").load().items()
    }
    with suppress(CacheError):
        last = load_scan(root, dataset.source, dataset.shares)
        found.update({failure.digest: failure for failure in last.failures if failure.digest})
    return found


def _shell(path: str | Path) -> str:
    return shlex.quote(str(path))

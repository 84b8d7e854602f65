"""Find the images that a user names and the store of their features."""

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bottleneck.cache.feature_cache import FeatureCache, matching, names_of
from bottleneck.cache.last import Last, load_last, load_latest
from bottleneck.cache.scans import columns_of, load_scan
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError, MissingFeatures
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.scan import Progress, scan
from bottleneck.images.splits import Shares
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.utils.files import NotRegularError
from bottleneck.utils.folder import LinkError
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted, first_few
from bottleneck.utils.warn import warn


@dataclass(frozen=True, kw_only=True)
class ImageQuery:
    """The images that a user names, and the options for finding them.

    Parameters
    ----------
    images : path or Dataset, optional
        By default the images that were last extracted in the current folder with this cache.
    cache : FeatureCache
    runs : Path
        A folder that is never scanned.
    labels : bool, optional
        Whether folders, or the table, give labels; by default as in the last extraction of the images.
    shares : Shares, optional
        How images without a given split are divided; by default as before, or 80/10/10.
    columns : Columns, optional
        Columns of a table; by default those that were named in its last extraction.
    progress : callable, optional
        As for `bottleneck.scan`.
    """

    images: "str | os.PathLike[str] | Dataset | None"
    cache: FeatureCache
    runs: Path
    labels: bool | None = None
    shares: Shares | None = None
    columns: Columns | None = None
    progress: Progress | None = None

    def find(self) -> Dataset:
        """Return the images.

        Raises
        ------
        CacheError
            If no images are named, and nothing was extracted in the current folder.
        ImagesError
            If there are none.
        """
        images, labels, shares, root = self.images, self.labels, self.shares or Shares(), self.cache.root
        if isinstance(images, Dataset):
            return images.with_shares(self.shares) if self.shares else images
        if images is None:
            last = default_images(root)
            images, labels = last.source, last.labels if labels is None else labels
        images = expanded(images)
        if os.path.exists(images):
            return scan(
                images,
                labels=labels is not False,
                split=str(shares),
                cache=root,
                exclude=(self.runs,),
                progress=self.progress,
                **(self.columns or columns_of(root, images)).keywords(),
            )
        dataset = load_scan(root, images, shares)
        warn(f"{images} does not exist: using the features of its last scan")
        return dataset


@dataclass(frozen=True)
class CachedImages:
    """Images and the store of their features.

    Parameters
    ----------
    dataset : Dataset
        All images that could be read.
    store : Store
    usable : Dataset
        The images of `dataset` that have features, each in the same split as in `dataset`.
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
    """Return the images and the store that a user names, as `bottleneck.fit` describes.

    Parameters
    ----------
    images, labels, shares, progress, columns
        See `ImageQuery`.
    model, cache, runs
        As for `bottleneck.fit`.

    Raises
    ------
    CacheError
        If there is no such model in the cache, nothing was extracted yet, or several specs match.
    MissingFeatures
        If features are missing that an extraction could compute.
    """
    home = FeatureCache(cache)
    dataset = ImageQuery(
        images=images,
        cache=home,
        runs=expanded(runs),
        labels=labels,
        shares=shares,
        columns=columns,
        progress=progress,
    ).find()
    failed = _failures(dataset, home.root)
    is_last = images is None and model is None
    store = _last_store(home) if is_last else _store(home, dataset, failed, model)
    has = store.has(dataset.digests)
    lost = {row: dataset.digests[row].tobytes().hex() for row in np.flatnonzero(~has).tolist()}
    unknown = [row for row, digest in lost.items() if digest not in failed]
    if unknown:
        raise MissingFeatures(
            f"expected features of {store.spec.backbone} for {counted(len(dataset), 'image')}, "
            f"{len(unknown)} have none "
            f"({first_few([dataset.paths[row] for row in unknown])}): run `bottleneck extract {_shell(dataset.source)} "
            f"{_options(store)}`, which computes the missing features"
        )
    failures = (*dataset.failures, *(replace(failed[digest], path=dataset.paths[row]) for row, digest in lost.items()))
    return CachedImages(dataset, store, dataset.subset(np.flatnonzero(has).tolist()), failures)


def default_images(cache: Path) -> Last:
    """Return the images of the last extraction in the current folder, which a command without IMAGES uses.

    Raises
    ------
    CacheError
        If there was none, or if it failed before it had features.
    """
    last = load_last(cache)
    if last is None:
        raise CacheError(
            f"expected IMAGES, or an earlier `bottleneck extract` in this folder; found none with the cache {cache}: "
            f"run `bottleneck extract IMAGES`, or name IMAGES that were extracted in another folder"
        )
    if last.store is None:
        raise CacheError(
            f"expected IMAGES: the last `bottleneck extract {_shell(last.shown)}` in this folder failed. Run it again, "
            f"or name the images to work on"
        )
    return last


def _last_store(cache: FeatureCache) -> Store:
    """Return the store of the last extraction in the current folder, complete or not.

    Raises
    ------
    MissingFeatures
        If it has been deleted.
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
    """Return the store with the features of these images, by `model` if one is named.

    If there are several, it is the one that last received features of these images, or else the only complete one.

    Raises
    ------
    CacheError
        If there is none, or if several are complete and none of them is the last one.
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
    """Return whether a store has features of all usable images, and of at least one."""
    has = store.has(dataset.digests)
    return bool(has.any()) and all(row.tobytes().hex() in failed for row in dataset.digests[~has])


def _options(store: Store) -> str:
    """Return the options of the extraction that filled a store."""
    request = store.asked()
    return request.command() if request else f"--model {store.spec.backbone}"


def _failures(dataset: Dataset, root: Path) -> dict[str, Failure]:
    """Return, by digest, the images that earlier extractions could not use, and why."""
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

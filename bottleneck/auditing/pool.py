"""Unlabelled images with their features, and what a run predicts for them."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.feature_cache import FeatureCache, matching
from bottleneck.cache.last import load_last
from bottleneck.cache.store import Store
from bottleneck.errors import ImagesError
from bottleneck.evaluation.neighbours import Features, unit_rows
from bottleneck.extraction.extract import extract
from bottleneck.extraction.result import NothingUsable
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.failures import none_usable
from bottleneck.images.given import Given
from bottleneck.images.keys import Digests, DigestSet, as_digests
from bottleneck.images.listing import DataFrameLike, Values
from bottleneck.images.scan import Progress
from bottleneck.prediction.predict import classify, given_images
from bottleneck.runs.run import Run
from bottleneck.utils.text import first_few

Images = str | os.PathLike[str] | Values | DataFrameLike | Dataset


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Images to choose from, each once, without those that a run already has.

    Parameters
    ----------
    run : Run or None
        The run that predicts; None without a head.
    model : str
        The spec of the features.
    names : tuple of str, length n
        Each path as given.
    files : tuple of str, length n
        Paths of the files, relative to the current folder.
    digests : ndarray of uint8, shape (n, 32)
        Sorted, so that the order of the files has no effect.
    units : ndarray of float32, shape (n, d)
        Features, centred at the mean of pool and labelled images, each row divided by its length.
    labelled : ndarray of float32, shape (m, d)
        The same of the images of the run whose features are cached.
    probabilities : ndarray of float64, shape (n, k), or None
    familiarity : ndarray of float64, shape (n,), or None
    least : float
        The smallest possible familiarity, see `bottleneck.evaluation.familiarity.Familiarity`.
    known, copies : int
        Numbers of images that were left out because they are images of the run, or copies of others.
    failures : tuple of Failure
    remarks : tuple of str
    """

    run: Run | None
    model: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    digests: Digests
    units: Features
    labelled: Features
    probabilities: NDArray[np.float64] | None
    familiarity: NDArray[np.float64] | None
    least: float
    known: int
    copies: int
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, kw_only=True)
class _Extracted:
    """Images as given, with the store of their features; and their rows in what a run predicts, if there is one."""

    given: Given
    digests: tuple[bytes | None, ...]
    store: Store
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]
    places: NDArray[np.intp] | None = None
    probabilities: NDArray[np.float64] | None = None
    familiarity: NDArray[np.float64] | None = None


def read_pool(
    images: Images,
    *,
    run: Run | None,
    model: str | None,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    columns: Columns,
    memory: int | None,
    progress: Progress | None,
) -> Pool:
    """Extract the features of unlabelled images, and predict their classes if there is a run.

    Raises
    ------
    ImagesError
        If none of the images can be used.
    """
    given = given_images(images, columns, cache, runs)
    options = {"cache": cache, "runs": runs, "memory": memory, "progress": progress}
    pool = _predicted(given, run, options) if run else _extracted(given, model, options)
    usable = [row for row, digest in enumerate(pool.digests) if digest is not None]
    if not usable:
        reasons = first_few([f"{failure.path}: {failure.message}" for failure in pool.failures])
        raise ImagesError(f"{none_usable(len(pool.given))} ({reasons})")
    digests = as_digests([pool.digests[row] or b"" for row in usable])
    first = DigestSet(digests).sorted_rows
    theirs = _of_run(run)
    new = first[DigestSet(theirs).find(digests[first]) < 0] if len(theirs) else first
    rows = np.array(usable, np.intp)[new]
    all_of_run = len(theirs)
    theirs = theirs[pool.store.has(theirs)] if len(theirs) else theirs
    features, labelled = pool.store.read(digests[new]), pool.store.read(theirs) if len(theirs) else None
    every = features if labelled is None else np.concatenate([features, labelled])
    units = unit_rows(every, every.mean(axis=0, dtype=np.float64).astype(np.float32)) if len(every) else every
    places = None if pool.places is None else pool.places[rows]
    return Pool(
        run=run,
        model=pool.store.short_name,
        names=tuple(pool.given.names[row] for row in rows.tolist()),
        files=tuple(pool.given.files[row] for row in rows.tolist()),
        digests=digests[new],
        units=units[: len(new)],
        labelled=units[len(new) :],
        probabilities=None if pool.probabilities is None else pool.probabilities[places],
        familiarity=None if pool.familiarity is None else pool.familiarity[places],
        least=run.uncertainty.familiarity.least if run and run.uncertainty else 0.0,
        known=len(first) - len(new),
        copies=len(usable) - len(first),
        failures=pool.failures,
        remarks=(*pool.remarks, *_missing(all_of_run - len(theirs), all_of_run)),
    )


def _missing(count: int, total: int) -> list[str]:
    """Return a remark on images of the run without features."""
    if not count:
        return []
    return [
        f"{count} of the {total} images of the run have no cached features, so that distances to labelled images leave "
        f"them out: extract them with the model of the run"
    ]


def _of_run(run: Run | None) -> Digests:
    """Return the digests of all images of a run, which have labels."""
    known = run.images if run else None
    return np.empty((0, 32), np.uint8) if known is None else known.digests


def _predicted(given: Given, run: Run, options: dict[str, Any]) -> _Extracted:
    """Return the features of images, and what a run predicts for them."""
    found = classify(given, run=run, familiarity=True, **options)
    return _Extracted(
        given=given,
        digests=tuple(None if row in found.failures else digest for row, digest in enumerate(found.digests)),
        store=found.store,
        failures=tuple(found.failures.values()),
        remarks=found.remarks,
        places=found.places,
        probabilities=found.probabilities,
        familiarity=found.familiarity,
    )


def _extracted(given: Given, model: str | None, options: dict[str, Any]) -> _Extracted:
    """Return the features of images by a backbone."""
    try:
        done = extract(
            given, labels=False, remember=False, **_backbone(model, FeatureCache(options["cache"])), **options
        )
    except NothingUsable as error:
        done = error.done
    failed = {failure.path for failure in done.failures}
    digest_of = dict(zip(done.dataset.paths, (row.tobytes() for row in done.dataset.digests), strict=True))
    return _Extracted(
        given=given,
        digests=tuple(None if file in failed else digest_of.get(file) for file in given.files),
        store=done.store,
        failures=done.failures,
        remarks=done.remarks,
    )


def _backbone(model: str | None, cache: FeatureCache) -> dict[str, Any]:
    """Return the options of an extraction by a model: those of its features in the cache, if there is one spec of it.

    By default it is that of the last extraction in the current folder, or the default of `bottleneck.extract`.
    """
    last = load_last(cache.root) if model is None else None
    name = last.store if last else model
    found = matching(cache.stores(), name) if name else []
    request = found[0].asked() if len(found) == 1 else None
    return {"model": model} if request is None else {**request.options(), "spec": found[0].spec}

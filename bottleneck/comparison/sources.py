"""Features of the same images by several models: what is cached is used, what is missing is extracted."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bottleneck.backbones.catalogue import check_request
from bottleneck.backbones.request import TIMM, Request
from bottleneck.backbones.tuned import WEIGHTS
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import load_last
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError, ImagesError, MissingFeatures, ModelError, RunError, WeightsUnavailable
from bottleneck.extraction.extract import extract
from bottleneck.extraction.memory import LEAST_MEMORY
from bottleneck.fitting.inputs import find_images, select
from bottleneck.fitting.partition import check_labels
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.scan import Progress
from bottleneck.images.splits import Shares
from bottleneck.runs.backbone_request import located_request, spec_of
from bottleneck.runs.run import Run, find_run
from bottleneck.utils.names import RUN, is_path
from bottleneck.utils.paths import expanded


@dataclass(frozen=True)
class Source:
    """The features of one model.

    Parameters
    ----------
    name : str
        As the user wrote it.
    store : Store
    extracted : int
        How many images passed the network now.
    seconds : float or None
        That took; None where all was cached.
    failures : tuple of Failure
    run : Run, optional
        The fine-tuning that they come from, with a head of its own.
    """

    name: str
    store: Store
    extracted: int
    seconds: float | None
    failures: tuple[Failure, ...]
    run: Run | None = None


@dataclass(frozen=True)
class ComparedImages:
    """Images, and their features by each model; those that not all models have are no part of `usable`."""

    dataset: Dataset
    usable: Dataset
    sources: tuple[Source, ...]
    failures: tuple[Failure, ...]


def gather(
    images: "str | os.PathLike[str] | Dataset | None",
    models: Sequence[str],
    *,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    shares: Shares | None = None,
    columns: Columns | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> ComparedImages:
    """Return the features of images by each of some models; see `bottleneck.compare`.

    Later commands still work on what was extracted before.

    Raises
    ------
    ModelError
        If there is no such model.
    ImagesError
        If there are no labels, or no image can be used.
    CacheError
        If no model is named, and none is cached for these images.
    """
    home = FeatureCache(cache)
    wanted: list[str | Request | Run] = [_wanted(home, name, runs) for name in models]  # all, before work begins
    if images is None and models:
        last = load_last(home.root)
        images = last.source if last else "."
    dataset = find_images(images, home, expanded(runs), True, shares, progress, columns)
    check_labels(dataset)
    names = list(models)
    if not names:
        wanted += (names := _cached(home, dataset))
    sources = []
    for name, one in zip(names, wanted, strict=True):
        sources.append(_source(name, one, dataset, cache, runs, memory, progress))
    has = np.all([source.store.has(dataset.digests) for source in sources], axis=0)
    if not has.any():
        raise ImagesError(f"expected images that all models can use, found none of {len(dataset)} in {dataset.source}")
    failures = {failure.path: failure for source in sources for failure in source.failures}
    usable = dataset.subset(np.flatnonzero(has).tolist())
    return ComparedImages(dataset, usable, tuple(sources), tuple(failures.values()))


def request_of(name: str) -> Request:
    """Return what ``MODEL`` or ``MODEL@WEIGHTS`` asks for; the weights are a name, a tag, a file, or ``none``."""
    model, _, weights = name.partition("@")
    return Request(model=model, weights=weights or "DEFAULT")


def _wanted(home: FeatureCache, name: str, runs: str | os.PathLike[str]) -> str | Request | Run:
    """Return a spec's name as it is, a fine-tuned run, and of a model what is asked for.

    Raises
    ------
    ModelError
        If there is no such model.
    RunError
        If a run cannot be read, or is not fine-tuned.
    """
    if _is_run(name):
        return _tuned(runs, name)
    if any(name.startswith(store.name[:-64]) and store.name.startswith(name) for store in home.stores()):
        return name
    request = request_of(name)
    try:
        check_request(request)
    except WeightsUnavailable:
        raise
    except ModelError as error:
        if os.path.isfile(expanded(runs) / name / WEIGHTS):
            raise ModelError(f"{error}. The fine-tuned run of that name is written {RUN}{name}") from error
        raise
    return request


def _is_run(name: str) -> bool:
    """Whether a name is written as that of a run, or as the path of one; ``timm/NAME`` and ``MODEL@PATH`` are not."""
    first = name.replace(os.sep, "/").partition("/")[0]
    return name.startswith(RUN) or (is_path(name) and first != TIMM.rstrip("/") and "@" not in first)


def _tuned(runs: str | os.PathLike[str], name: str) -> Run:
    run = find_run(runs, name)
    if not run.is_tuned:
        raise RunError(f"expected a fine-tuned run, got {run.path}, whose network is {run.features}: name that model")
    return run


def _cached(home: FeatureCache, dataset: Dataset) -> list[str]:
    """Return the names of the specs that have features of most of the images."""
    found = [store.short_name for store in home.stores() if store.has(dataset.digests).mean() > 0.5]
    if not found:
        raise CacheError(f"expected features of {dataset.source} in {home.root}, found none: name models with --models")
    return found


def _source(
    name: str,
    wanted: str | Request | Run,
    dataset: Dataset,
    cache: str | os.PathLike[str],
    runs: str | os.PathLike[str],
    memory: int | None,
    progress: Progress | None,
) -> Source:
    """Return the features of one model; they are extracted where they are missing.

    Raises
    ------
    MissingFeatures
        If some are missing of a spec, and nothing says how it was asked for.
    """
    if isinstance(wanted, str):
        try:
            found = select(dataset, model=wanted, cache=cache, runs=runs)
            return Source(name, found.store, 0, None, found.failures)
        except MissingFeatures:
            asked = FeatureCache(cache).find(wanted).asked()
            if asked is None:
                raise
            wanted = asked
    run = wanted if isinstance(wanted, Run) else None
    request = located_request(wanted.path, wanted.card, expanded(cache)) if isinstance(wanted, Run) else wanted
    options = {**request.options(), "spec": spec_of(run.card) if run else None}
    memory = None if memory is None else max(memory, LEAST_MEMORY)
    done = extract(dataset, **options, cache=cache, runs=runs, memory=memory, remember=False, progress=progress)
    seconds = done.seconds if done.computed else None
    return Source(name, done.store, done.computed, seconds, done.failures, run)

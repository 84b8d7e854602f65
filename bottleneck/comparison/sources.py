"""Collect features of the same images by several models: use cached ones, and extract missing ones."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from bottleneck.fitting.inputs import ImageQuery, select
from bottleneck.fitting.partition import check_labels
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.runs.backbone_request import located_request, spec_of
from bottleneck.runs.run import Run, find_run
from bottleneck.utils.names import RUN, is_path
from bottleneck.utils.paths import expanded

Requested = str | Request | Run  # the name of a spec, a model, or a fine-tuned run


@dataclass(frozen=True)
class Source:
    """The features of one model.

    Parameters
    ----------
    name : str
        As the user wrote it.
    store : Store
    extracted : int
        Number of images that were processed by the network now.
    seconds : float or None
        Duration of the extraction; None if all features were cached.
    failures : tuple of Failure
    run : Run, optional
        The fine-tuned run whose network computed them, and whose head is compared.
    """

    name: str
    store: Store
    extracted: int
    seconds: float | None
    failures: tuple[Failure, ...]
    run: Run | None = None


@dataclass(frozen=True)
class ComparedImages:
    """Images, and their features by each model.

    Parameters
    ----------
    dataset : Dataset
    usable : Dataset
        The images of `dataset` that all models have features of.
    sources : tuple of Source
    failures : tuple of Failure
        Why the other images are left out.
    """

    dataset: Dataset
    usable: Dataset
    sources: tuple[Source, ...]
    failures: tuple[Failure, ...]


def collect_features(query: ImageQuery, models: Sequence[str], *, memory: int | None = None) -> ComparedImages:
    """Return the features of images by each model; see `bottleneck.compare`.

    The default images of later commands do not change.

    Raises
    ------
    ModelError
        If there is no such model.
    ImagesError
        If there are no labels, or no image can be used.
    CacheError
        If no model is named, and none is cached for these images.
    """
    home = query.cache
    requested = [_requested(home, name, query.runs) for name in models]  # checks every name before any extraction
    if query.images is None and models:
        last = load_last(home.root)
        query = replace(query, images=last.source if last else ".")
    dataset = query.find()
    check_labels(dataset)
    names = list(models)
    if not names:
        requested += (names := _cached(home, dataset))
    found = replace(query, images=dataset)
    sources = [_source(name, one, dataset, found, memory) for name, one in zip(names, requested, strict=True)]
    has = np.all([source.store.has(dataset.digests) for source in sources], axis=0)
    if not has.any():
        raise ImagesError(f"expected images that all models can use, found none of {len(dataset)} in {dataset.source}")
    failures = {failure.path: failure for source in sources for failure in source.failures}
    usable = dataset.subset(np.flatnonzero(has).tolist())
    return ComparedImages(dataset, usable, tuple(sources), tuple(failures.values()))


def request_of(name: str) -> Request:
    """Return the request of ``MODEL`` or ``MODEL@WEIGHTS``; the weights are a name, a tag, a file, or ``none``."""
    model, _, weights = name.partition("@")
    return Request(model=model, weights=weights or "DEFAULT")


def _requested(home: FeatureCache, name: str, runs: Path) -> Requested:
    """Return the name of a spec unchanged, the run of that name, or the request of a model.

    Raises
    ------
    ModelError
        If there is no such model.
    RunError
        If a run cannot be read, or is not fine-tuned.
    """
    if names_a_run(name):
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


def names_a_run(name: str) -> bool:
    """Return whether a name is ``run:NAME`` or a path; ``timm/NAME`` and ``MODEL@PATH`` are models."""
    first = name.replace(os.sep, "/").partition("/")[0]
    return name.startswith(RUN) or (is_path(name) and first != TIMM.rstrip("/") and "@" not in first)


def _tuned(runs: Path, name: str) -> Run:
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


def _source(name: str, requested: Requested, dataset: Dataset, query: ImageQuery, memory: int | None) -> Source:
    """Return the features of one model; extract those that are missing.

    Raises
    ------
    MissingFeatures
        If a spec lacks some, and the cache does not record how its backbone was built.
    """
    cache, runs = query.cache.root, query.runs
    if isinstance(requested, str):
        try:
            found = select(dataset, model=requested, cache=cache, runs=runs)
            return Source(name, found.store, 0, None, found.failures)
        except MissingFeatures:
            request = query.cache.find(requested).asked()
            if request is None:
                raise
            requested = request
    run, spec = None, None
    if isinstance(requested, Run):
        run, spec = requested, spec_of(requested.card)
        requested = located_request(run.path, run.card, expanded(cache))
    done = extract(
        dataset,
        **requested.options(),
        spec=spec,
        cache=cache,
        runs=runs,
        memory=None if memory is None else max(memory, LEAST_MEMORY),
        remember=False,
        progress=query.progress,
    )
    return Source(name, done.store, done.computed, done.seconds if done.computed else None, done.failures, run)

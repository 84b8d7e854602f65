"""Find the backbone and the images of a run, also after they have moved."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.tuned import WEIGHTS
from bottleneck.backbones.weights_files import RecordedRequest
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import CacheError, ModelError, RunError, WeightsUnavailable
from bottleneck.utils.paths import moved

Card = dict[str, Any]


def located_request(path: Path, card: Card, cache: Path | None = None) -> Request:
    """Return the request that builds the backbone of a run, in the precision of its features.

    Parameters
    ----------
    path : Path
        The run's folder.
    card : dict
    cache : Path, optional
        A cache, which records where a weights file was when features were last computed.

    Returns
    -------
    Request
        With the current path of the weights file, or its old path if it is not found.

    Raises
    ------
    RunError
        If the card does not record the request.
    """
    own = path.absolute() / WEIGHTS
    try:
        recorded = RecordedRequest(card["request"], path)
        if card.get("own_weights"):
            found = replace(recorded.request, weights=str(own))
        else:
            found = recorded.located(path.absolute().parents[:2])  # the folder of runs, and its parent
            if not is_there(found) and cache and (known := _store_request(card, cache)) and is_there(known):
                found = replace(found, weights=known.weights)
            if not is_there(found) and own.is_file():  # of a fine-tuning that did not change its backbone
                found = replace(found, weights=str(own), restore_exclude=(), allow_partial=False)
        return replace(found, precision=card["spec"]["precision"])
    except (KeyError, ModelError):
        raise RunError(f"{path}/card.json does not record how its backbone was built: extract and fit again") from None


@contextmanager
def needing_weights(path: Path, card: Card) -> Iterator[None]:
    """Raise an error that names the file if the weights file of a run is missing."""
    try:
        yield
    except WeightsUnavailable as error:
        recorded = RecordedRequest(card["request"], path)
        if recorded.request.file is None or card.get("own_weights"):
            raise
        raise recorded.missing() from error


def located_source(path: Path, card: Card) -> Path:
    """Return the path of the images that a run was trained on, also after both have moved.

    Raises
    ------
    RunError
        If the card does not record it.
    """
    dataset = card["dataset"]
    if "source" not in dataset:
        raise RunError(f"{path}/card.json does not record which images it was trained on: name IMAGES")
    return moved(dataset["source"], dataset.get("place"), path, [path.absolute().parents[1]])


def spec_of(card: Card) -> Spec:
    """Return the spec of the features of a run.

    Raises
    ------
    CacheError
        If the card has none, or one of another version.
    """
    return Spec.from_json(card["spec"])


def is_there(request: Request) -> bool:
    """Return whether the weights file of a request exists, or it needs none."""
    return request.file is None or os.path.isfile(request.file)


def _store_request(card: Card, cache: Path) -> Request | None:
    with suppress(CacheError):
        return FeatureCache(cache).store(spec_of(card)).asked()
    return None

"""How the backbone of a run is asked for, and its images, wherever both have moved."""

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
    """Return how the backbone of a run is asked for, in the precision of its features.

    Parameters
    ----------
    path : Path
        The run's folder.
    card : dict
    cache : Path, optional
        Knows where a weights file was when its features were computed last.

    Returns
    -------
    Request
        With the weights file where it is now, or where it was, if it is nowhere.

    Raises
    ------
    RunError
        If the card does not tell.
    """
    own = path.absolute() / WEIGHTS
    try:
        recorded = RecordedRequest(card["request"], path)
        if card.get("own_weights"):
            found = replace(recorded.request, weights=str(own))
        else:
            found = recorded.located(path.absolute().parents[:2])  # the folder of runs, and what it lies in
            if not is_there(found) and cache and (known := _store_request(card, cache)) and is_there(known):
                found = replace(found, weights=known.weights)
            if not is_there(found) and own.is_file():  # of a fine-tuning that left its backbone as it was
                found = replace(found, weights=str(own), restore_exclude=(), allow_partial=False)
        return replace(found, precision=card["spec"]["precision"])
    except (KeyError, ModelError):
        raise RunError(
            f"no word in {path}/card.json on how its backbone was asked for: extract and fit again"
        ) from None


@contextmanager
def needing_weights(path: Path, card: Card) -> Iterator[None]:
    """Convert the error of a run's weights file that is nowhere into one that says which it is."""
    try:
        yield
    except WeightsUnavailable as error:
        recorded = RecordedRequest(card["request"], path)
        if recorded.request.file is None or card.get("own_weights"):
            raise
        raise recorded.missing() from error


def located_source(path: Path, card: Card) -> Path:
    """Return the images that a run was trained on, which may have moved together with it.

    Raises
    ------
    RunError
        If the card does not tell.
    """
    told = card["dataset"]
    if "source" not in told:
        raise RunError(
            f"expected to find in {path}/card.json which images it was trained on, it does not tell: name IMAGES"
        )
    return moved(told["source"], told.get("place"), path, [path.absolute().parents[1]])


def spec_of(card: Card) -> Spec:
    """Return the spec of the features that the head of a run takes.

    Raises
    ------
    CacheError
        If the card's is of another version, or none.
    """
    return Spec.from_json(card["spec"])


def is_there(request: Request) -> bool:
    """Whether the weights of a request are no file, or one that is there."""
    return request.file is None or os.path.isfile(request.file)


def _store_request(card: Card, cache: Path) -> Request | None:
    with suppress(CacheError):
        return FeatureCache(cache).store(spec_of(card)).asked()
    return None

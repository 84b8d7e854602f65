"""From a request to a backbone; torch is imported only here and below."""

import difflib
import warnings
from collections.abc import Callable

import torch

from bottleneck.backbones import bundled, torchvision_models
from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.request import Request
from bottleneck.errors import BottleneckWarning, ModelError


def names() -> list[str]:
    """Return the names of all backbones, sorted."""
    return sorted([*bundled.NAMES, *torchvision_models.names()])


def load(request: Request) -> Backbone:
    """Build the backbone that `request` names.

    Returns
    -------
    Backbone
        Frozen, in eval mode, on the CPU.

    Raises
    ------
    ModelError
        If there is no such backbone (the nearest names are given), or its weights do not fit.
    WeightsUnavailable
        If its weights are not on this machine and cannot be fetched.

    Warns
    -----
    BottleneckWarning
        If the weights are random.
    """
    if request.random:
        warnings.warn(
            f"{request.model} has random weights (seed {request.seed}): its features tell little about images",
            BottleneckWarning,
            stacklevel=2,
        )
    if request.model in bundled.NAMES:
        return _seeded(bundled.build, request)
    if request.model in torchvision_models.names():
        return _seeded(torchvision_models.build, request)
    nearest = difflib.get_close_matches(request.model.lower(), names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"some are {', '.join(names()[:5])}"
    raise ModelError(
        f"expected the name of a torchvision classifier or efficientnet_lite0, got {request.model!r}; {hint}"
    )


def _seeded(build: Callable[[Request], Backbone], request: Request) -> Backbone:
    """Build with the request's seed, and leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        return build(request)

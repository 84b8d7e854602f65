"""A network of a few channels, and engines that are closed after each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.spec import Spec
from bottleneck.engines.torch_engine import TorchEngine


@pytest.fixture
def tiny(spec: Spec) -> Backbone:
    """Return a backbone of 16 features whose batch norms have non-trivial statistics."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    for norm in (network[1], network[4]):
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 1.5)
    return Backbone(network.eval().requires_grad_(False), spec, 16)


@pytest.fixture
def make() -> Iterator[Callable[..., TorchEngine]]:
    """Return a function that makes engines of torch, which are closed after the test."""
    with ExitStack() as stack:

        def function(*args: Any, **options: Any) -> TorchEngine:
            return stack.enter_context(closing(TorchEngine(*args, **{"device": "cpu", **options})))

        yield function

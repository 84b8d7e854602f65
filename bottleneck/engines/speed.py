"""Measure engines on a small seeded network: a figure to compare machines by, within about a second each."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.engines.engine import Engine
from bottleneck.engines.factory import EngineFactory
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.probe import PROBES, probe_images

if TYPE_CHECKING:
    from torch import nn

    from bottleneck.backbones.backbone import Backbone

SIDE = 224  # pixels
_CHANNELS = (32, 64, 128, 256)
_STRIDES = (4, 2, 2, 2)
_SEED = 0


@dataclass(frozen=True)
class EngineSpeed:
    """Speed of one engine.

    Parameters
    ----------
    name, precision : str
        As those of `bottleneck.engines.engine.Engine`.
    images_per_second : float
    """

    name: str
    precision: str
    images_per_second: float


def torch_speed(seconds: float, precision: str | None = None) -> EngineSpeed:
    """Measure torch on its default device, in the fastest precision that the device has natively.

    Parameters
    ----------
    seconds : float
        How long to measure.
    precision : str, optional

    Raises
    ------
    ModelError
        If torch cannot use the device.
    """
    factory = EngineFactory()
    device = factory.torch_device(None)
    chosen = precision or (factory.gpu_precision(device) if device.type != "cpu" else "fp32")
    return measured(factory.torch(seeded_backbone(), chosen, EngineOptions()), seconds)


def openvino_speed(seconds: float, precision: str | None = None) -> EngineSpeed:
    """Measure OpenVINO, in bf16 if the CPU has instructions for it.

    Parameters
    ----------
    seconds : float
        How long to measure.
    precision : str, optional

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    ModelError
        If it cannot run the network.
    """
    factory = EngineFactory()
    chosen = precision or ("bf16" if factory.machine.native_bf16() else "fp32")
    backbone = seeded_backbone()
    return measured(factory.openvino(factory.convert(backbone, chosen, 8), chosen), seconds)


def measured(engine: Engine, seconds: float, clock: Callable[[], float] = time.perf_counter) -> EngineSpeed:
    """Return the speed of an engine, with as many batches at once as it wants, and close it.

    Parameters
    ----------
    engine : Engine
    seconds : float
        How long to measure, after a first batch that warms it up.
    clock : callable
        Returns seconds.
    """
    photos = probe_images(SIDE, SIDE)
    pixels = np.concatenate([photos] * -(-engine.batch_size // PROBES))[: engine.batch_size]
    try:
        with ThreadPoolExecutor(engine.parallel) as pool:
            list(pool.map(engine, [pixels] * engine.parallel))
            start = clock()
            done = sum(pool.map(lambda _: _batches(engine, pixels, start + seconds, clock), range(engine.parallel)))
            passed = clock() - start
    finally:
        engine.close()
    return EngineSpeed(engine.name, engine.precision, done * len(pixels) / passed)


def _batches(engine: Engine, pixels: NDArray[np.uint8], end: float, clock: Callable[[], float]) -> int:
    """Return how many batches one thread computes until `end`: one or more."""
    count = 0
    while not count or clock() < end:
        engine(pixels)
        count += 1
    return count


def seeded_backbone() -> "Backbone":
    """Return a network of 8 convolutions with seeded random weights; it takes 0.32 GFLOP per image."""
    import torch

    from bottleneck.backbones.backbone import Backbone
    from bottleneck.backbones.spec import Spec
    from bottleneck.images.preprocessing import Preprocessing

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = torch.nn.Sequential(*_layers()).eval().requires_grad_(False)
    preprocessing = Preprocessing(
        resize=SIDE, crop=SIDE, interpolation="bilinear", antialias=True, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    spec = Spec(
        backbone="seeded",
        weights="0" * 64,
        layer="pool",
        pooling="avg",
        preprocessing=preprocessing,
        transform_input=False,
        precision="fp32",
        decoder=0,
    )
    return Backbone(network, spec, _CHANNELS[-1])


def _layers() -> "Iterator[nn.Module]":
    from torch import nn

    before = 3
    for channels, stride in zip(_CHANNELS, _STRIDES, strict=True):
        for step in (stride, 1):
            yield nn.Conv2d(before, channels, 3, step, 1, bias=False)
            yield nn.BatchNorm2d(channels)
            yield nn.ReLU()
            before = channels
    yield nn.AdaptiveAvgPool2d(1)
    yield nn.Flatten()

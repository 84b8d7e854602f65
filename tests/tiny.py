"""A backbone without torch, for tests of all that happens around one: its features are some of the pixels."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.engines.options import EngineOptions
from bottleneck.extraction import extract
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.plan import EngineStart, Plan
from bottleneck.images.decode import decode
from bottleneck.images.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(
    resize=16, crop=12, interpolation="bilinear", antialias=True, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
)
SPEC = Spec(
    backbone="tiny",
    weights="0" * 64,
    layer="fc:input",
    pooling="avg",
    preprocessing=PREPROCESSING,
    transform_input=False,
    precision="fp32",
    decoder=1,
)
DIM = 16


class TinyEngine:
    """An engine that counts what it is given.

    Parameters
    ----------
    batch_size : int
    before : callable, optional
        Called before each batch.
    """

    name = "tiny"
    precision = "fp32"
    parallel = 1

    def __init__(self, batch_size: int = 4, before: Callable[[], object] | None = None) -> None:
        self.batch_size = batch_size
        self.batches: list[int] = []
        self._before = before

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        if self._before:
            self._before()
        assert 0 < len(pixels) <= self.batch_size
        self.batches.append(len(pixels))
        return pixels.reshape(len(pixels), -1)[:, ::27].astype(np.float32) / 255

    def close(self) -> None:
        pass


def plan_features(
    request: Request, options: EngineOptions, cache: FeatureCache, images: object, spec: Spec | None = None
) -> Plan:
    """Replace `bottleneck.extraction.plan.plan_features`."""
    return Plan(request, options, cache, SPEC, built=True)


def start_engine(plan: Plan, sample: object, before: Callable[[], object] | None = None) -> EngineStart:
    """Replace `bottleneck.extraction.plan.start_engine`."""
    engine = TinyEngine(plan.options.batch_size or 4, before)
    return EngineStart(engine, replace(plan, engine=engine.name))


def digest(data: bytes) -> np.ndarray:
    """Return the digest of an image, as an array (1, 32)."""
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8).reshape(1, 32)


def features(data: bytes) -> np.ndarray:
    """Return the features of an image, as an array (1, DIM)."""
    return TinyEngine()(decode(data, PREPROCESSING).pixels[None])


TOOLS = {"plan_features": plan_features, "start_engine": start_engine}


def use(monkeypatch: Any, before: Callable[[], object] | None = None, **tools: Any) -> None:
    """Let `extract` use the tiny backbone for any model, and call `before` before each batch."""
    if before:
        tools["start_engine"] = partial(start_engine, before=before)
    monkeypatch.setattr(extract, "Collaborators", partial(Collaborators, **{**TOOLS, **tools}))


def use_for_ever(**tools: Any) -> None:
    """Do the same in a process that ends after it."""
    extract.Collaborators = partial(Collaborators, **{**TOOLS, **tools})

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import bottleneck.cache.shard
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from tests.faults import Wrap


@pytest.fixture
def cache() -> FeatureCache:
    return FeatureCache("cache")


@pytest.fixture
def store(cache: FeatureCache, spec: Spec) -> Store:
    return cache.store(spec)


@pytest.fixture
def activations(cache: FeatureCache, spec: Spec) -> Store:
    """Return a store of activations, of the same network as `store`."""
    return cache.activations().store(replace(spec, layer="layer3", pooling="none"))


@pytest.fixture
def no_sync(wrap: Wrap) -> None:
    """Do without fsync, which only matters when the power fails."""
    wrap(os, "fsync", lambda call, descriptor: None)


@pytest.fixture
def when_opened(wrap: Wrap) -> Callable[..., None]:
    """Return a function that makes shards be opened by another function, which gets `open` and its arguments."""
    return lambda opener: wrap(bottleneck.cache.shard, "open", opener)


@pytest.fixture
def opened(when_opened: Callable[..., None]) -> list[str]:
    """Return the list of the names of shards that are opened from now on."""
    names: list[str] = []

    def spy(call: Callable[..., object], path: Path, *args: object, **options: object) -> object:
        names.append(Path(path).stem)
        return call(path, *args, **options)

    when_opened(spy)
    return names

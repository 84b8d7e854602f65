from dataclasses import replace
from pathlib import Path

import pytest

import bottleneck.cache.shard
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def store(cache: FeatureCache, spec: Spec) -> Store:
    return cache.store(spec)


@pytest.fixture
def activations(cache: FeatureCache, spec: Spec) -> Store:
    """Return a store of activations, of the same network as `store`."""
    return cache.activations().store(replace(spec, layer="layer3", pooling="none"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of shards that are opened from now on."""
    names: list[str] = []

    def spy(path: Path, *args: object, **options: object) -> object:
        names.append(Path(path).stem)
        return open(path, *args, **options)

    monkeypatch.setattr(bottleneck.cache.shard, "open", spy, raising=False)
    return names

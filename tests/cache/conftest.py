from pathlib import Path

import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.cache.store import FeatureCache, Store


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def store(cache: FeatureCache, spec: Spec) -> Store:
    return cache.store(spec)

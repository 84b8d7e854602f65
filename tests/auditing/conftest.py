"""Small real images with made-up features, as if they were extracted."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, save_last
from bottleneck.cache.scans import save_scan
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import scan
from tests.conftest import photo, write

DIM = 64
Extracted = Callable[..., Dataset]


def class_features(codes: Sequence[int], spread: float = 1.0, seed: int = 0) -> NDArray[np.float32]:
    """Return features around the centre of each image's class, which are easy to tell apart."""
    random = np.random.default_rng(seed)
    centres = 3 * random.normal(size=(max(codes) + 1, DIM))
    return (6 + centres[list(codes)] + spread * random.normal(size=(len(codes), DIM))).astype(np.float32)


def cache_features(
    spec: Spec,
    names: Sequence[str],
    features: NDArray[np.float32],
    pictures: Sequence[bytes] | None = None,
    first: int = 1000,
) -> Dataset:
    """Write images below ``images/``, scan them, and cache their features; `first` is the seed of the first picture."""
    for number, name in enumerate(names):
        write(Path("images") / name, pictures[number] if pictures else photo(first + number))
    dataset = scan("images", labels=all("/" in name for name in names))
    row_of = {f"images/{name}": row for row, name in enumerate(names)}
    store = FeatureCache("cache").store(spec)
    rows = dataset.first_rows().tolist()
    store.append(dataset.digests[rows], np.stack([features[row_of[dataset.paths[row]]] for row in rows]))
    store.remember_request({"model": "resnet18", "weights": "none", "seed": 0})
    save_scan(Path("cache"), dataset)
    save_last(Path("cache"), Last(str(dataset.source), dataset.labelled, store.name))
    return dataset


def with_wrong_labels(per_class: int) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and features of two classes with three wrong labels, and an outlier."""
    codes = np.repeat([0, 1], per_class)
    features = class_features(codes.tolist())
    between = features[per_class:].mean(axis=0) - features[:per_class].mean(axis=0)
    aside = 40 * np.random.default_rng(9).normal(size=DIM)
    features[5] += aside - between * (aside @ between) / (between @ between)  # it stays on the side of its class
    labels = np.array(["ant", "bee"])[codes]
    labels[[10, 20]], labels[per_class + 10] = "bee", "ant"
    return [f"{label}/{number:03d}.jpg" for number, label in enumerate(labels.tolist())], features


@pytest.fixture
def extracted(spec: Spec) -> Extracted:
    """Return `cache_features`, which writes into the current folder."""
    return partial(cache_features, spec)

"""Images that are known by a number: their digests, features and shards."""

import hashlib
import os
from pathlib import Path

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.images.keys import as_digests

D = 6


def digests(*numbers: int) -> np.ndarray:
    """Return the digests of images that are known by a number."""
    return as_digests([hashlib.sha256(str(number).encode()).digest() for number in numbers])


def features(*numbers: int, dtype: str = "float32") -> np.ndarray:
    """Return the features of images that are known by a number."""
    return np.array([np.random.default_rng(number).normal(size=D) for number in numbers], dtype).reshape(-1, D)


def add(store: Store, *numbers: int, dtype: str = "float32") -> Path:
    """Append one shard and return its path."""
    before = set(store.shards())
    store.append(digests(*numbers), features(*numbers, dtype=dtype))
    (path,) = set(store.shards()) - before
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def overwrite(path: Path, data: bytes) -> None:
    """Change a shard in place, at a time that no clock takes for that of its writing."""
    path.write_bytes(data)
    os.utime(path, (1, 1))


def flip_a_feature(path: Path, *numbers: int) -> None:
    """Change one bit of the features in a shard of these images."""
    data = bytearray(path.read_bytes())
    data[data.index(features(*numbers).tobytes()) + 3] ^= 0x40
    overwrite(path, data)

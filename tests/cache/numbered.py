"""Images that are known by a number: their digests, features and shards; and damage to shards."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.index import save_entry
from bottleneck.cache.scans import save_scan
from bottleneck.cache.shard import Rows
from bottleneck.cache.store import Store
from bottleneck.images.dataset import Dataset
from bottleneck.images.digest import signature
from bottleneck.images.keys import as_digests

D = 6


def digests(*numbers: int) -> np.ndarray:
    """Return the digests of images that are known by a number."""
    return as_digests([hashlib.sha256(str(number).encode()).digest() for number in numbers])


def features(*numbers: int, dtype: str = "float32") -> np.ndarray:
    """Return the features of images that are known by a number."""
    return np.array([np.random.default_rng(number).normal(size=D) for number in numbers], dtype).reshape(-1, D)


def rows(*numbers: int, dtype: str = "float32") -> Rows:
    return Rows(digests(*numbers), features(*numbers, dtype=dtype))


def add(store: Store, *numbers: int, dtype: str = "float32") -> Path:
    """Append one shard and return its path."""
    before = set(store.shards())
    store.append(digests(*numbers), features(*numbers, dtype=dtype))
    (path,) = set(store.shards()) - before
    return path


def served(store: Store, *numbers: int) -> bool:
    """Return whether a store gives the features of these images."""
    return np.array_equal(store.read(digests(*numbers)), features(*numbers))


def scan(root: Path, *numbers: int, source: str = "/images") -> None:
    """Save a scan of these images in a cache."""
    none = (None,) * len(numbers)
    paths = tuple(f"{source}/{number}.jpg" for number in numbers)
    save_scan(
        root,
        Dataset(
            source=Path(source), paths=paths, digests=digests(*numbers), labels=none, given_splits=none, groups=none
        ),
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def named(path: Path) -> Path:
    """Name a file by the hash of its bytes."""
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.h5"))


def overwrite(path: Path, data: bytes) -> None:
    """Change a shard in place, at a time that no clock takes for that of its writing."""
    path.write_bytes(data)
    os.utime(path, (1, 1))


def flip_a_feature(path: Path, *numbers: int) -> None:
    """Change one bit of the features in a shard of these images."""
    data = bytearray(path.read_bytes())
    data[data.index(features(*numbers).tobytes()) + 3] ^= 0x40
    overwrite(path, data)


def damage_behind_the_memo(store: Store, *numbers: int) -> Path:
    """Append a shard and damage it such that its memo still fits: only reading it shows the damage."""
    path = add(store, *numbers)
    entry = store.index().entries[path.stem]
    flip_a_feature(path, *numbers)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)
    assert store.has(digests(*numbers)).all()
    return path


@contextmanager
def case(*names: object) -> Iterator[None]:
    """Name a case of a table where it fails."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        raise AssertionError(f"in the case {', '.join(map(str, names))}: {error!r}") from error

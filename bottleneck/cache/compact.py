"""Join many small shards into few, on demand and after writing. Safe against kills and concurrent readers and writers.

The new shard is durable before an old one is deleted, so every row is visible at any time, perhaps twice. A reader that
finds an old shard deleted lists the folder again. A shard is deleted only if a shard of a higher rank has all its rows,
so the highest-ranking shard that ever contained a row is never deleted. Therefore no row can be lost, whatever other
jobs do at the same time, even if the lock of `bottleneck.cache.lock` fails.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from bottleneck.cache.index import Index
from bottleneck.cache.lock import PATIENCE, maintenance
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.shard import Rows
from bottleneck.errors import CacheError
from bottleneck.images.keys import DigestSet


@dataclass(frozen=True)
class ShardSizes:
    """How large shards are.

    Parameters
    ----------
    rows, bytes : int
        Rows, and bytes of features, of a full shard; writing one takes twice as much memory, reading it once.
    chunk_bytes : int
        Bytes of features or digests per HDF5 chunk.
    many : int
        Number of small shards of similar size that are joined.
    at_once : int
        Maximum number of shards that one append joins, in about a second.
    """

    rows: int = 16_384
    bytes: int = 64 << 20
    chunk_bytes: int = 1 << 20
    many: int = 32
    at_once: int = 1024

    def full(self, entry: ShardEntry) -> int:
        """Return the number of rows of a full shard."""
        return min(self.rows, max(1, self.bytes // (entry.dim * np.dtype(entry.dtype).itemsize)))

    def power(self, rows: int) -> int:
        """Return the largest p with ``many**p <= rows``."""
        power = 0
        while rows >= self.many:
            rows, power = rows // self.many, power + 1
        return power


SHARD_SIZES = ShardSizes()


class ShardStore(Protocol):
    """The methods of `bottleneck.cache.store.Store` that joining its shards needs."""

    @property
    def folder(self) -> Path:
        """Folder of the store."""

    @property
    def sizes(self) -> ShardSizes:
        """Sizes of its shards."""

    def index(self) -> Index:
        """Return the index of the images that have features."""

    def shards(self) -> list[Path]:
        """Return the paths of all shards."""

    def load(self, name: str) -> Rows | None:
        """Return the rows of one shard; None if it is invalid or no longer exists."""

    def commit(self, rows: Rows) -> str:
        """Write one shard and return its name."""

    def drop(self, name: str) -> None:
        """Delete one shard."""


@dataclass(frozen=True)
class Compaction:
    """Number of shards before and after."""

    before: int
    after: int

    def to_json(self) -> dict[str, int]:
        """Return a JSON object."""
        return dict(vars(self))


def compact(store: ShardStore, *, patience: float = PATIENCE) -> Compaction:
    """Join the small shards of a store.

    Parameters
    ----------
    store : ShardStore
    patience : float
        Seconds to wait for another maintenance job to finish.

    Raises
    ------
    CacheError
        If the store cannot be written, or another maintenance job is running. No row is lost.
    """
    with maintenance(store.folder, patience=patience):
        index = store.index()
        for group in _groups(index, _small(index, store.sizes), store.sizes):
            _join(store, group)
        return Compaction(len(index.entries), len(store.shards()))


def join_small(store: ShardStore, recent: Sequence[str]) -> None:
    """Join small shards if there are many of similar size, which keeps their number low however small the commits are.

    Sizes are grouped by powers of 32: as soon as 32 shards have 1 to 31 rows they are joined into one, 32 of these into
    one of 1,024 rows or more, and so on up to full shards. So a store has about a hundred small shards at most, and a
    row is written about four times, as in a log-structured merge tree (O'Neil et al. 1996).

    Write at most one shard. Do nothing if another maintenance job is running or the store cannot be written; the next
    commit tries again.

    Parameters
    ----------
    store : ShardStore
    recent : sequence of str
        Names of shards that were just written; they are not joined.
    """
    sizes = store.sizes
    if len(store.shards()) < sizes.many:
        return
    with suppress(CacheError):
        if not _joinable(store.index(), recent, sizes):
            return
        with maintenance(store.folder):
            index = store.index()  # another process may have joined them by now
            for group in islice(_groups(index, _joinable(index, recent, sizes), sizes), 1):
                _join(store, group)


def _joinable(index: Index, recent: Sequence[str], sizes: ShardSizes) -> list[str]:
    """Return the names of the smallest shards of similar size, if there are many."""
    similar: dict[tuple[int, int, str], list[str]] = {}
    for name in _small(index, sizes):
        entry = index.entries[name]
        if name not in recent:
            similar.setdefault((sizes.power(len(entry)), entry.dim, entry.dtype), []).append(name)
    return next((names[: sizes.at_once] for _, names in sorted(similar.items()) if len(names) >= sizes.many), [])


def _small(index: Index, sizes: ShardSizes) -> list[str]:
    """Return the names of the shards that are at most half full, smallest first."""
    ranked = sorted(index.entries.items(), key=lambda item: (len(item[1]), item[0]))
    return [name for name, entry in ranked if len(entry) <= sizes.full(entry) // 2]


def _groups(index: Index, small: Sequence[str], sizes: ShardSizes) -> Iterator[list[str]]:
    """Yield groups of small shards that fit into one full shard each."""
    kinds: dict[tuple[int, str], list[str]] = {}
    for name in small:
        entry = index.entries[name]
        kinds.setdefault((entry.dim, entry.dtype), []).append(name)
    for names in kinds.values():
        group: list[str] = []
        count = 0
        for name in names:
            entry = index.entries[name]
            if group and count + len(entry) > sizes.full(entry):
                yield group
                group, count = [], 0
            group.append(name)
            count += len(entry)
        if len(group) > 1:
            yield group


def _join(store: ShardStore, names: Sequence[str]) -> None:
    """Write the rows of several shards as one, then delete these shards."""
    parts = {name: rows for name in names if (rows := store.load(name)) is not None}
    if len(parts) < 2:
        return
    digests = np.concatenate([rows.digests for rows in parts.values()])
    features = np.concatenate([rows.features for rows in parts.values()])
    keep = DigestSet(digests).sorted_rows
    joined = store.commit(Rows(digests[keep], features[keep]))
    rank = {name: (_distinct_images(rows), name) for name, rows in parts.items()} | {joined: (len(keep), joined)}
    # Usually the joined shard, unless an old one has the same images and a higher rank by its name.
    highest = max(rank, key=rank.__getitem__)
    for name in rank:
        if name != highest:
            store.drop(name)


def _distinct_images(rows: Rows) -> int:
    return len(DigestSet(rows.digests))

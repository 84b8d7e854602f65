"""Many small shards become few: on demand, and as they are written. Safe against kills, and beside readers and writers.

The new shard is durable before an old one goes, so every row is visible at any moment, perhaps twice. A reader that
listed the folder before finds an old shard gone and lists it again. A shard is deleted only for one of a higher rank
that has all its rows; so among the shards that ever held a row, the highest is never deleted, whatever other jobs do at
the same time: no row can be lost, even where the lock of `bottleneck.cache.lock` does not hold.
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

_ROWS = 16_384  # of a full shard
_BYTES = 64 << 20  # of its features; no more than `Store.append` puts into one
_MANY = 32  # small shards of about one size, which are then joined
_AT_ONCE = 1024  # shards that one append joins at most, in about a second


class Shards(Protocol):
    """The shards of one spec: the methods of `bottleneck.cache.store.Store` that joining them takes."""

    @property
    def folder(self) -> Path:
        """The folder of the store."""

    def index(self) -> Index:
        """Return which images have features, and in which shard."""

    def shards(self) -> list[Path]:
        """Return the paths of all shards."""

    def load(self, name: str) -> Rows | None:
        """Return the rows of one shard; None where it cannot be used."""

    def commit(self, rows: Rows) -> str:
        """Write one shard and return its name."""

    def drop(self, name: str) -> None:
        """Delete one shard."""


@dataclass(frozen=True)
class Compaction:
    """How many shards a store had, and has now."""

    before: int
    after: int

    def to_json(self) -> dict[str, int]:
        """Return a JSON object."""
        return dict(vars(self))


def compact(store: Shards) -> Compaction:
    """Join the small shards of a store.

    Raises
    ------
    CacheError
        If the store cannot be written, or another maintenance job is at work. Nothing is lost.
    """
    with maintenance(store.folder, patience=PATIENCE):
        index = store.index()
        for group in _groups(index, _small(index)):
            _join(store, group)
        return Compaction(len(index.entries), len(store.shards()))


def join_small(store: Shards, fresh: Sequence[str]) -> None:
    """Join small shards where there are many of about one size, so that there are few however small the commits are.

    Sizes are told apart by powers of 32: as soon as 32 shards have 1 to 31 rows they become one, 32 of these become one
    of 1,024 rows or more, and so on up to full shards. So a store has about a hundred small shards at most, and a row
    is written about four times, as in a log-structured merge tree (O'Neil et al. 1996).

    Write one shard at most. Do nothing where another job is at work on the store, or it cannot be written: the next
    commit tries again.

    Parameters
    ----------
    store : Shards
    fresh : sequence of str
        Names of shards that were written just now, and stay.
    """
    if len(store.shards()) < _MANY:
        return
    with suppress(CacheError):
        if not _crowd(store.index(), fresh):
            return
        with maintenance(store.folder):
            index = store.index()  # another process may have joined them meanwhile
            for group in islice(_groups(index, _crowd(index, fresh)), 1):
                _join(store, group)


def _crowd(index: Index, fresh: Sequence[str]) -> list[str]:
    """Return the names of the smallest shards of about one size, if there are many."""
    sizes: dict[tuple[int, int, str], list[str]] = {}
    for name in _small(index):
        entry = index.entries[name]
        if name not in fresh:
            sizes.setdefault((_power(len(entry)), entry.dim, entry.dtype), []).append(name)
    return next((names[:_AT_ONCE] for _, names in sorted(sizes.items()) if len(names) >= _MANY), [])


def _power(rows: int) -> int:
    """Return the largest power of 32 that a number of rows reaches."""
    power = 0
    while rows >= _MANY:
        rows, power = rows // _MANY, power + 1
    return power


def _small(index: Index) -> list[str]:
    """Return the names of the shards that are not half full, those of the fewest rows first."""
    ranked = sorted(index.entries.items(), key=lambda item: (len(item[1]), item[0]))
    return [name for name, entry in ranked if len(entry) <= _full(entry) // 2]


def _groups(index: Index, small: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names of small shards that together make at most a full one."""
    kinds: dict[tuple[int, str], list[str]] = {}
    for name in small:
        entry = index.entries[name]
        kinds.setdefault((entry.dim, entry.dtype), []).append(name)
    for names in kinds.values():
        group: list[str] = []
        count = 0
        for name in names:
            entry = index.entries[name]
            if group and count + len(entry) > _full(entry):
                yield group
                group, count = [], 0
            group.append(name)
            count += len(entry)
        if len(group) > 1:
            yield group


def _full(entry: ShardEntry) -> int:
    """Return how many rows a full shard has."""
    return min(_ROWS, max(1, _BYTES // (entry.dim * np.dtype(entry.dtype).itemsize)))


def _join(store: Shards, names: Sequence[str]) -> None:
    """Write the rows of some shards as one, and then delete them."""
    parts = {name: rows for name in names if (rows := store.load(name)) is not None}
    if len(parts) < 2:
        return
    digests = np.concatenate([rows.digests for rows in parts.values()])
    features = np.concatenate([rows.features for rows in parts.values()])
    keep = DigestSet(digests).sorted_rows
    joined = store.commit(Rows(digests[keep], features[keep]))
    rank = {name: (_distinct(rows), name) for name, rows in parts.items()} | {joined: (len(keep), joined)}
    # Usually the joined one. Else an old one has the same images, and a higher rank by its name.
    highest = max(rank, key=rank.__getitem__)
    for name in rank:
        if name != highest:
            store.drop(name)


def _distinct(rows: Rows) -> int:
    return len(DigestSet(rows.digests))

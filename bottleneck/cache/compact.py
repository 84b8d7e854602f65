"""Many small shards become few. Safe against kills, and beside readers and writers.

The new shard is durable before an old one goes, so every row is visible at any moment, perhaps twice. A reader that
listed the folder before finds an old shard gone and lists it again. A shard is deleted only for one of a higher rank
that has all its rows; so among the shards that ever held a row, the highest is never deleted, whatever other jobs do at
the same time: no row can be lost, even where the lock of `bottleneck.cache.lock` does not hold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bottleneck.cache.index import Entry, Index
from bottleneck.cache.lock import maintenance
from bottleneck.cache.shard import Rows
from bottleneck.cache.store import Store
from bottleneck.images.keys import DigestSet

_ROWS = 16_384  # of a full shard
_BYTES = 64 << 20  # of its features; no more than `Store.append` puts into one


@dataclass(frozen=True)
class Compaction:
    """How many shards a store had, and has now."""

    before: int
    after: int


def compact(store: Store) -> Compaction:
    """Join the small shards of a store.

    Raises
    ------
    CacheError
        If the store cannot be written, or another maintenance job is at work. Nothing is lost.
    """
    with maintenance(store.folder):
        index = store.index()
        for group in _groups(index):
            _join(store, group)
        return Compaction(len(index.entries), len(store.shards()))


def _groups(index: Index) -> Iterator[list[str]]:
    """Yield the names of small shards that together make at most a full one."""
    kinds: dict[tuple[int, str], list[str]] = {}
    for name, entry in sorted(index.entries.items(), key=lambda item: (len(item[1]), item[0])):
        if len(entry) <= _full(entry) // 2:
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


def _full(entry: Entry) -> int:
    """Return how many rows a full shard has."""
    return min(_ROWS, max(1, _BYTES // (entry.dim * np.dtype(entry.dtype).itemsize)))


def _join(store: Store, names: Sequence[str]) -> None:
    """Write the rows of some shards as one, and then delete them."""
    parts = {name: rows for name in names if (rows := store.load(name)) is not None}
    if len(parts) < 2:
        return
    digests = np.concatenate([rows.digests for rows in parts.values()])
    features = np.concatenate([rows.features for rows in parts.values()])
    keep = DigestSet(digests).sorted_rows
    (joined,) = store.append(digests[keep], features[keep])
    rank = {name: (_distinct(rows), name) for name, rows in parts.items()} | {joined: (len(keep), joined)}
    # Usually the joined one. Else an old one has the same images, and a higher rank by its name.
    highest = max(rank, key=rank.__getitem__)
    for name in rank:
        if name != highest:
            store.drop(name)


def _distinct(rows: Rows) -> int:
    return len(DigestSet(rows.digests))

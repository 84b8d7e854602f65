"""Rows out of many shards, in the order that is asked for."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index, wait_for_listing
from bottleneck.cache.kinds import remedy, room_of
from bottleneck.cache.shard import Blocks, Buffer
from bottleneck.errors import CacheError, MissingFeatures, ShardError
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.text import counted

_ATTEMPTS = 8  # to read shards that are being compacted away: within 2.5 s
_THREADS = 4  # at most; each holds one shard in memory

Load = Callable[[str, Buffer], Blocks | ShardError | None]


def read_rows(
    index: Index,
    digests: Digests,
    load: Load,
    settle: Callable[[str, ShardError], bool],
    *,
    as_stored: bool,
    where: Path,
) -> NDArray[Any]:
    """Return the features of ``(n, 32)`` digests, float32 or as stored, shape ``(n, d)``.

    Parameters
    ----------
    index : Index
    digests : ndarray of uint8, shape (n, 32)
    load : callable
        Gives the proven rows of a shard, why it cannot be trusted, or None where it has vanished.
    settle : callable
        Takes a shard that cannot be trusted out of use; gives False where it has become whole meanwhile.
    as_stored : bool
        Whether float16 stays float16.
    where : Path
        The store's folder, for messages.

    Raises
    ------
    MissingFeatures
        If features of some of the digests are in no shard.
    CacheError
        If shards disagree on d.
    """
    wanted = DigestSet(digests)
    done = np.zeros(len(digests), bool)
    features = np.empty((0, 0), np.float16)
    for needed in rounds(index, digests, wanted, done, where):
        features = _shaped(features, index, len(digests), as_stored, where)
        for name, outcome in _filled(needed, digests, load, features, done):
            if outcome:
                leave_out(index, name, outcome, settle)
    return _with_copies(features, wanted.find(digests))


def rounds(
    index: Index, digests: Digests, wanted: DigestSet, done: NDArray[np.bool_], where: Path
) -> Iterator[dict[str, NDArray[np.intp]]]:
    """Yield which rows to take from which shard, again for those that could not be had, until all are `done`.

    Raises
    ------
    MissingFeatures
        If features of some of the digests are in no shard.
    CacheError
        If shards keep vanishing.
    """
    for attempt in range(_ATTEMPTS):
        todo = wanted.rows[~done[wanted.rows]]
        needed = {name: todo[rows] for name, rows in index.shards_of(digests[todo]).items()}
        if lost := len(todo) - sum(map(len, needed.values())):
            raise MissingFeatures(
                f"expected {room_of(where)} of {counted(len(wanted), 'image')} in {where}, {lost} are missing: "
                f"run {remedy(where)} again"
            )
        yield needed
        if done[wanted.rows].all():
            return
        wait_for_listing(attempt)
        index.refresh()  # a shard that was compacted away has left its rows in another
    raise CacheError(f"shards of {where} vanish while they are read: is it being compacted over and over? Try again")


def leave_out(
    index: Index, name: str, problem: "ShardError | Vanished", settle: Callable[[str, ShardError], bool]
) -> None:
    """Read no more from a shard that has vanished or cannot be trusted."""
    if isinstance(problem, Vanished):
        index.lose(name)
    elif settle(name, problem):
        index.forget(name)


def the_dim(index: Index, where: Path) -> int:
    """Return how many features an image has; 0 where there are none.

    Raises
    ------
    CacheError
        If shards disagree.
    """
    dims = {entry.dim for entry in index.entries.values()}
    if len(dims) > 1:
        raise CacheError(
            f"expected as many {room_of(where)} of each image in {where}, found shards with "
            f"{' and '.join(map(str, sorted(dims)))}: delete that folder and run {remedy(where)} again"
        )
    return dims.pop() if dims else 0


def _shaped(features: NDArray[Any], index: Index, count: int, as_stored: bool, where: Path) -> NDArray[Any]:
    """Return `features` with a row for each of `count` images, shaped and typed as the shards that there are now."""
    shape = (count, the_dim(index, where))
    halves = as_stored and all(entry.dtype == "float16" for entry in index.entries.values())
    dtype = np.dtype(np.float16 if halves else np.float32)
    if features.shape != shape:
        return np.empty(shape, dtype)
    return features if features.dtype == dtype else features.astype(dtype)


class Vanished(Exception):
    """A shard that is no longer there."""


def _filled(
    needed: dict[str, NDArray[np.intp]], digests: Digests, load: Load, features: NDArray[Any], done: NDArray[np.bool_]
) -> Iterator[tuple[str, ShardError | Vanished | None]]:
    """Fill in the needed rows of each shard, several at once; yield its name, and what was wrong with it."""
    buffers: SimpleQueue[Buffer] = SimpleQueue()

    def fill(name: str) -> ShardError | Vanished | None:
        buffer = buffers.get()
        try:
            found = load(name, buffer)
            if isinstance(found, Blocks):
                _copy(found, needed[name], digests, features, done)
                return None
            return found or Vanished()
        finally:
            buffers.put(buffer)

    count = min(_THREADS, 1 + (os.cpu_count() or 1), max(1, len(needed)))  # one more than cores: shards are few
    for _ in range(count):
        buffers.put(Buffer())
    with ThreadPoolExecutor(count, thread_name_prefix="read") as pool:
        yield from zip(needed, pool.map(fill, needed), strict=True)


def _copy(
    blocks: Blocks, rows: NDArray[np.intp], digests: Digests, features: NDArray[Any], done: NDArray[np.bool_]
) -> None:
    """Put what a shard has of the given rows where it belongs: whole blocks in order, permuted in memory."""
    place = DigestSet(blocks.digests).find(digests[rows])
    rows, place = rows[place >= 0], place[place >= 0]
    order = np.argsort(place)
    rows, place = rows[order], place[order]
    start = 0
    for block in blocks.features:
        low, high = np.searchsorted(place, (start, start + len(block)))
        whole = high - low == len(block)  # then each row of the block is wanted, in order
        features[rows[low:high]] = block if whole else block[place[low:high] - start]
        start += len(block)
    done[rows] = True


def _with_copies(features: NDArray[Any], first: NDArray[np.intp]) -> NDArray[Any]:
    """Give rows that were asked for again what their first row has."""
    again = np.flatnonzero(first != np.arange(len(first)))
    features[again] = features[first[again]]
    return features

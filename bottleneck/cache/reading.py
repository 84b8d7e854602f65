"""Read rows from many shards, in the requested order."""

import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import LifoQueue
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index, wait_before_listing
from bottleneck.cache.kinds import kind_of, remedy
from bottleneck.cache.shard import Blocks, Buffer
from bottleneck.errors import CacheError, MissingFeatures, ShardError
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.text import counted

_ATTEMPTS = 8  # to read shards while they are compacted: within 2.5 s
_THREADS = min(4, 1 + (os.cpu_count() or 1))  # one more than cores: there are few shards. Each holds one in memory
_LARGE_SHARD = 3 << 19  # bytes, 1.5 MiB, from which reading and hashing a shard takes longer than parsing it

T = TypeVar("T")
Load = Callable[[str, Buffer], Blocks | ShardError | None]


def read_rows(
    index: Index,
    digests: Digests,
    load: Load,
    quarantine: Callable[[str, ShardError], bool],
    *,
    as_stored: bool,
    folder: Path,
) -> NDArray[Any]:
    """Return the features of ``(n, 32)`` digests, float32 or as stored, shape ``(n, d)``.

    Parameters
    ----------
    index : Index
    digests : ndarray of uint8, shape (n, 32)
    load : callable
        Returns the verified rows of a shard, the reason why it is invalid, or None if it no longer exists.
    quarantine : callable
        Moves an invalid shard to quarantine; returns False if the shard has become valid in the meantime.
    as_stored : bool
        Whether float16 stays float16.
    folder : Path
        The store's folder, for messages.

    Raises
    ------
    MissingFeatures
        If features of some digests are in no shard.
    CacheError
        If shards differ in d.
    """
    wanted = DigestSet(digests)
    done = np.zeros(len(digests), bool)
    features = np.empty((0, 0), np.float16)
    for needed in plan_reads(index, digests, wanted, done, folder):
        features = _resized(features, index, len(digests), as_stored, folder)
        for name, problem in _fill(needed, digests, load, features, done, index):
            if problem:
                exclude_shard(index, name, problem, quarantine)
    return _copy_duplicates(features, wanted.find(digests))


def plan_reads(
    index: Index, digests: Digests, wanted: DigestSet, done: NDArray[np.bool_], folder: Path
) -> Iterator[dict[str, NDArray[np.intp]]]:
    """Yield which rows to take from which shard, again for rows that could not be read, until all are `done`.

    Raises
    ------
    MissingFeatures
        If features of some digests are in no shard.
    CacheError
        If shards keep disappearing.
    """
    for attempt in range(_ATTEMPTS):
        todo = wanted.rows[~done[wanted.rows]]
        needed = {name: todo[rows] for name, rows in index.shards_of(digests[todo]).items()}
        if lost := len(todo) - sum(map(len, needed.values())):
            raise MissingFeatures(
                f"expected {kind_of(folder)} of {counted(len(wanted), 'image')} in {folder}, {lost} are missing: "
                f"run {remedy(folder)} again"
            )
        yield needed
        if done[wanted.rows].all():
            return
        wait_before_listing(attempt)
        index.refresh()  # the rows of a compacted shard are in another one
    raise CacheError(f"shards of {folder} disappear while they are read: is it compacted repeatedly? Try again")


def exclude_shard(
    index: Index, name: str, problem: "ShardError | ShardGone", quarantine: Callable[[str, ShardError], bool]
) -> None:
    """Exclude a shard that has disappeared or is invalid from further reads."""
    if isinstance(problem, ShardGone):
        index.lose(name)
    elif quarantine(name, problem):
        index.forget(name)


def common_dim(index: Index, folder: Path) -> int:
    """Return the number of features per image; 0 if there are no shards.

    Raises
    ------
    CacheError
        If shards differ in it.
    """
    dims = {entry.dim for entry in index.entries.values()}
    if len(dims) > 1:
        raise CacheError(
            f"expected the same number of {kind_of(folder)} for each image in {folder}, found shards with "
            f"{' and '.join(map(str, sorted(dims)))}: delete that folder and run {remedy(folder)} again"
        )
    return dims.pop() if dims else 0


def _resized(features: NDArray[Any], index: Index, count: int, as_stored: bool, folder: Path) -> NDArray[Any]:
    """Return `features` in the shape and type that `count` images of the current shards need."""
    shape = (count, common_dim(index, folder))
    halves = as_stored and all(entry.dtype == "float16" for entry in index.entries.values())
    dtype = np.dtype(np.float16 if halves else np.float32)
    if features.shape != shape:
        return np.empty(shape, dtype)
    return features if features.dtype == dtype else features.astype(dtype)


class ShardGone(Exception):
    """A shard that no longer exists."""


def map_shards(function: Callable[[str], T], names: Collection[str], index: Index) -> Iterator[T]:
    """Yield the result of a function for each shard, in their order; large shards are processed several at once.

    HDF5 parses one file at a time. Threads that wait for it take up to twice as long for small shards.
    """
    large = sum(index.entries[name].feature_bytes >= _LARGE_SHARD for name in names)
    if min(large, _THREADS) < 2:
        yield from map(function, names)
        return
    with ThreadPoolExecutor(min(large, _THREADS), thread_name_prefix="shards") as pool:
        yield from pool.map(function, names)


def _fill(
    needed: dict[str, NDArray[np.intp]],
    digests: Digests,
    load: Load,
    features: NDArray[Any],
    done: NDArray[np.bool_],
    index: Index,
) -> Iterator[tuple[str, ShardError | ShardGone | None]]:
    """Fill in the needed rows; yield each shard's name and its problem, if any."""
    buffers: LifoQueue[Buffer] = LifoQueue()  # the last used first, so that no more grow than there are threads
    for _ in range(_THREADS):
        buffers.put(Buffer())

    def fill(name: str) -> ShardError | ShardGone | None:
        buffer = buffers.get()
        try:
            found = load(name, buffer)
            if isinstance(found, Blocks):
                _copy(found, needed[name], digests, features, done)
                return None
            return found or ShardGone()
        finally:
            buffers.put(buffer)

    yield from zip(needed, map_shards(fill, needed, index), strict=True)


def _copy(
    blocks: Blocks, rows: NDArray[np.intp], digests: Digests, features: NDArray[Any], done: NDArray[np.bool_]
) -> None:
    """Copy the given rows from a shard: block by block in file order, permuted in memory."""
    positions = DigestSet(blocks.digests).find(digests[rows])
    rows, positions = rows[positions >= 0], positions[positions >= 0]
    order = np.argsort(positions)
    rows, positions = rows[order], positions[order]
    start = 0
    for block in blocks.features:
        low, high = np.searchsorted(positions, (start, start + len(block)))
        whole = high - low == len(block)  # every row of the block is requested, in order
        features[rows[low:high]] = block if whole else block[positions[low:high] - start]
        start += len(block)
    done[rows] = True


def _copy_duplicates(features: NDArray[Any], first: NDArray[np.intp]) -> NDArray[Any]:
    """Copy the features of repeated digests from their first row."""
    repeated = np.flatnonzero(first != np.arange(len(first)))
    features[repeated] = features[first[repeated]]
    return features

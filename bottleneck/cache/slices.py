"""Slices: the requested rows of each shard, read in large pieces directly from the files."""

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.shard import reading
from bottleneck.cache.verified import BLOCK_BYTES, VerifiedShard
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.files import open_regular

_ATTEMPTS = 3  # to read rows of a file that changes

Positions = NDArray[np.intp]


@dataclass(frozen=True)
class ReadSizes:
    """How much of the shards is read at once.

    Parameters
    ----------
    block_bytes : int
        Yielded at once; more if one row is larger.
    pool_bytes : int
        Size of each of the two pools in which rows are shuffled.
    files : int
        Maximum number of open files.
    """

    block_bytes: int = BLOCK_BYTES
    pool_bytes: int = 64 << 20
    files: int = 64


READ_SIZES = ReadSizes()


@dataclass
class ShardSlice:
    """The requested rows of one shard.

    Parameters
    ----------
    shard : VerifiedShard
    shard_rows : ndarray of int, shape (m,)
        Rows of the shard, in ascending order.
    rows : ndarray of int, shape (m,)
        The same rows as numbered in the stream.
    """

    shard: VerifiedShard
    shard_rows: Positions
    rows: Positions

    @classmethod
    def of(cls, shard: VerifiedShard, shard_digests: Digests, digests: Digests, rows: Positions) -> "ShardSlice | None":
        """Return the rows of the stream that a shard holds; None if it holds none."""
        shard_rows = DigestSet(shard_digests).find(digests[rows])
        rows, shard_rows = rows[shard_rows >= 0], shard_rows[shard_rows >= 0]
        order = np.argsort(shard_rows)
        rows = rows[order]
        rows.setflags(write=False)  # callers receive views of it
        return cls(shard, shard_rows[order], rows) if len(rows) else None

    def pieces(self) -> "list[BlockSlice]":
        """Return the requested rows of each block that has any."""
        bounds = np.searchsorted(self.shard_rows, self.shard.starts).tolist()
        return [BlockSlice(self, block, low, high) for block, (low, high) in enumerate(pairwise(bounds)) if low < high]


@dataclass(frozen=True)
class BlockSlice:
    """The requested rows of one block: ``shard_rows[low:high]`` of its slice."""

    parent: ShardSlice
    block: int
    low: int
    high: int

    def __len__(self) -> int:
        return self.high - self.low

    @property
    def rows(self) -> Positions:
        """Rows of the stream."""
        return self.parent.rows[self.low : self.high]

    @property
    def first(self) -> int:
        """First requested row of the shard."""
        return int(self.parent.shard_rows[self.low])

    @property
    def span(self) -> int:
        """Number of rows of the shard from the first to the last requested row."""
        return int(self.parent.shard_rows[self.high - 1]) - self.first + 1

    def select(self, span: NDArray[Any]) -> NDArray[Any]:
        """Return the requested rows, given all rows from the first to the last."""
        return span if len(span) == len(self) else span[self.parent.shard_rows[self.low : self.high] - self.first]


class SliceReader:
    """Reads all slices once, and manages the open files.

    Parameters
    ----------
    slices : sequence of ShardSlice
    dim : int
    dtype : dtype
        Of the features that are returned.
    files : int
        Maximum number of open files.
    verify_again : callable
        Verifies a shard whose file changed; returns None if the shard must be read again.
    find_elsewhere : callable
        Returns slices of other shards that hold some rows of the stream.
    """

    def __init__(
        self,
        slices: Sequence[ShardSlice],
        dim: int,
        dtype: np.dtype[Any],
        files: int,
        verify_again: Callable[[Path], VerifiedShard | None],
        find_elsewhere: Callable[[Positions], Iterable[ShardSlice]],
    ) -> None:
        self.pieces = [piece for slice_ in slices for piece in slice_.pieces()]
        self._dim, self._dtype, self._max_files = dim, dtype, files
        self._verify_again, self._find_elsewhere = verify_again, find_elsewhere
        self._files: dict[Path, int] = {}  # most recently used last
        self._spans: dict[np.dtype[Any], NDArray[Any]] = {}

    def close(self) -> None:
        """Close each file once, even if a Ctrl-C interrupts the first call and this is called again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _rows_in(self, size: int) -> int:
        """Return how many rows fit into `size` bytes."""
        return max(1, size // max(1, self._dim * self._dtype.itemsize))

    def groups(self, order: Iterable[int], size: int) -> list[list[BlockSlice]]:
        """Return the pieces in the given order, as equal groups of about `size` bytes, or of one piece."""
        total = sum(map(len, self.pieces))
        count = -(-total // self._rows_in(size))
        groups: list[list[BlockSlice]] = [[] for _ in range(count)]
        before = 0
        for number in order:
            groups[before * count // total].append(self.pieces[number])
            before += len(self.pieces[number])
        return [group for group in groups if group]

    def shape(self, size: int) -> tuple[int, int]:
        """Return the shape of an array that can hold any group of about `size` bytes."""
        rows = self._rows_in(size) + max(map(len, self.pieces), default=0)
        return min(rows, sum(map(len, self.pieces))), self._dim

    def ahead(
        self, groups: Sequence[Sequence[BlockSlice]], buffers: Sequence[NDArray[Any]]
    ) -> Generator[tuple[Positions, NDArray[Any]], None, None]:
        """Yield groups, read alternately into two buffers; a thread reads the next group meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
            coming = [pool.submit(self.read, group, buffers[0]) for group in groups[:1]]
            for number in range(1, len(groups) + 1):
                found = coming.pop().result()
                if number < len(groups):
                    coming.append(pool.submit(self.read, groups[number], buffers[number % 2]))
                yield found

    def read(self, group: Sequence[BlockSlice], buffer: NDArray[Any]) -> tuple[Positions, NDArray[Any]]:
        """Return the rows of a group and their features, which occupy the start of a buffer."""
        done = 0
        for piece in group:
            self._read(piece, buffer[done : done + len(piece)])
            done += len(piece)
        rows = group[0].rows if len(group) == 1 else np.concatenate([piece.rows for piece in group])
        return rows, buffer[:done]

    def _read(self, piece: BlockSlice, out: NDArray[Any]) -> None:
        path = piece.parent.shard.path
        for _ in range(_ATTEMPTS):
            try:
                with reading(path):
                    return self._copy(piece, path, out)
            except FileNotFoundError:
                if path.exists():
                    break
            with suppress(FileNotFoundError):  # compacted again
                return self._copy_from_others(piece, out)
        raise CacheError(f"{path} was compacted while it was read; try again")

    def _copy_from_others(self, piece: BlockSlice, out: NDArray[Any]) -> None:
        """Copy the rows of a piece whose shard was compacted since reading began."""
        order = np.argsort(piece.rows)
        for slice_ in self._find_elsewhere(piece.rows[order]):
            for other in slice_.pieces():
                found = np.empty((len(other), self._dim), self._dtype)
                with reading(slice_.shard.path):
                    self._copy(other, slice_.shard.path, found)
                out[order[np.searchsorted(piece.rows, other.rows, sorter=order)]] = found

    def _copy(self, piece: BlockSlice, path: Path, out: NDArray[Any]) -> None:
        for _ in range(_ATTEMPTS):
            shard = piece.parent.shard
            if self._copied(piece, shard, out):
                return
            os.close(self._files.pop(path))
            piece.parent.shard = self._verify_again(path) or shard
        raise CacheError(f"{path} changes while it is read; try again")

    def _copied(self, piece: BlockSlice, shard: VerifiedShard, out: NDArray[Any]) -> bool:
        """Copy the rows of a piece; return whether they are the verified ones."""
        direct = piece.span == len(out) and shard.dtype == out.dtype
        span = out if direct else self._span(shard)[: piece.span]
        descriptor = self._descriptor(shard.path)
        whole = shard.read(descriptor, piece.block, piece.first, span)
        if not whole or not shard.is_unchanged(descriptor):  # checked afterwards: the file may change during the read
            return False
        if not direct:
            out[:] = piece.select(span)
        return True

    def _span(self, shard: VerifiedShard) -> NDArray[Any]:
        """Return a buffer that can hold any block of a shard."""
        count = int(np.diff(shard.starts).max())
        known = self._spans.get(shard.dtype)
        if known is None or len(known) < count:
            known = self._spans[shard.dtype] = np.empty((count, self._dim), shard.dtype)
        return known

    def _descriptor(self, path: Path) -> int:
        """Return an open descriptor of a shard's file; close the least recently used if there are too many."""
        descriptor = self._files.pop(path, None)
        if descriptor is None:
            descriptor = open_regular(path)
        self._files[path] = descriptor
        if len(self._files) > self._max_files:
            os.close(self._files.pop(next(iter(self._files))))
        return descriptor

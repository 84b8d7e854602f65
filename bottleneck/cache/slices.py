"""The wanted rows of each shard, and one reading of them all: large pieces, straight from the files."""

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
from bottleneck.cache.verified import VerifiedShard
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.files import open_regular

_FILES = 64  # that are open at once
_ATTEMPTS = 3  # to read rows of a file that changes

Positions = NDArray[np.intp]


@dataclass
class ShardSlice:
    """The wanted rows of one shard.

    Parameters
    ----------
    proof : VerifiedShard
    places : ndarray of int, shape (m,)
        Which rows of the shard, ascending.
    rows : ndarray of int, shape (m,)
        Which rows of the stream they are.
    """

    proof: VerifiedShard
    places: Positions
    rows: Positions

    @classmethod
    def of(cls, proof: VerifiedShard, held: Digests, digests: Digests, rows: Positions) -> "ShardSlice | None":
        """Return those of some rows that a shard holds; None if it holds none."""
        places = DigestSet(held).find(digests[rows])
        rows, places = rows[places >= 0], places[places >= 0]
        order = np.argsort(places)
        rows = rows[order]
        rows.setflags(write=False)  # parts of it are handed out
        return cls(proof, places[order], rows) if len(rows) else None

    def pieces(self) -> "list[BlockSlice]":
        """Return what of each block is wanted, if anything is."""
        bounds = np.searchsorted(self.places, self.proof.starts).tolist()
        return [BlockSlice(self, block, low, high) for block, (low, high) in enumerate(pairwise(bounds)) if low < high]


@dataclass(frozen=True)
class BlockSlice:
    """The wanted rows of one block: ``places[low:high]`` of its part."""

    part: ShardSlice
    block: int
    low: int
    high: int

    def __len__(self) -> int:
        return self.high - self.low

    @property
    def rows(self) -> Positions:
        """Which rows of the stream."""
        return self.part.rows[self.low : self.high]

    @property
    def first(self) -> int:
        """The first wanted row of the shard."""
        return int(self.part.places[self.low])

    @property
    def span(self) -> int:
        """How many rows lie from the first to the last wanted one."""
        return int(self.part.places[self.high - 1]) - self.first + 1

    def picked(self, span: NDArray[Any]) -> NDArray[Any]:
        """Return the wanted rows out of those that lie from the first to the last."""
        return span if len(span) == len(self) else span[self.part.places[self.low : self.high] - self.first]


class SlicePass:
    """One reading of all rows, and the files that are open for it."""

    def __init__(
        self,
        parts: Sequence[ShardSlice],
        dim: int,
        dtype: np.dtype[Any],
        prove_again: Callable[[Path], VerifiedShard | None],
        elsewhere: Callable[[Positions], Iterable[ShardSlice]],
    ) -> None:
        self.pieces = [piece for part in parts for piece in part.pieces()]
        self._dim, self._dtype = dim, dtype
        self._prove_again, self._elsewhere = prove_again, elsewhere
        self._files: dict[Path, int] = {}  # those used last at the end
        self._spans: dict[np.dtype[Any], NDArray[Any]] = {}

    def close(self) -> None:
        """Close the files, each once, even where a Ctrl-C comes in the middle and this is called again."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _fitting(self, size: int) -> int:
        """Return how many rows take `size` bytes."""
        return max(1, size // max(1, self._dim * self._dtype.itemsize))

    def groups(self, order: Iterable[int], size: int) -> list[list[BlockSlice]]:
        """Return the pieces in some order, as equal groups of about `size` bytes, or of one piece."""
        total = sum(map(len, self.pieces))
        count = -(-total // self._fitting(size))
        groups: list[list[BlockSlice]] = [[] for _ in range(count)]
        before = 0
        for number in order:
            groups[before * count // total].append(self.pieces[number])
            before += len(self.pieces[number])
        return [group for group in groups if group]

    def shape(self, size: int) -> tuple[int, int]:
        """Return the shape of an array that any group of about `size` bytes fits into."""
        rows = self._fitting(size) + max(map(len, self.pieces), default=0)
        return min(rows, sum(map(len, self.pieces))), self._dim

    def ahead(
        self, groups: Sequence[Sequence[BlockSlice]], buffers: Sequence[NDArray[Any]]
    ) -> Generator[tuple[Positions, NDArray[Any]], None, None]:
        """Read groups into two buffers in turn, the next one in a thread while the caller uses what it has."""
        with ThreadPoolExecutor(1, thread_name_prefix="stream") as pool:
            coming = [pool.submit(self.read, group, buffers[0]) for group in groups[:1]]
            for number in range(1, len(groups) + 1):
                found = coming.pop().result()
                if number < len(groups):
                    coming.append(pool.submit(self.read, groups[number], buffers[number % 2]))
                yield found

    def read(self, group: Sequence[BlockSlice], buffer: NDArray[Any]) -> tuple[Positions, NDArray[Any]]:
        """Return which rows the pieces of a group hold, and their features, in the beginning of a buffer."""
        done = 0
        for piece in group:
            self._read(piece, buffer[done : done + len(piece)])
            done += len(piece)
        rows = group[0].rows if len(group) == 1 else np.concatenate([piece.rows for piece in group])
        return rows, buffer[:done]

    def _read(self, piece: BlockSlice, out: NDArray[Any]) -> None:
        path = piece.part.proof.path
        for _ in range(_ATTEMPTS):
            try:
                with reading(path):
                    return self._copy(piece, path, out)
            except FileNotFoundError:
                if path.exists():
                    break
            with suppress(FileNotFoundError):  # joined with others once more
                return self._copy_from_others(piece, out)
        raise CacheError(f"{path} was compacted while it was read; try again")

    def _copy_from_others(self, piece: BlockSlice, out: NDArray[Any]) -> None:
        """Copy the rows of a piece whose shard was joined with others since the pass began."""
        order = np.argsort(piece.rows)
        for part in self._elsewhere(piece.rows[order]):
            for other in part.pieces():
                found = np.empty((len(other), self._dim), self._dtype)
                with reading(part.proof.path):
                    self._copy(other, part.proof.path, found)
                out[order[np.searchsorted(piece.rows, other.rows, sorter=order)]] = found

    def _copy(self, piece: BlockSlice, path: Path, out: NDArray[Any]) -> None:
        for _ in range(_ATTEMPTS):
            proof = piece.part.proof
            if self._copied(piece, proof, out):
                return
            os.close(self._files.pop(path))
            piece.part.proof = self._prove_again(path) or proof
        raise CacheError(f"{path} changes while it is read; try again")

    def _copied(self, piece: BlockSlice, proof: VerifiedShard, out: NDArray[Any]) -> bool:
        """Copy the rows of a piece; return whether they are the ones that were proven."""
        direct = piece.span == len(out) and proof.dtype == out.dtype
        span = out if direct else self._span(proof)[: piece.span]
        descriptor = self._descriptor(proof.path)
        whole = proof.read(descriptor, piece.block, piece.first, span)
        if not whole or not proof.still(descriptor):  # only now: it may have changed while it was read
            return False
        if not direct:
            out[:] = piece.picked(span)
        return True

    def _span(self, proof: VerifiedShard) -> NDArray[Any]:
        """Return memory for any block of a shard."""
        count = int(np.diff(proof.starts).max())
        known = self._spans.get(proof.dtype)
        if known is None or len(known) < count:
            known = self._spans[proof.dtype] = np.empty((count, self._dim), proof.dtype)
        return known

    def _descriptor(self, path: Path) -> int:
        """Return a shard's file, open; those that were not used for long are closed."""
        descriptor = self._files.pop(path, None)
        if descriptor is None:
            descriptor = open_regular(path)
        self._files[path] = descriptor
        if len(self._files) > _FILES:
            os.close(self._files.pop(next(iter(self._files))))
        return descriptor

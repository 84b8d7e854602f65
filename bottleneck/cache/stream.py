"""Features of more images than memory holds, read again and again: in order, or mixed."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.index import Index
from bottleneck.cache.reading import Vanished, leave_out, rounds, the_dim
from bottleneck.cache.slices import Positions, ShardSlice, SlicePass
from bottleneck.cache.verified import VerifiedShard, prove
from bottleneck.errors import CacheError, NewerShard, ShardError
from bottleneck.images.keys import Digests, DigestSet

_BLOCK_BYTES = 2 << 20  # that are yielded at once; more where one row has more
_POOL_BYTES = 64 << 20  # among which rows are mixed; there are two pools
_THREADS = 4  # at most, that prove shards


class Stream:
    """Features of many images of one store, read again and again without holding them in memory.

    Parameters
    ----------
    folder : Path
        Of the store.
    spec : Spec
    digests : ndarray of uint8, shape (n, 32)
        Each once.
    index : callable
        Gives the index of the store as of now.
    settle : callable
        Takes a shard that cannot be trusted out of use; gives False where it has become whole meanwhile.

    Raises
    ------
    ValueError
        If a digest repeats.
    MissingFeatures
        If features of some of the images are in no shard.
    CacheError
        If shards disagree on d, or vanish over and over.

    Notes
    -----
    Each shard is proven when the stream is opened, and again before rows are taken out of a file that has changed
    since. What a pass cannot find where it was, it looks for in other shards: small shards are joined at any time.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        digests: Digests,
        index: Callable[[], Index],
        settle: Callable[[str, ShardError], bool],
    ) -> None:
        self._folder, self._spec, self._index, self._settle = folder, spec, index, settle
        self._digests = digests
        if len(DigestSet(digests)) < len(digests):
            raise ValueError(f"expected each image once, got {len(digests) - len(DigestSet(digests))} again")
        self._parts: tuple[ShardSlice, ...] = ()
        self._proofs: dict[str, tuple[VerifiedShard, Digests]] = {}  # of shards that a pass had to look for
        self._pools: list[NDArray[Any]] = []
        now = index()
        self._dim = the_dim(now, folder)
        self._locate(now)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return len(self._digests), self._dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """What features are yielded as: float16 where all are stored so, else float32."""
        halves = self._parts and all(part.proof.dtype == np.float16 for part in self._parts)
        return np.dtype(np.float16 if halves else np.float32)

    def blocks(self) -> Iterator[tuple[Positions, NDArray[Any]]]:
        """Yield each row once, as (rows ``(b,)`` of the digests, features ``(b, d)``), in the order of the files.

        The order stays the same as long as the shards do. The arrays hold until the next ones are asked for.

        Raises
        ------
        MissingFeatures, CacheError
            As `Stream`; or if a shard is damaged, or compacted away, while it is read.
        """
        with closing(self._pass()) as reader:
            buffer = np.empty(reader.shape(_BLOCK_BYTES), self.dtype)
            for group in reader.groups(range(len(reader.pieces)), _BLOCK_BYTES):
                yield reader.read(group, buffer)

    def mixed(self, random: np.random.Generator, *, batch: int) -> Iterator[tuple[Positions, NDArray[Any]]]:
        """Yield each row once, as `blocks` does, in batches of rows that lie far apart.

        Chunks of consecutive rows are drawn from all shards into a pool of 64 MiB, whose rows are permuted; the next
        pool is read in a thread meanwhile. So each batch is mixed even where a shard holds one class alone.

        Parameters
        ----------
        random : numpy.random.Generator
            Equal states give equal batches.
        batch : int
            Rows a batch; the last may have fewer.

        Yields
        ------
        (rows, features)
            The arrays are new, and the caller's own.

        Raises
        ------
        ValueError
            If `batch` is below 1.
        MissingFeatures, CacheError
            As `blocks`.
        """
        if batch < 1:
            raise ValueError(f"expected batches of 1 row or more, got {batch}")
        own = np.random.default_rng(random.integers(2**63))  # the caller's may be used between two batches
        with closing(self._pass()) as reader:
            order = own.permutation(len(reader.pieces)).tolist()
            groups = reader.groups(order, _POOL_BYTES)
            with self._two_pools(reader.shape(_POOL_BYTES)) as pools, closing(reader.ahead(groups, pools)) as filled:
                shuffled = ((rows, features, own.permutation(len(rows))) for rows, features in filled)
                yield from _batches(shuffled, batch)

    @contextmanager
    def _two_pools(self, shape: tuple[int, int]) -> Iterator[list[NDArray[Any]]]:
        """Lend memory that is kept from one pass to the next: fresh memory costs more than reading does."""
        kept, self._pools = self._pools, []
        if not all(pool.shape == shape and pool.dtype == self.dtype for pool in kept):
            kept = []
        pools = kept or [np.empty(shape, self.dtype) for _ in range(2)]
        yield pools
        self._pools = pools

    def _pass(self) -> SlicePass:
        if not all(part.proof.still() for part in self._parts):
            self._locate(self._index())
        return SlicePass(self._parts, self._dim, self.dtype, self._prove_again, self._elsewhere)

    def _locate(self, index: Index) -> None:
        """Find the rows that are in no part yet, or whose shard has gone or changed."""
        parts = [part for part in self._parts if part.proof.still()]
        done = np.zeros(len(self._digests), bool)
        for part in parts:
            done[part.rows] = True
        parts += self._found(index, np.arange(len(done)), done)
        self._parts = tuple(sorted(parts, key=lambda part: (part.proof.path.name, part.rows[0])))
        self._proofs = {}

    def _elsewhere(self, rows: Positions) -> list[ShardSlice]:
        """Return where some rows are now whose shard has gone during a pass."""
        return self._found(self._index(), rows, np.zeros(len(rows), bool))

    def _found(self, index: Index, rows: Positions, done: NDArray[np.bool_]) -> list[ShardSlice]:
        """Return the parts that hold some rows, which ascend, but for those that are `done`."""
        digests, parts = self._digests[rows], []
        for needed in rounds(index, digests, DigestSet(digests), done, self._folder):
            for name, outcome in self._proven({name: rows[places] for name, places in needed.items()}):
                if isinstance(outcome, ShardSlice):
                    parts.append(outcome)
                    done[np.searchsorted(rows, outcome.rows)] = True
                else:
                    leave_out(index, name, outcome, self._settle)
        return parts

    def _proven(self, needed: dict[str, Positions]) -> Iterator[tuple[str, ShardSlice | ShardError | Vanished]]:
        """Yield for each shard which rows it holds, or what is wrong with it; several are proven at once."""
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="prove") as pool:
            yield from zip(needed, pool.map(self._part, needed, needed.values()), strict=True)

    def _part(self, name: str, rows: Positions) -> ShardSlice | ShardError | Vanished:
        try:
            proof, held = self._proof(name)
        except NewerShard:
            raise
        except ShardError as error:
            return error
        except FileNotFoundError:
            return Vanished()
        if proof.dim != self._dim:
            raise CacheError(f"expected {self._dim} features of each image, found {proof.dim} in {proof.path}")
        return ShardSlice.of(proof, held, self._digests, rows) or Vanished()

    def _proof(self, name: str) -> tuple[VerifiedShard, Digests]:
        """Return the proof of a shard; of one that several lost shards were joined into, it is proven once."""
        known = self._proofs.get(name)
        if known is None or not known[0].still():
            known = prove(self._path(name), self._spec)
            if self._parts:
                self._proofs[name] = known
        return known

    def _path(self, name: str) -> Path:
        return self._folder / "shards" / f"{name}.h5"

    def _prove_again(self, path: Path) -> VerifiedShard | None:
        """Return the proof of a shard whose file has changed during a pass; None where it is to be looked at again."""
        try:
            return prove(path, self._spec)[0]
        except NewerShard:
            raise
        except ShardError as error:
            if self._settle(path.stem, error):
                raise CacheError(f"{path} was damaged while it was read; try again") from error
            return None


def _batches(
    pools: Iterable[tuple[Positions, NDArray[Any], Positions]], batch: int
) -> Iterator[tuple[Positions, NDArray[Any]]]:
    """Yield the rows of each pool in its order, `batch` at a time."""
    parts: list[tuple[Positions, NDArray[Any]]] = []
    lacking = batch
    for rows, features, order in pools:
        start = 0
        while start < len(order):
            chosen = order[start : start + lacking]
            parts.append((rows[chosen], features.take(chosen, axis=0)))
            start += len(chosen)
            lacking -= len(chosen)
            if not lacking:
                yield _joined(parts)
                parts, lacking = [], batch
    if parts:
        yield _joined(parts)


def _joined(parts: list[tuple[Positions, NDArray[Any]]]) -> tuple[Positions, NDArray[Any]]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([features for _, features in parts])

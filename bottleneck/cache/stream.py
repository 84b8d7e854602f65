"""Read features of more images than fit into memory, repeatedly: in order or shuffled."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.index import Index
from bottleneck.cache.reading import ShardGone, common_dim, exclude_shard, map_shards, plan_reads
from bottleneck.cache.slices import READ_SIZES, Positions, ReadSizes, ShardSlice, SliceReader
from bottleneck.cache.verified import VerifiedShard, verify_shard
from bottleneck.errors import CacheError, NewerShard, ShardError
from bottleneck.images.keys import Digests, DigestSet


class Stream:
    """Features of many images of one store, read repeatedly without keeping them in memory.

    Parameters
    ----------
    folder : Path
        Of the store.
    spec : Spec
    digests : ndarray of uint8, shape (n, 32)
        Without duplicates.
    index : callable
        Returns the current index of the store.
    quarantine : callable
        Moves an invalid shard to quarantine; returns False if the shard has become valid in the meantime.
    sizes : ReadSizes, optional

    Raises
    ------
    ValueError
        If a digest repeats.
    MissingFeatures
        If features of some images are in no shard.
    CacheError
        If shards differ in d, or keep disappearing.

    Notes
    -----
    Each shard is verified when the stream is opened, and again before rows are read from a file that has changed
    since. Rows whose shard has disappeared are read from other shards: small shards are compacted at any time.
    """

    def __init__(
        self,
        folder: Path,
        spec: Spec,
        digests: Digests,
        index: Callable[[], Index],
        quarantine: Callable[[str, ShardError], bool],
        sizes: ReadSizes = READ_SIZES,
    ) -> None:
        self._folder, self._spec, self._index, self._quarantine = folder, spec, index, quarantine
        self._sizes = sizes
        self._digests = digests
        if len(DigestSet(digests)) < len(digests):
            raise ValueError(f"expected each image once, got {len(digests) - len(DigestSet(digests))} again")
        self._slices: tuple[ShardSlice, ...] = ()
        self._compacted: dict[str, tuple[VerifiedShard, Digests]] = {}  # results of joining shards of this stream
        self._pools: list[NDArray[Any]] = []
        now = index()
        self._dim = common_dim(now, folder)
        self._locate(now)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return len(self._digests), self._dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the yielded features: float16 if all shards store float16, else float32."""
        halves = self._slices and all(slice_.shard.dtype == np.float16 for slice_ in self._slices)
        return np.dtype(np.float16 if halves else np.float32)

    def blocks(self) -> Iterator[tuple[Positions, NDArray[Any]]]:
        """Yield each row once, as (rows ``(b,)`` of the digests, features ``(b, d)``), in the order of the files.

        The order is the same as long as the shards are. The arrays are valid until the next iteration.

        Raises
        ------
        MissingFeatures, CacheError
            As `Stream`; or if a shard is damaged or deleted while it is read.
        """
        with closing(self._reader()) as reader:
            buffer = np.empty(reader.shape(self._sizes.block_bytes), self.dtype)
            for group in reader.groups(range(len(reader.pieces)), self._sizes.block_bytes):
                yield reader.read(group, buffer)

    def mixed(self, random: np.random.Generator, *, batch: int) -> Iterator[tuple[Positions, NDArray[Any]]]:
        """Yield each row once, as `blocks` does, in shuffled batches.

        Randomly chosen chunks of consecutive rows from all shards fill a pool of 64 MiB, whose rows are permuted; a
        thread reads the next pool meanwhile. So each batch is well mixed even if a shard holds only one class.

        Parameters
        ----------
        random : numpy.random.Generator
            Equal states give equal batches.
        batch : int
            Rows per batch; the last batch may have fewer.

        Yields
        ------
        (rows, features)
            New arrays, which the caller may change.

        Raises
        ------
        ValueError
            If `batch` is below 1.
        MissingFeatures, CacheError
            As `blocks`.
        """
        if batch < 1:
            raise ValueError(f"expected batches of 1 row or more, got {batch}")
        own = np.random.default_rng(random.integers(2**63))  # the caller may use its generator between two batches
        with closing(self._reader()) as reader:
            order = own.permutation(len(reader.pieces)).tolist()
            groups = reader.groups(order, self._sizes.pool_bytes)
            with (
                self._two_pools(reader.shape(self._sizes.pool_bytes)) as pools,
                closing(reader.ahead(groups, pools)) as filled,
            ):
                shuffled = ((rows, features, own.permutation(len(rows))) for rows, features in filled)
                yield from _batches(shuffled, batch)

    @contextmanager
    def _two_pools(self, shape: tuple[int, int]) -> Iterator[list[NDArray[Any]]]:
        """Provide two buffers, reused by the next call: allocating memory costs more than reading the files."""
        pools, self._pools = self._pools, []
        if not pools or not all(pool.shape == shape and pool.dtype == self.dtype for pool in pools):
            pools = [np.empty(shape, self.dtype) for _ in range(2)]
        yield pools
        self._pools = pools

    def _reader(self) -> SliceReader:
        if not all(slice_.shard.is_unchanged() for slice_ in self._slices):
            self._locate(self._index())
        return SliceReader(
            self._slices, self._dim, self.dtype, self._sizes.files, self._verify_again, self._find_elsewhere
        )

    def _locate(self, index: Index) -> None:
        """Find the rows that are in no slice yet, or whose shard has disappeared or changed."""
        slices = [slice_ for slice_ in self._slices if slice_.shard.is_unchanged()]
        done = np.zeros(len(self._digests), bool)
        for slice_ in slices:
            done[slice_.rows] = True
        slices += self._found(index, np.arange(len(done)), done)
        self._slices = tuple(sorted(slices, key=lambda slice_: (slice_.shard.path.name, slice_.rows[0])))
        self._compacted = {}

    def _find_elsewhere(self, rows: Positions) -> list[ShardSlice]:
        """Return the slices that hold rows whose shard disappeared while reading."""
        return self._found(self._index(), rows, np.zeros(len(rows), bool))

    def _found(self, index: Index, rows: Positions, done: NDArray[np.bool_]) -> list[ShardSlice]:
        """Return the slices that hold the rows, which are in ascending order, except those that are `done`."""
        digests, slices = self._digests[rows], []
        for needed in plan_reads(index, digests, DigestSet(digests), done, self._folder):
            of_shard = {name: rows[places] for name, places in needed.items()}
            outcomes = map_shards(partial(self._slice, of_shard), needed, index)
            for name, outcome in zip(needed, outcomes, strict=True):
                if isinstance(outcome, ShardSlice):
                    slices.append(outcome)
                    done[np.searchsorted(rows, outcome.rows)] = True
                else:
                    exclude_shard(index, name, outcome, self._quarantine)
        return slices

    def _slice(self, rows: dict[str, Positions], name: str) -> ShardSlice | ShardError | ShardGone:
        """Verify a shard; return its slice with the given rows, or its problem."""
        try:
            shard, shard_digests = self._verify(name)
        except NewerShard:
            raise
        except ShardError as error:
            return error
        except FileNotFoundError:
            return ShardGone()
        if shard.dim != self._dim:
            raise CacheError(f"expected {self._dim} features of each image, found {shard.dim} in {shard.path}")
        return ShardSlice.of(shard, shard_digests, self._digests, rows[name]) or ShardGone()

    def _verify(self, name: str) -> tuple[VerifiedShard, Digests]:
        """Verify a shard; one that replaced several shards during reading is verified only once."""
        known = self._compacted.get(name)
        if known is None or not known[0].is_unchanged():
            known = verify_shard(self._path(name), self._spec, self._sizes.block_bytes)
            if self._slices:
                self._compacted[name] = known
        return known

    def _path(self, name: str) -> Path:
        return self._folder / "shards" / f"{name}.h5"

    def _verify_again(self, path: Path) -> VerifiedShard | None:
        """Verify a shard whose file changed while reading; return None if it must be read again."""
        try:
            return verify_shard(path, self._spec, self._sizes.block_bytes)[0]
        except NewerShard:
            raise
        except ShardError as error:
            if self._quarantine(path.stem, error):
                raise CacheError(f"{path} was damaged while it was read; try again") from error
            return None


def _batches(
    pools: Iterable[tuple[Positions, NDArray[Any], Positions]], batch: int
) -> Iterator[tuple[Positions, NDArray[Any]]]:
    """Yield the rows of each pool in its permuted order, `batch` at a time."""
    parts: list[tuple[Positions, NDArray[Any]]] = []
    missing = batch
    for rows, features, order in pools:
        start = 0
        while start < len(order):
            chosen = order[start : start + missing]
            parts.append((rows[chosen], features.take(chosen, axis=0)))
            start += len(chosen)
            missing -= len(chosen)
            if not missing:
                yield _concatenate(parts)
                parts, missing = [], batch
    if parts:
        yield _concatenate(parts)


def _concatenate(parts: list[tuple[Positions, NDArray[Any]]]) -> tuple[Positions, NDArray[Any]]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([features for _, features in parts])

"""A store: all shards of one spec. There are no locks; the listing of the folder is the manifest."""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.weights_files import checked_request, recorded_request
from bottleneck.cache.compact import SHARD_SIZES, ShardSizes, join_small
from bottleneck.cache.index import Index, load_entry, save_entry
from bottleneck.cache.kinds import remedy, tree_of, tree_of_shard
from bottleneck.cache.reading import read_rows
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.shard import Blocks, Buffer, Rows, matches_name, read_blocks, write_shard, writing
from bottleneck.cache.slices import READ_SIZES, ReadSizes
from bottleneck.cache.stream import Stream
from bottleneck.errors import CacheError, DamagedShard, MissingFeatures, NewerShard, ShardError
from bottleneck.images.digest import signature
from bottleneck.images.keys import Digests, digests_of
from bottleneck.utils.files import fsync_folder
from bottleneck.utils.folder import LinkError
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree, memo
from bottleneck.utils.warn import warn

_SHARD_NAME = re.compile(r"[0-9a-f]{64}\.h5")


@dataclass(frozen=True)
class Store:
    """The features of one spec: a map digest -> features, stored in immutable shards.

    Any number of processes may read and write one store at once. Rows survive any kill once `append` has returned.
    """

    folder: Path
    spec: Spec
    sizes: ShardSizes = SHARD_SIZES

    def __repr__(self) -> str:
        return one_line(self, self.short_name, f"in {self.folder.parent}")

    @property
    def name(self) -> str:
        """``<model>-<fingerprint>``."""
        return self.folder.name

    @property
    def short_name(self) -> str:
        """``<model>-<first 8 digits of the fingerprint>``."""
        return self.name[: len(self.name) - 64 + 8]

    @property
    def tree(self) -> Tree:
        """Tree of the cache, which follows no links below its root."""
        return tree_of(self.folder)

    @property
    def engines(self) -> Path:
        """Folder of the engines' conversions and checks; see `bottleneck.engines.records.EngineRecords`."""
        return self.folder / "engines"

    def shards(self) -> list[Path]:
        """Return the paths of all shards, sorted by name.

        Raises
        ------
        CacheError
            If the folder cannot be listed.
        """
        return [self._shard(name) for name in self._names()]

    def index(self) -> Index:
        """Return the current index of the verified shards; `Index.refresh` adds what other processes commit later."""
        return Index(self._names, self._load)

    def digests(self) -> Digests:
        """Return the sorted digests of all images that have features, ``uint8 (n, 32)``, without duplicates."""
        return self.index().digests()

    def dim(self) -> int:
        """Return d, the number of features per image.

        Raises
        ------
        MissingFeatures
            If there is no shard.
        """
        for entry in self.index().entries.values():
            return entry.dim
        raise MissingFeatures(f"expected features in {self.folder}, found none: run {remedy(self.folder)}")

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each of ``(n, 32)`` digests whether the store has its features."""
        return self.index().has(digests_of(digests))

    def missing(self, digests: Digests) -> NDArray[np.intp]:
        """Return the rows of ``(n, 32)`` digests whose features are missing."""
        return np.flatnonzero(~self.has(digests))

    def read(self, digests: Digests, *, as_stored: bool = False) -> NDArray[Any]:
        """Return the features of the given images, in the given order.

        Parameters
        ----------
        digests : ndarray of uint8, shape (n, 32)
        as_stored : bool
            Whether to return float16 if all shards store float16.

        Returns
        -------
        ndarray of float32 (or float16), shape (n, d)

        Raises
        ------
        MissingFeatures
            If features of some images are not in the cache.

        Notes
        -----
        Whole shards are read, several at once, and verified before a row is returned. A damaged shard is moved to
        ``quarantine/``; its images are then missing, unless another shard has them too.
        """
        digests = digests_of(digests)
        return read_rows(self.index(), digests, self._blocks, self._quarantine, as_stored=as_stored, folder=self.folder)

    def stream(self, digests: Digests, sizes: ReadSizes = READ_SIZES) -> Stream:
        """Return a stream of the features of distinct images, which reads them repeatedly with little memory."""
        return Stream(self.folder, self.spec, digests_of(digests), self.index, self._quarantine, sizes)

    def append(self, digests: Digests, features: NDArray[Any]) -> list[str]:
        """Commit features ``(n, d)`` of n images; once this returns, they survive any kill.

        If there are many small shards, some are joined: see `bottleneck.cache.compact.join_small`.

        Returns
        -------
        list of str
            Names of the new shards: one, unless the features are very large.

        Raises
        ------
        CacheError
            If the features cannot be written, or one is not finite.
        """
        digests, features = np.atleast_1d(digests), np.atleast_1d(features)
        step = max(1, self.sizes.bytes // max(1, features[:1].nbytes))
        names = [
            self.commit(Rows(digests[start : start + step], features[start : start + step]))
            for start in range(0, max(1, len(features)), step)
        ]
        join_small(self, names)
        return names

    def commit(self, rows: Rows) -> str:
        """Commit one shard, as `append` does, and return its name."""
        with writing(self.folder):
            self._prepare()
            path = write_shard(self.folder / "shards", self.spec, rows, self.sizes.chunk_bytes)
            if not self.tree.exists(self.folder / "spec.json"):  # the folder was deleted in between
                self._prepare()
            if not self.tree.exists(path):  # or while the shard was being written
                write_shard(self.folder / "shards", self.spec, rows, self.sizes.chunk_bytes)
        with suppress(OSError):
            entry = ShardEntry(rows.digests, rows.features.shape[1], rows.features.dtype.name)
            save_entry(self._memo(path.stem), signature(self.tree.status(path)), entry)
        return path.stem

    def load(self, name: str) -> Rows | None:
        """Return the verified rows of one shard; None if it no longer exists or was just moved to quarantine."""
        try:
            blocks = self._verified(name)
        except FileNotFoundError:
            return None
        return Rows(blocks.digests, np.concatenate(blocks.features)) if blocks else None

    def drop(self, name: str) -> None:
        """Delete one shard. Its images are then missing, unless another shard has them.

        Raises
        ------
        CacheError
            If the shard cannot be deleted.
        """
        try:
            self.tree.unlink(self._shard(name))
            with memo():
                self.tree.unlink(self._memo(name))
        except OSError as error:
            raise CacheError(f"cannot delete {self._shard(name)}: {error.strerror or error}") from error

    def retire(self, name: str, error: ShardError) -> str | None:
        """Move an invalid shard to ``quarantine/``; its images are then missing.

        Returns
        -------
        str or None
            Message for the user; None if another process has written the shard again since it was read.
        """
        message = quarantine(self._shard(name), error)
        if message:
            with memo():
                self.tree.unlink(self._memo(name))
        return message

    def keep(self) -> None:
        """Mark this store as recently used, so that `bottleneck.cache.maintain.gc` keeps it."""
        with suppress(OSError), open(self.folder / "spec.json", "rb", opener=self.tree.open) as file:
            os.utime(file.fileno() if os.utime in os.supports_fd else file.name)

    def remember_request(self, request: dict[str, Any]) -> None:
        """Save the request that built the backbone of this spec, so that it can be built again."""
        with writing(self.folder):
            self.tree.write_json(self.folder / "request.json", request)

    def request(self) -> dict[str, Any] | None:
        """Return what `remember_request` saved; None if there is nothing valid."""
        with suppress(OSError, ValueError):
            return checked_request(self.tree.read_json(self.folder / "request.json"))
        return None

    def asked(self) -> Request | None:
        """Return the request that built the backbone, with the current path of its weights file; None if unknown."""
        places = self.folder.absolute().parents[1:3]  # the cache and the folder that contains it
        return recorded_request(self.request(), self.folder, places, self.spec.precision)

    def _names(self) -> list[str]:
        try:
            names = self.tree.names(self.folder / "shards")
        except OSError as error:
            raise CacheError(f"cannot list {self.folder / 'shards'}: {error.strerror or error}") from error
        return [name[:-3] for name in names if _SHARD_NAME.fullmatch(name)]

    def _shard(self, name: str) -> Path:
        return self.folder / "shards" / f"{name}.h5"

    def _memo(self, name: str) -> Path:
        return self.folder / "index" / name

    def _prepare(self) -> None:
        """Create the folders and the spec durably, even if another process has just created them."""
        self.tree.make(self.folder / "shards")
        self.tree.write_json(self.folder / "spec.json", self.spec.to_json())
        self.tree.sync(self.folder)
        for folder in self.folder.absolute().parents[:3]:  # features/, the cache and the folder that contains it
            with suppress(PermissionError):  # for a parent folder that the user may not open
                fsync_folder(folder)

    def _load(self, name: str) -> ShardEntry | None:
        """Return the entry of a shard; None if the shard is invalid.

        Raises
        ------
        FileNotFoundError
            If the shard no longer exists.
        """
        with suppress(OSError):  # reading the shard below raises the error
            if known := load_entry(self._memo(name), self._shard(name)):
                return known
        blocks = self._verified(name)
        if blocks is None:
            return None
        entry = ShardEntry(blocks.digests, blocks.dim, blocks.dtype.name)
        save_entry(self._memo(name), blocks.file, entry)
        return entry

    def _verified(self, name: str) -> Blocks | None:
        """Return the verified rows of a shard; None if it is invalid and now in quarantine.

        Raises
        ------
        FileNotFoundError
            If the shard no longer exists, or another process restored it: list the folder again.
        """
        found = self._blocks(name, Buffer())
        if isinstance(found, Blocks) and not all(np.isfinite(block).all() for block in found.features):
            found = ShardError(f"{self._shard(name)}: expected finite features, found NaN or infinity")
        if isinstance(found, ShardError) and self._quarantine(name, found):
            return None
        if not isinstance(found, Blocks):
            raise FileNotFoundError(f"{self._shard(name)} no longer exists")
        return found

    def _blocks(self, name: str, buffer: Buffer) -> Blocks | ShardError | None:
        """Return the verified rows of a shard, the reason why it is invalid, or None if it no longer exists."""
        try:
            return read_blocks(self._shard(name), self.spec, buffer)
        except NewerShard:
            raise
        except ShardError as error:
            return error
        except FileNotFoundError:
            return None

    def _quarantine(self, name: str, error: ShardError) -> bool:
        """Move an invalid shard to quarantine with a warning; return False if it has become valid."""
        message = self.retire(name, error)
        if message:
            warn(message)
        return message is not None


def quarantine(path: Path, error: ShardError) -> str | None:
    """Move an invalid shard to ``quarantine/``; see `bottleneck.cache.store.Store.retire`."""
    name, folder = path.stem, path.parents[1]
    if isinstance(error, DamagedShard) and matches_name(path, name):
        return None
    target = folder / "quarantine" / f"{name}-{time.time_ns()}.h5"
    outcome = f"It was moved to {target.parent}"
    cache = tree_of_shard(path)
    try:
        cache.rename(path, target, make=True)
    except FileNotFoundError:
        outcome = "Another process has moved it to quarantine"
    except LinkError as link:
        outcome = f"It is left in place and not used: {link}"
    except OSError:
        outcome = "It is left in place and not used"
    if isinstance(error, DamagedShard) and matches_name(target, name):
        with suppress(OSError):  # it was written again between reading and moving it
            cache.rename(target, path)
            return None
    return f"{error}. {outcome}; {remedy(folder)} computes its images again"

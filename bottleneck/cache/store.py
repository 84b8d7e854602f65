"""All shards of a spec. No locks: the listing of a folder is the manifest."""

import os
import re
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.weights_files import checked_request, recorded_request
from bottleneck.cache.compact import join_small
from bottleneck.cache.index import Index, load_entry, save_entry
from bottleneck.cache.kinds import remedy, tree_of, tree_of_shard
from bottleneck.cache.reading import read_rows
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.shard import Blocks, Buffer, Rows, matches_name, read_blocks, write_shard, writing
from bottleneck.cache.stream import Stream
from bottleneck.errors import BottleneckWarning, CacheError, DamagedShard, MissingFeatures, NewerShard, ShardError
from bottleneck.images.digest import signature
from bottleneck.images.keys import Digests, digests_of
from bottleneck.utils.files import fsync_folder
from bottleneck.utils.folder import LinkError
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree, memo

_SHARD_NAME = re.compile(r"[0-9a-f]{64}\.h5")
_SHARD_BYTES = 64 << 20  # of features, in one shard at most: two more of it are taken to write it, one to read it


@dataclass(frozen=True)
class Store:
    """The features of one spec: a map digest -> features, spread over immutable shards.

    Any number of processes may read and write one store at once. What `append` returned for is there after any kill.
    """

    folder: Path
    spec: Spec

    def __repr__(self) -> str:
        return one_line(self, self.short_name, f"in {self.folder.parent}")

    @property
    def name(self) -> str:
        """``<model>-<fingerprint>``."""
        return self.folder.name

    @property
    def short_name(self) -> str:
        """``<model>-<first 8 digits of the fingerprint>``, enough to tell specs apart."""
        return self.name[: len(self.name) - 64 + 8]

    @property
    def tree(self) -> Tree:
        """The cache, below which no link is followed."""
        return tree_of(self.folder)

    @property
    def engines(self) -> Path:
        """Where the engines keep their conversions and checks; see `bottleneck.engines.records.EngineRecords`."""
        return self.folder / "engines"

    def shards(self) -> list[Path]:
        """Return the paths of all shards, sorted by name.

        Raises
        ------
        CacheError
            If the folder cannot be listed at the moment.
        """
        return [self._shard(name) for name in self._names()]

    def index(self) -> Index:
        """Return which images have features here, proven, as of now; its `Index.refresh` follows what others add."""
        return Index(self._names, self._load)

    def digests(self) -> Digests:
        """Return the digests of all images whose features are here, ``uint8 (n, 32)``, sorted, each once."""
        return self.index().digests()

    def dim(self) -> int:
        """Return d, the number of features of an image.

        Raises
        ------
        MissingFeatures
            If there is no shard yet.
        """
        for entry in self.index().entries.values():
            return entry.dim
        raise MissingFeatures(f"expected features in {self.folder}, found none: run {remedy(self.folder)}")

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each of ``(n, 32)`` digests whether its features are here."""
        return self.index().has(digests_of(digests))

    def missing(self, digests: Digests) -> NDArray[np.intp]:
        """Return the rows of ``(n, 32)`` digests whose features are not here."""
        return np.flatnonzero(~self.has(digests))

    def read(self, digests: Digests, *, as_stored: bool = False) -> NDArray[Any]:
        """Return the features of the given images, in the given order.

        Parameters
        ----------
        digests : ndarray of uint8, shape (n, 32)
        as_stored : bool
            Whether float16 stays float16.

        Returns
        -------
        ndarray of float32 (or float16), shape (n, d)

        Raises
        ------
        MissingFeatures
            If features of some of the images are not in the cache.

        Notes
        -----
        The shards that hold them are read whole, several at once, and proven before a row is served; a damaged one is
        moved to ``quarantine/``, and its images are missing from then on, unless another shard has them too.
        """
        digests = digests_of(digests)
        return read_rows(self.index(), digests, self._blocks, self._quarantine, as_stored=as_stored, where=self.folder)

    def stream(self, digests: Digests) -> Stream:
        """Return the features of the given images, each once, to be read again and again without being held."""
        return Stream(self.folder, self.spec, digests_of(digests), self.index, self._quarantine)

    def append(self, digests: Digests, features: NDArray[Any]) -> list[str]:
        """Commit features ``(n, d)`` of n images; when this returns they survive any kill.

        Where many small shards have come together, they are joined: see `bottleneck.cache.compact.join_small`.

        Returns
        -------
        list of str
            The names of the shards that hold them: one, unless they are very large.

        Raises
        ------
        CacheError
            If they cannot be written, or a feature is not finite.
        """
        digests, features = np.atleast_1d(digests), np.atleast_1d(features)
        step = max(1, _SHARD_BYTES // max(1, features[:1].nbytes))
        names = [
            self.commit(Rows(digests[start : start + step], features[start : start + step]))
            for start in range(0, max(1, len(features)), step)
        ]
        join_small(self, names)
        return names

    def commit(self, rows: Rows) -> str:
        """Commit the rows of one shard, as `append` does, and return its name."""
        with writing(self.folder):
            self._prepare()
            path = write_shard(self.folder / "shards", self.spec, rows)
            if not self.tree.exists(self.folder / "spec.json"):  # the folder was deleted between the two
                self._prepare()
            if not self.tree.exists(path):  # or while the shard was written
                write_shard(self.folder / "shards", self.spec, rows)
        with suppress(OSError):
            entry = ShardEntry(rows.digests, rows.features.shape[1], rows.features.dtype.name)
            save_entry(self._memo(path.stem), signature(self.tree.status(path)), entry)
        return path.stem

    def load(self, name: str) -> Rows | None:
        """Return what one shard holds, proven; None where it has vanished or was just quarantined."""
        try:
            found = self._trusted(name)
        except FileNotFoundError:
            return None
        return Rows(found.digests, np.concatenate(found.features)) if found else None

    def drop(self, name: str) -> None:
        """Delete one shard. Its images are missing then, unless another shard has them.

        Raises
        ------
        CacheError
            If it cannot be deleted.
        """
        try:
            self.tree.unlink(self._shard(name))
            with memo():
                self.tree.unlink(self._memo(name))
        except OSError as error:
            raise CacheError(f"cannot delete {self._shard(name)}: {error.strerror or error}") from error

    def retire(self, name: str, error: ShardError) -> str | None:
        """Move a shard that cannot be trusted to ``quarantine/``; its images count as missing.

        Returns
        -------
        str or None
            What to tell the user; None where another process has written the shard whole again since it was read.
        """
        message = quarantine(self._shard(name), error)
        if message:
            with memo():
                self.tree.unlink(self._memo(name))
        return message

    def keep(self) -> None:
        """Say that this store is in use: `bottleneck.cache.maintain.gc` then takes it for newly written."""
        with suppress(OSError), open(self.folder / "spec.json", "rb", opener=self.tree.open) as file:
            os.utime(file.fileno() if os.utime in os.supports_fd else file.name)

    def remember_request(self, request: dict[str, Any]) -> None:
        """Keep how the backbone of this spec was asked for, so that it can be built again."""
        with writing(self.folder):
            self.tree.write_json(self.folder / "request.json", request)

    def request(self) -> dict[str, Any] | None:
        """Return what `remember_request` kept last."""
        with suppress(OSError, ValueError):
            return checked_request(self.tree.read_json(self.folder / "request.json"))
        return None

    def asked(self) -> Request | None:
        """Return `request` as what it is, with its weights file where that is now; None where it is not known."""
        around = self.folder.absolute().parents[1:3]  # the cache, and what it lies in
        return recorded_request(self.request(), self.folder, around, self.spec.precision)

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
        """Make the folders and the spec; durable here too where another process has made them just now."""
        self.tree.make(self.folder / "shards")
        self.tree.write_json(self.folder / "spec.json", self.spec.to_json())
        self.tree.sync(self.folder)
        for folder in self.folder.absolute().parents[:3]:  # features/, the cache and where it lies
            with suppress(PermissionError):  # of a folder above that is not ours to open
                fsync_folder(folder)

    def _load(self, name: str) -> ShardEntry | None:
        """Return what a shard holds; None where it cannot be trusted.

        Raises
        ------
        FileNotFoundError
            If it has vanished.
        """
        with suppress(OSError):  # gone, or it cannot be reached just now, which reading it will say
            if known := load_entry(self._memo(name), self._shard(name)):
                return known
        found = self._trusted(name)
        if found is None:
            return None
        entry = ShardEntry(found.digests, found.dim, found.dtype.name)
        save_entry(self._memo(name), found.file, entry)
        return entry

    def _trusted(self, name: str) -> Blocks | None:
        """Return the proven rows of a shard; None where it cannot be trusted, and is out of use now.

        Raises
        ------
        FileNotFoundError
            If it has vanished, or was put back by another process: list the folder again.
        """
        found = self._blocks(name, Buffer())
        if isinstance(found, Blocks) and not all(np.isfinite(block).all() for block in found.features):
            found = ShardError(f"{self._shard(name)}: expected finite features, found NaN or infinity")
        if isinstance(found, ShardError) and self._quarantine(name, found):
            return None
        if not isinstance(found, Blocks):
            raise FileNotFoundError(f"{self._shard(name)} has vanished")
        return found

    def _blocks(self, name: str, buffer: Buffer) -> Blocks | ShardError | None:
        """Return the proven rows of a shard, why it cannot be trusted, or None where it has vanished."""
        try:
            return read_blocks(self._shard(name), self.spec, buffer)
        except NewerShard:
            raise
        except ShardError as error:
            return error
        except FileNotFoundError:
            return None

    def _quarantine(self, name: str, error: ShardError) -> bool:
        """Take a shard that cannot be trusted out of use, with a warning; return whether it is."""
        message = self.retire(name, error)
        if message:
            warnings.warn(message, BottleneckWarning, stacklevel=5)
        return message is not None


def quarantine(path: Path, error: ShardError) -> str | None:
    """Move a shard that cannot be trusted to ``quarantine/``; see `bottleneck.cache.store.Store.retire`."""
    name, folder = path.stem, path.parents[1]
    if isinstance(error, DamagedShard) and matches_name(path, name):
        return None
    target = folder / "quarantine" / f"{name}-{time.time_ns()}.h5"
    moved = f"It was moved to {target.parent}"
    cache = tree_of_shard(path)
    try:
        cache.rename(path, target, make=True)
    except FileNotFoundError:
        moved = "Another process has moved it to quarantine"
    except LinkError as error_there:
        moved = f"It is left where it is, and not used: {error_there}"
    except OSError:
        moved = "It is left where it is, and not used"
    if isinstance(error, DamagedShard) and matches_name(target, name):
        with suppress(OSError):  # it was written again between the look and the move
            cache.rename(target, path)
            return None
    return f"{error}. {moved}; {remedy(folder)} computes its images again"

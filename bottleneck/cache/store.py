"""All shards of a spec, and all specs of a cache. No locks: the listing of a folder is the manifest."""

import json
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import Rows, read_outline, read_shard, write_shard
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard, ShardError
from bottleneck.files import fsync_folder, sha256_hex, write_json
from bottleneck.images.dataset import Digests, digest_keys

_Read = TypeVar("_Read")
_SHARD_NAME = re.compile(r"[0-9a-f]{64}\.h5")


class FeatureCache:
    """A folder of features, ``<root>/features/<model>-<fingerprint>/``, one sub-folder a spec.

    Parameters
    ----------
    root : path
        Created when something is written.

    Examples
    --------
    >>> cache = FeatureCache("cache")
    >>> [store.name for store in cache.stores()]
    []
    """

    def __init__(self, root: str | os.PathLike[str] = "cache") -> None:
        self.root = Path(root)

    def store(self, spec: Spec) -> "Store":
        """Return the store of `spec`, which may be empty."""
        return Store(self.root / "features" / f"{_file_name(spec.backbone)}-{spec.fingerprint}", spec)

    def stores(self) -> list["Store"]:
        """Return the stores of all specs, by name; one whose spec cannot be read is left out with a warning."""
        found = []
        for path in sorted((self.root / "features").glob("*/spec.json")):
            try:
                found.append(self.open(path.parent.name))
            except CacheError as error:
                warnings.warn(f"{error}; its features are left alone", BottleneckWarning, stacklevel=3)
        return found

    def find(self, name: str) -> "Store":
        """Return the store of a backbone: ``resnet50``, or ``resnet50-1f0c`` (any unique beginning) among several.

        Raises
        ------
        CacheError
            If there is none, or more than one.
        """
        stores = self.stores()
        found = [store for store in stores if store.spec.backbone == name]
        found = found or [store for store in stores if store.name.startswith(name) and "-" in name]
        if len(found) == 1:
            return found[0]
        known = ", ".join(store.short_name for store in found or stores) or "none"
        advice = f"choose with --model: {known}" if found else f"cached are: {known}. Run `bottleneck extract` first"
        raise CacheError(f"expected features of {name!r} in {self.root}, found {len(found)} specs; {advice}")

    def open(self, name: str) -> "Store":
        """Return the store of that name.

        Raises
        ------
        CacheError
            If there is none, or its ``spec.json`` cannot be read.
        """
        folder = self.root / "features" / name
        try:
            own = self.store(Spec.from_json(json.loads((folder / "spec.json").read_bytes())))
        except (OSError, ValueError, TypeError) as error:
            raise CacheError(f"expected a spec in {folder / 'spec.json'}: {error}") from error
        if folder != own.folder:
            raise CacheError(f"expected the spec of {folder.name} in {folder / 'spec.json'}, found that of {own.name}")
        return own


@dataclass(frozen=True)
class Store:
    """The features of one spec: a map digest -> features, spread over immutable shards.

    Any number of processes may read and write one store at once. What `append` returned for is there after any kill.
    """

    folder: Path
    spec: Spec

    @property
    def name(self) -> str:
        """``<model>-<fingerprint>``."""
        return self.folder.name

    @property
    def short_name(self) -> str:
        """``<model>-<first 8 digits of the fingerprint>``, enough to tell specs apart."""
        return self.name[: len(self.name) - 64 + 8]

    def shards(self) -> list[Path]:
        """Return the paths of all shards, sorted by name."""
        try:
            names = os.listdir(self.folder / "shards")
        except FileNotFoundError:
            return []
        return [self.folder / "shards" / name for name in sorted(names) if _SHARD_NAME.fullmatch(name)]

    def digests(self) -> Digests:
        """Return the digests of all images whose features are here, ``uint8 (n, 32)``, sorted, each once."""
        parts = [outline.digests for outline in self._each(read_outline)]
        if not parts:
            return np.empty((0, 32), np.uint8)
        return np.unique(digest_keys(np.concatenate(parts))).view(np.uint8).reshape(-1, 32)

    def dim(self) -> int:
        """Return d, the number of features of an image.

        Raises
        ------
        MissingFeatures
            If there is no shard yet.
        """
        for outline in self._each(read_outline):
            return outline.dim
        raise MissingFeatures(f"expected features in {self.folder}, found none: run `bottleneck extract`")

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each of ``(n, 32)`` digests whether its features are here."""
        return np.isin(digest_keys(digests), digest_keys(self.digests()))

    def read(self, digests: Digests) -> NDArray[np.float32]:
        """Return the features of the given images, in the given order.

        Parameters
        ----------
        digests : ndarray of uint8, shape (n, 32)

        Returns
        -------
        ndarray of float32, shape (n, d)

        Raises
        ------
        MissingFeatures
            If features of some of the images are not in the cache.

        Notes
        -----
        Shards are read whole and one after the other; a damaged one is moved to ``quarantine/``, and its images are
        missing from then on.
        """
        keys = digest_keys(digests)
        wanted, rows_of = np.unique(keys, return_inverse=True)
        found = np.zeros(len(wanted), bool)
        features: NDArray[np.float32] | None = None
        for rows in self._each(read_shard):
            place = np.searchsorted(wanted, digest_keys(rows.digests)).clip(max=max(len(wanted) - 1, 0))
            use = wanted[place] == digest_keys(rows.digests) if len(wanted) else np.zeros(len(rows.digests), bool)
            if features is not None and rows.features.shape[1] != features.shape[1]:
                raise CacheError(
                    f"expected {features.shape[1]} features of each image in {self.folder}, found a shard with "
                    f"{rows.features.shape[1]}: delete that folder and extract again"
                )
            if features is None:
                features = np.zeros((len(wanted), rows.features.shape[1]), np.float32)
            features[place[use]] = rows.features[use]
            found[place[use]] = True
        if features is None or not found.all():
            raise MissingFeatures(
                f"expected features of {len(wanted)} images in {self.folder}, {int((~found).sum())} are missing: "
                f"run `bottleneck extract` again"
            )
        return features[rows_of]

    def append(self, digests: Digests, features: NDArray[Any]) -> None:
        """Commit features ``(n, d)`` of n images as one shard; when this returns they survive any kill.

        Raises
        ------
        CacheError
            If the shard cannot be written, or a feature is not finite.
        """
        try:
            self._prepare()
            write_shard(self.folder / "shards", self.spec, Rows(digests, features))
        except ShardError:
            raise
        except OSError as error:
            raise CacheError(
                f"cannot write to the cache {self.folder}: {error.strerror or error}. What was committed before is kept"
            ) from error

    def remember_request(self, request: dict[str, Any]) -> None:
        """Keep how the backbone of this spec was asked for, so that it can be built again."""
        write_json(self.folder / "request.json", request)

    def request(self) -> dict[str, Any] | None:
        """Return what `remember_request` kept last."""
        with suppress(OSError, ValueError):
            value = json.loads((self.folder / "request.json").read_bytes())
            return value if isinstance(value, dict) else None
        return None

    def _prepare(self) -> None:
        shards = self.folder / "shards"
        if shards.is_dir() and (self.folder / "spec.json").exists():
            return
        shards.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "spec.json", self.spec.to_json())
        for parent in (self.folder, *self.folder.absolute().parents[:3]):  # features/, the cache and where it lies
            fsync_folder(parent)

    def _each(self, read: Callable[[Path, Spec], _Read]) -> Iterator[_Read]:
        """Yield what `read` finds in each shard, and take the ones that cannot be trusted out of use."""
        for path in self.shards():
            try:
                found = read(path, self.spec)
            except FileNotFoundError:
                continue  # compacted or removed by another process since the folder was listed
            except NewerShard:
                raise
            except ShardError as error:
                self._quarantine(path, error)
            else:
                yield found

    def _quarantine(self, path: Path, error: ShardError) -> None:
        """Take a shard that cannot be trusted out of use; its images count as missing."""
        target = self.folder / "quarantine" / f"{path.stem}-{time.time_ns()}.h5"
        moved = f"It was moved to {target.parent}"
        try:
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
            if sha256_hex(target.read_bytes()) == path.stem and "match the name" in str(error):
                target.replace(path)  # since it was read, another process has written the same rows again
                return
        except FileNotFoundError:
            return  # another process was faster
        except OSError:
            moved = "It is left where it is, and not used"
        message = f"{error}. {moved}; `bottleneck extract` computes its images again"
        warnings.warn(message, BottleneckWarning, stacklevel=4)


def _file_name(model: str) -> str:
    """Return a model's name as a folder's: ``timm/x.y`` gives ``timm_x.y``."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", model)

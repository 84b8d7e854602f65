"""Maintain a cache: describe it, verify it, and delete specs and unneeded files."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.cache.feature_cache import FeatureCache, find_anywhere
from bottleneck.cache.lock import PATIENCE, maintenance
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.scans import read_scan, scanned
from bottleneck.cache.shard import Rows, read_shard
from bottleneck.cache.store import Store
from bottleneck.cache.sweep import GarbageCollection, delete_store, sweep_files, sweep_temporaries
from bottleneck.errors import CacheError, NewerShard, ShardError
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.tree import memo
from bottleneck.utils.warn import warn

Progress = Callable[[str, int, int], None]  # stage, done, total

_DAY = 86_400.0  # seconds
_MOST_DAYS = 1e6
_MAX_NAMES = 4  # of files in a message


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """Summary of one spec of a cache.

    Parameters
    ----------
    name, short_name : str
        ``<model>-<fingerprint>``, and the same with 8 digits of the fingerprint.
    model, layer : str
    asked : str
        Options that differ from the defaults, see `bottleneck.backbones.request.Request.unusual`.
    images, dim : int
        Number of rows and columns of its features.
    dtype : str
        ``float16``, ``float32``, or ``float16 and float32``.
    shards, bytes : int
    quarantined : int
        Number of shards in quarantine.
    first, last : str or None
        Time of the oldest and the newest shard, ISO 8601, UTC.
    problem : str or None
        Why the images could not be counted.
    """

    name: str
    short_name: str
    model: str
    layer: str
    asked: str
    images: int
    dim: int
    dtype: str
    shards: int
    bytes: int
    quarantined: int
    first: str | None
    last: str | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


def expect_folder(cache: FeatureCache) -> None:
    """Raise an error unless the cache's folder exists, even if it is empty.

    Raises
    ------
    CacheError
        If it is missing or is not a folder. Nothing is created.
    """
    if not cache.root.is_dir():
        raise CacheError(_missing(cache))


def empty_message(cache: FeatureCache) -> str:
    """Explain why a cache has neither features nor activations.

    Raises
    ------
    CacheError
        If it is not a folder.
    """
    if not cache.root.exists():
        return _missing(cache)
    expect_folder(cache)
    if any(kind.folder.is_dir() for kind in cache.rooms()):
        return f"{cache.root} is empty: `bottleneck extract IMAGES` fills it"
    return f"{cache.root} has no folder features/ yet: `bottleneck extract IMAGES` makes it a cache"


def _missing(cache: FeatureCache) -> str:
    if cache.root.exists():
        return f"expected the folder of a cache at {cache.root}, found something else; name another with --cache"
    return f"there is no folder {cache.root}: `bottleneck extract IMAGES` makes it, or name another with --cache"


def info(cache: FeatureCache) -> list[StoreInfo]:
    """Return a summary of each spec of a cache, sorted by name."""
    return [_info(store) for store in cache.stores()]


def _info(store: Store) -> StoreInfo:
    entries: list[ShardEntry] = []
    images, problem = 0, None
    try:
        index = store.index()
        entries, images = list(index.entries.values()), len(index.digests())
    except CacheError as error:  # a shard of a newer format, or one that cannot be read at the moment
        problem = str(error)
    status = [found for path in store.shards() if (found := _status(path))]
    quarantined: list[str] = []
    with memo():
        quarantined = store.tree.names(store.folder / "quarantine")
    times = sorted(found.st_mtime for found in status)
    return StoreInfo(
        name=store.name,
        short_name=store.short_name,
        model=store.spec.backbone,
        layer=store.spec.layer,
        asked=request.unusual() if (request := store.asked()) else "",
        images=images,
        dim=next((entry.dim for entry in entries), 0),
        dtype=" and ".join(sorted({entry.dtype for entry in entries})),
        shards=len(status),
        bytes=sum(found.st_size for found in status),
        quarantined=len([name for name in quarantined if not name.startswith(TEMPORARY)]),
        first=_date(times[0]) if times else None,
        last=_date(times[-1]) if times else None,
        problem=problem,
    )


@dataclass(frozen=True)
class Verification:
    """Result of verifying a cache.

    Parameters
    ----------
    shards : int
        Number of shards that were read.
    damage : list of str
        Problems that were found.
    """

    shards: int
    damage: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


def verify(cache: FeatureCache, progress: Progress | None = None) -> Verification:
    """Verify every shard of every spec, including activations. Damaged shards are moved to quarantine.

    Raises
    ------
    CacheError
        If there is no cache.
    """
    expect_folder(cache)
    if not any(kind.folder.is_dir() for kind in cache.rooms()) and any(cache.root.iterdir()):
        raise CacheError(f"expected a cache with a folder features/ in {cache.root}, found none")
    listed = [kind.listed() for kind in cache.rooms()]
    stores, damage = [[one for part in parts for one in part] for parts in zip(*listed, strict=True)]
    paths = [(store, path) for store in stores for path in store.shards()]
    for done, (store, path) in enumerate(paths, 1):
        try:
            rows = read_shard(path, store.spec)
            if not np.isfinite(rows.features).all():
                raise ShardError(f"{path}: expected finite features, found NaN or infinity")
        except FileNotFoundError:
            pass  # compacted since it was listed
        except NewerShard as error:
            damage.append(str(error))
        except ShardError as error:
            if message := store.retire(path.stem, error):
                damage.append(message)
        except CacheError as error:
            damage.append(str(error))
        if progress:
            progress("verify", done, len(paths))
    return Verification(len(paths), damage)


def remove(cache: FeatureCache, name: str, *, patience: float = PATIENCE) -> StoreInfo:
    """Delete all features or activations of a spec; warn of foreign files in its folder, which are kept.

    Parameters
    ----------
    cache : FeatureCache
    name : str
        See `bottleneck.cache.feature_cache.find_anywhere`.
    patience : float
        Seconds to wait for another maintenance job to finish.

    Raises
    ------
    CacheError
        If there is no such spec, or more than one, or it cannot be deleted.
    """
    expect_folder(cache)
    store = find_anywhere(cache, name)
    store_info = _info(store)
    if left := delete_store(store, patience=patience).left:
        names = ", ".join(map(str, left[:_MAX_NAMES])) + (", ..." if len(left) > _MAX_NAMES else "")
        warn(f"expected only files of bottleneck in {store.folder}, found other files, which are kept: {names}")
    return store_info


def gc(
    cache: FeatureCache, *, days: float = 14.0, dry_run: bool = False, patience: float = PATIENCE
) -> GarbageCollection:
    """Delete files and rows that are no longer needed.

    Parameters
    ----------
    cache : FeatureCache
    days : float
        Minimum age of what is deleted: younger files may belong to a running extraction. Less than a million.
    dry_run : bool
        Only report what would be deleted.
    patience : float
        Seconds to wait for another maintenance job to finish.

    Raises
    ------
    CacheError
        If `days` is out of range; or if a scan cannot be read or there is none, so that it is unknown which images
        are needed.

    Notes
    -----
    Files and folders are deleted only if their names and contents are those of bottleneck; see
    `GarbageCollection.left`. Links are not followed.
    """
    days = Arguments(CacheError).number("days", days, below=_MOST_DAYS)
    expect_folder(cache)
    before = time.time() - days * _DAY
    referenced = _referenced_digests(cache)
    found = GarbageCollection()
    features, activations = cache.rooms()
    recent, old = _split_by_age(activations.stores(), before)
    for store in old:
        _delete_store(store, found, dry_run, patience)
    for store in [*features.stores(), *recent]:
        with nullcontext() if dry_run else maintenance(store.folder, patience=patience):
            _sweep_shards(store, referenced, before, found, dry_run)
            sweep_files(store, before, found, dry_run)
    sweep_temporaries(cache.root, before, found, dry_run)
    return found


def _referenced_digests(cache: FeatureCache) -> DigestSet:
    """Return the digests of all images in the scans."""
    scans = scanned(cache.root)
    if not scans:
        raise CacheError(
            f"expected scans of your images in {cache.root / 'datasets'}, found none: every feature would seem "
            f"unneeded. Run `bottleneck extract` on the images you keep, or `bottleneck cache rm` on a whole spec"
        )
    parts: list[Digests] = [read_scan(path).digests for path in scans]
    return DigestSet(np.concatenate(parts))


def _split_by_age(stores: list[Store], before: float) -> tuple[list[Store], list[Store]]:
    """Return the stores that were written to since `before`, and the older ones."""
    old = [store for store in stores if all(_is_old(path, before) for path in _written(store))]
    return [store for store in stores if store not in old], old


def _written(store: Store) -> Iterator[Path]:
    """Yield the files that a writer of a store creates; ``shards/`` also contains unfinished ones."""
    yield store.folder / "spec.json"
    yield from (store.folder / "shards" / name for name in store.tree.names(store.folder / "shards"))


def _delete_store(store: Store, found: GarbageCollection, dry_run: bool, patience: float) -> None:
    done = delete_store(store, dry_run=dry_run, patience=patience)
    found.activations += 1
    found.bytes += done.bytes
    found.left += done.left
    found.paths.append(store.folder)


def _sweep_shards(store: Store, referenced: DigestSet, before: float, found: GarbageCollection, dry_run: bool) -> None:
    for name, entry in store.index().entries.items():
        path = store.folder / "shards" / f"{name}.h5"
        status = _status(path)
        keep = referenced.find(entry.digests) >= 0
        lost = int((~keep).sum())
        if status is None or not lost:
            continue
        if status.st_mtime > before:
            found.young += lost
            continue
        found.images += lost
        found.bytes += round(status.st_size * lost / len(keep))
        found.paths.append(path)
        if not dry_run and (rows := store.load(name)) is not None:
            if keep.any():
                store.commit(Rows(rows.digests[keep], rows.features[keep]))  # durable before the old shard is deleted
            store.drop(name)


def _is_old(path: Path, before: float) -> bool:
    status = _status(path)
    return status is not None and status.st_mtime <= before


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")

"""The union with another cache folder, perhaps of another machine, which is only read."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bottleneck.backbones.tuned import keep_tuned, kept_tuned
from bottleneck.backbones.weights_files import recorded_at
from bottleneck.cache.index import Index
from bottleneck.cache.scans import merge_scans
from bottleneck.cache.shard import Rows, read_shard
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import CacheError
from bottleneck.images.keys import DigestSet

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass
class Merge:
    """What was taken over from one cache.

    Parameters
    ----------
    source : Path
    added : int
        Images whose features are new here.
    known : int
        Images whose features were here already; ours are kept.
    scans : int
        Scans of images that were not known here.
    problems : list of str
        What could not be taken over, and why; everything else was.
    """

    source: Path
    added: int = 0
    known: int = 0
    scans: int = 0
    problems: list[str] = field(default_factory=list)


def merge(cache: FeatureCache, source: str | os.PathLike[str], progress: Progress | None = None) -> Merge:
    """Take over all features and scans of `source` that are missing in `cache`.

    Every shard of `source` is proven first; nothing in that folder is changed.

    Raises
    ------
    CacheError
        If `source` is no cache, or this one, or features cannot be written here.
    """
    other = FeatureCache(source)
    if not (other.root / "features").is_dir():
        raise CacheError(f"expected a cache with a folder features/ in {other.root}, found none")
    if cache.root.exists() and other.root.samefile(cache.root):
        raise CacheError(f"expected another cache than {cache.root} itself to merge with")
    done = Merge(other.root)
    stores, problems = other.listed()
    done.problems += problems
    total = sum(len(store.shards()) for store in stores)
    seen = 0
    for theirs in stores:
        ours = cache.store(theirs.spec)
        index = ours.index()
        for path in _shards(theirs):
            rows = _read(path, theirs, done)
            if rows is not None:
                _take(ours, index, rows, path, done)
            seen += 1
            if progress:
                progress("merge", min(seen, total), total)
        _take_request(ours, theirs)
    done.scans, problems = merge_scans(other.root, cache.root)
    done.problems += problems
    return done


def _shards(store: Store) -> Iterator[Path]:
    """Yield all shards of a store, and those that they are joined into meanwhile."""
    seen: set[Path] = set()
    while fresh := [path for path in store.shards() if path not in seen]:
        yield from fresh
        seen.update(fresh)


def _read(path: Path, store: Store, done: Merge) -> Rows | None:
    """Return the rows of a shard of the other cache, or note why they cannot be trusted; it is left where it is."""
    try:
        return read_shard(path, store.spec)
    except FileNotFoundError:
        return None  # joined with others
    except CacheError as error:
        done.problems.append(str(error))
        return None


def _take(ours: Store, index: Index, rows: Rows, path: Path, done: Merge) -> None:
    """Commit those rows that are not here yet."""
    dims = {entry.dim for entry in index.entries.values()}
    if dims - {rows.features.shape[1]}:
        done.problems.append(f"{path}: {rows.features.shape[1]} features of each image, those here have {dims.pop()}")
        return
    if not np.isfinite(rows.features).all():
        done.problems.append(f"{path}: features that are not finite")
        return
    fresh = np.intersect1d(DigestSet(rows.digests).rows, np.flatnonzero(~index.has(rows.digests)))
    if len(fresh):
        ours.append(rows.digests[fresh], rows.features[fresh])
        index.refresh()
    done.added += len(fresh)
    done.known += len(DigestSet(rows.digests)) - len(fresh)


def _take_request(ours: Store, theirs: Store) -> None:
    """Keep how their backbone was asked for, where nobody has asked here."""
    request = recorded_at(theirs.request(), theirs.folder, ours.folder)
    if request and ours.folder.is_dir() and ours.request() is None:
        with suppress(OSError):
            ours.remember_request(request)
            if found := kept_tuned(theirs.folder):  # that their network knows the labels of some images
                keep_tuned(ours.folder, found)

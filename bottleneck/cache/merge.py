"""Merge another cache folder, perhaps of another machine, into a cache. The other folder is only read."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.tuned import has_tuned, record_tuned, recorded_tuned
from bottleneck.backbones.weights_files import checked_request, recorded_at
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import Index
from bottleneck.cache.scans import merge_scans
from bottleneck.cache.shard import Rows, read_shard
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests, DigestSet

Progress = Callable[[str, int, int], None]  # stage, done, total


@dataclass(frozen=True)
class NewRows:
    """The rows of a shard of the other cache that are missing here.

    Parameters
    ----------
    path : Path
    digests : ndarray of uint8, shape (n, 32)
        Of the new images.
    rows : ndarray of int, shape (n,)
        Their rows in the shard.
    """

    path: Path
    digests: Digests
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Inspection:
    """Result of recomputing some features of a spec.

    Parameters
    ----------
    images : int
        Number of recomputed images.
    problem : str or None
        Why the spec must not be merged.
    note : str or None
        Why no image could be recomputed.
    """

    images: int = 0
    problem: str | None = None
    note: str | None = None


Inspect = Callable[[Store, Sequence[NewRows]], Inspection]


@dataclass
class Merge:
    """Result of merging one cache.

    Parameters
    ----------
    source : Path
    added : int
        Images whose features were added.
    known : int
        Images whose features existed here already and were kept.
    scans : int
        Number of scans that were added.
    recomputed : int
        Images whose features were recomputed and compared before the merge.
    problems : list of str
        What could not be merged, and why; everything else was.
    notes : list of str
        Specs of which no image could be recomputed, and why.
    """

    source: Path
    added: int = 0
    known: int = 0
    scans: int = 0
    recomputed: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**vars(self), "source": str(self.source)}


def merge(
    cache: FeatureCache,
    source: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    inspect: Inspect | None = None,
) -> Merge:
    """Add all features and scans of `source` that are missing in `cache`.

    Every shard of `source` is verified first; nothing in that folder is changed.

    Parameters
    ----------
    cache : FeatureCache
    source : path
    progress : callable, optional
        Called with a stage ("merge"), the number of finished shards, and their total number.
    inspect : callable, optional
        Compares some features of a spec with those that this machine computes, before any is added; see
        `bottleneck.extraction.recompute.Recomputation`. If it finds a problem, nothing of that spec is added.

    Raises
    ------
    CacheError
        If `source` is not a cache, or is `cache` itself, or features cannot be written.
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

    def step() -> None:
        nonlocal seen
        seen += 1
        if progress:
            progress("merge", min(seen, total), total)

    for theirs in stores:
        ours = cache.store(theirs.spec)
        if _take_store(ours, theirs, done, inspect, step):
            _take_request(ours, theirs, done)
    done.scans, problems = merge_scans(other.root, cache.root)
    done.problems += problems
    return done


def _take_store(ours: Store, theirs: Store, done: Merge, inspect: Inspect | None, step: Callable[[], None]) -> bool:
    """Merge the shards of a store, and those they are joined into meanwhile; return False if `inspect` rejects it."""
    index = ours.index()
    seen: set[Path] = set()
    while fresh := [path for path in theirs.shards() if path not in seen]:
        seen.update(fresh)
        if inspect and not _recomputed_equal(index, theirs, fresh, done, inspect):
            return False
        for path in fresh:
            rows = _read(path, theirs, done)
            if rows is not None:
                _take(ours, index, rows, path, done)
            step()
    return True


def _recomputed_equal(index: Index, theirs: Store, paths: Sequence[Path], done: Merge, inspect: Inspect) -> bool:
    """Let `inspect` recompute some missing features; return whether they equal those of the other cache."""
    new_rows = []
    for path in paths:
        with suppress(CacheError, FileNotFoundError):  # reported when the shard is merged
            digests = read_shard(path, theirs.spec).digests
            rows = np.flatnonzero(~index.has(digests))
            new_rows.append(NewRows(path, digests[rows], rows))
    if not any(len(one.rows) for one in new_rows):
        return True
    found = inspect(theirs, new_rows)
    done.recomputed += found.images
    done.notes += [found.note] if found.note else []
    done.problems += [found.problem] if found.problem else []
    return found.problem is None


def _read(path: Path, store: Store, done: Merge) -> Rows | None:
    """Return the rows of a shard of the other cache; add to the problems if it is invalid. The file stays in place."""
    try:
        return read_shard(path, store.spec)
    except FileNotFoundError:
        return None  # compacted
    except CacheError as error:
        done.problems.append(str(error))
        return None


def _take(ours: Store, index: Index, rows: Rows, path: Path, done: Merge) -> None:
    """Commit the rows that are missing here."""
    dims = {entry.dim for entry in index.entries.values()}
    if dims - {rows.features.shape[1]}:
        done.problems.append(
            f"{path}: {rows.features.shape[1]} features of each image, expected {dims.pop()} as in this cache"
        )
        return
    if not np.isfinite(rows.features).all():
        done.problems.append(f"{path}: expected finite features, found NaN or infinity")
        return
    fresh = np.intersect1d(DigestSet(rows.digests).rows, np.flatnonzero(~index.has(rows.digests)))
    if len(fresh):
        ours.append(rows.digests[fresh], rows.features[fresh])
        index.refresh()
    done.added += len(fresh)
    done.known += len(DigestSet(rows.digests)) - len(fresh)


def _take_request(ours: Store, theirs: Store, done: Merge) -> None:
    """Save the request of their backbone if there is none here."""
    request, tuned = _request(theirs, ours, done), recorded_tuned(theirs.folder)
    if tuned is None and has_tuned(theirs.folder):
        done.problems.append(f"{theirs.folder}: its record of the fine-tuned network cannot be read")
    if not ours.folder.is_dir() or ours.request() is not None:
        return
    with suppress(OSError):
        if request:
            ours.remember_request(request)
        if tuned:  # their network was trained on the labels of some images
            record_tuned(ours.folder, tuned)


def _request(theirs: Store, ours: Store, done: Merge) -> dict[str, Any] | None:
    path = theirs.folder / "request.json"
    try:
        return recorded_at(checked_request(theirs.tree.read_json(path)), theirs.folder, ours.folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        done.problems.append(f"{path}: {error}; it is not merged")
        return None

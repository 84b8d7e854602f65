"""The union with another cache folder, perhaps of another machine, which is only read."""

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
    """What a shard of the other cache has that is missing here.

    Parameters
    ----------
    path : Path
    digests : ndarray of uint8, shape (n, 32)
        Of images that are new.
    rows : ndarray of int, shape (n,)
        Which rows of the shard they are.
    """

    path: Path
    digests: Digests
    rows: NDArray[np.intp]


@dataclass(frozen=True)
class Inspection:
    """What came of computing some features of a spec again.

    Parameters
    ----------
    images : int
        How many were.
    problem : str or None
        Why nothing of the spec is to be taken.
    note : str or None
        Why none could be.
    """

    images: int = 0
    problem: str | None = None
    note: str | None = None


Inspect = Callable[[Store, Sequence[NewRows]], Inspection]


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
    recomputed : int
        Images whose features were computed again, and compared, before anything was taken.
    problems : list of str
        What could not be taken over, and why; everything else was.
    notes : list of str
        Of which specs nothing could be computed again, and why.
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
    """Take over all features and scans of `source` that are missing in `cache`.

    Every shard of `source` is proven first; nothing in that folder is changed.

    Parameters
    ----------
    cache : FeatureCache
    source : path
    progress : callable, optional
        Called with a stage ("merge"), how many shards are done, and how many there are.
    inspect : callable, optional
        Compares some features of a spec with what this machine computes, before any is taken; see
        `bottleneck.extraction.recompute.Recomputation`. Where it finds a problem nothing of that spec is taken.

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
    """Take over the shards of a store, and those that they are joined into meanwhile; return whether it is trusted."""
    index = ours.index()
    seen: set[Path] = set()
    while fresh := [path for path in theirs.shards() if path not in seen]:
        seen.update(fresh)
        if inspect and not _trusted(index, theirs, fresh, done, inspect):
            return False
        for path in fresh:
            rows = _read(path, theirs, done)
            if rows is not None:
                _take(ours, index, rows, path, done)
            step()
    return True


def _trusted(index: Index, theirs: Store, paths: Sequence[Path], done: Merge, inspect: Inspect) -> bool:
    """Have some of what is missing here computed again; return whether it is what the other cache has."""
    held = []
    for path in paths:
        with suppress(CacheError, FileNotFoundError):  # which taking it will say
            digests = read_shard(path, theirs.spec).digests
            rows = np.flatnonzero(~index.has(digests))
            held.append(NewRows(path, digests[rows], rows))
    if not any(len(one.rows) for one in held):
        return True
    found = inspect(theirs, held)
    done.recomputed += found.images
    done.notes += [found.note] if found.note else []
    done.problems += [found.problem] if found.problem else []
    return found.problem is None


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


def _take_request(ours: Store, theirs: Store, done: Merge) -> None:
    """Keep how their backbone was asked for, where nobody has asked here."""
    request, tuned = _request(theirs, ours, done), recorded_tuned(theirs.folder)
    if tuned is None and has_tuned(theirs.folder):
        done.problems.append(f"{theirs.folder}: what it says of the fine-tuning of its network cannot be read")
    if not ours.folder.is_dir() or ours.request() is not None:
        return
    with suppress(OSError):
        if request:
            ours.remember_request(request)
        if tuned:  # their network knows the labels of some images
            record_tuned(ours.folder, tuned)


def _request(theirs: Store, ours: Store, done: Merge) -> dict[str, Any] | None:
    path = theirs.folder / "request.json"
    try:
        return recorded_at(checked_request(theirs.tree.read_json(path)), theirs.folder, ours.folder)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        done.problems.append(f"{path}: {error}; it is not taken over")
        return None

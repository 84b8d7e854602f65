"""Save and load the last scan of each IMAGES, so that later commands do not need the images."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from bottleneck.cache.last import at_place, key_of, place_of
from bottleneck.cache.shard import writing
from bottleneck.errors import CacheError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.failures import write_table
from bottleneck.images.given import names_in_table
from bottleneck.images.keys import Digests
from bottleneck.images.listing import Listing
from bottleneck.images.splits import SPLITS, Shares
from bottleneck.images.table import is_table
from bottleneck.utils.files import canonical_json, sha256_hex
from bottleneck.utils.schema import Whole, checked
from bottleneck.utils.tree import Tree

_VERSION = 1
_Row = tuple[str, str, str | None, str | None, str | None]  # path, digest, label, split, group
_LARGEST = 4 << 30  # bytes; an image takes about 200


class _ScanFileRequired(TypedDict):
    version: int
    source: str
    images: list[_Row]
    failures: list[Failure]
    ignored: dict[str, Whole]


class _ScanFile(_ScanFileRequired, total=False):
    """Contents of a scan's file. Earlier versions lack these two keys."""

    place: str
    named: dict[str, str]


def save_scan(cache: Path, dataset: Dataset) -> None:
    """Save a dataset and a table of its failures; write nothing if they are unchanged."""
    hexadecimal = [row.tobytes().hex() for row in dataset.digests]
    columns = (dataset.paths, hexadecimal, dataset.labels, dataset.given_splits, dataset.groups)
    value = {
        "version": _VERSION,
        "source": str(dataset.source),
        "place": place_of(cache, dataset.source),
        "columns": ["path", "digest", "label", "split", "group"],
        "images": [list(row) for row in zip(*columns, strict=True)],
        "failures": [asdict(failure) for failure in dataset.failures],
        "ignored": dataset.ignored,
        "named": dataset.columns.to_json(),
    }
    with writing(cache):
        data = canonical_json(value)  # on one line: there may be a million images
        Tree(cache).write_changed(_path(cache, dataset.source), data)
        write_table(failures_path(cache, dataset.source), _as_in_table(dataset))
        Tree(cache).unlink(_old_path(cache, dataset.source))


def _as_in_table(dataset: Dataset) -> list[Failure]:
    """Return the failures, with the paths of a CSV as they are written there."""
    names = names_in_table(dataset) if dataset.failures else {}
    return [replace(failure, path=names.get(failure.path, failure.path)) for failure in dataset.failures]


def has_scan(cache: Path, source: Path) -> bool:
    """Return whether there is a scan of `source`."""
    with _listing(cache):
        return any(Tree(cache).exists(path(cache, source)) for path in (_path, _old_path))


def failures_path(cache: Path, source: Path) -> Path:
    """Return the path of the table of images of `source` that cannot be used."""
    return _path(cache, source).with_suffix(".failures.csv")


def conflicts_path(cache: Path, source: Path) -> Path:
    """Return the path of the table of images of `source` with two labels."""
    return _path(cache, source).with_suffix(".two-labels.csv")


def columns_of(cache: Path, source: Path) -> Columns:
    """Return the column names that the last scan of the table at `source` used."""
    if is_table(source):
        with suppress(CacheError):
            return load_scan(cache, source, Shares()).columns
    return Columns()


def save_listing(cache: Path, listing: Listing) -> None:
    """Save images that were listed in memory as a table, which later commands can read."""
    with writing(cache):
        Tree.above(listing.source, 2).write_changed(listing.source, listing.table())


def scanned(cache: Path) -> list[Path]:
    """Return the paths of all scans.

    Raises
    ------
    CacheError
        If their folder cannot be listed.
    """
    folder = cache / "datasets"
    with _listing(cache):
        names = Tree(cache).names(folder)
    return [folder / name for name in names if name.endswith(".json") and name != "last.json"]  # of older versions


def load_scan(cache: Path, source: str | os.PathLike[str], shares: Shares) -> Dataset:
    """Return the dataset of the last scan of `source`.

    Raises
    ------
    CacheError
        If there is no scan, or it cannot be read.
    """
    for path in (_path(cache, Path(source)), _old_path(cache, Path(source))):
        with suppress(FileNotFoundError):
            return replace(read_scan(path, shares), source=Path(source).absolute())
    raise CacheError(f"expected images at {source}: they do not exist, and no scan of them is cached")


def read_scan(path: Path, shares: Shares | None = None) -> Dataset:
    """Return the dataset of one of the files that `scanned` lists.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    CacheError
        If it cannot be read.
    """
    try:
        read = Tree.above(path, 2).read_json(path, _LARGEST)
        if isinstance(read, dict) and read.get("version", _VERSION) != _VERSION:
            raise CacheError(f"expected a scan of version {_VERSION} in {path}, found {read['version']!r:.50}")
        value = checked(read, _ScanFile)
        rows = value["images"]
        paths, digests, labels, splits, groups = zip(*rows, strict=True) if rows else ((),) * 5
        if unknown := set(splits) - {None, *SPLITS}:
            raise ValueError(f"expected splits {', '.join(SPLITS)}, found {unknown!r:.100}")
        return Dataset(
            source=_source(path.parents[1], value),
            paths=tuple(paths),
            digests=_digests(digests),
            labels=tuple(labels),
            given_splits=tuple(splits),
            groups=tuple(groups),
            shares=shares or Shares(),
            failures=tuple(value["failures"]),
            ignored=value["ignored"],
            columns=Columns.from_json(value.get("named", {})),
        )
    except (FileNotFoundError, CacheError):
        raise
    except (OSError, ValueError) as error:
        raise CacheError(f"cannot read the scan in {path}: {error}. Delete that file") from error


@contextmanager
def _listing(cache: Path) -> Iterator[None]:
    """Convert OSError to CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"cannot read the scans in {cache / 'datasets'}: {error}") from error


def merge_scans(source: Path, cache: Path) -> tuple[int, list[str]]:
    """Copy the scans of another cache for images that were never scanned here.

    Returns
    -------
    (int, list of str)
        Number of copied scans, and the problems of those that could not be read.
    """
    count, problems = 0, []
    try:
        found = scanned(source)
    except CacheError as error:
        return 0, [str(error)]
    for path in found:
        try:
            dataset = read_scan(path)
        except (CacheError, FileNotFoundError) as error:
            problems.append(str(error))
            continue
        if not has_scan(cache, dataset.source):
            save_scan(cache, dataset)
            count += 1
    return count, problems


def _digests(texts: Sequence[str]) -> Digests:
    """Convert hexadecimal digits to digests ``(n, 32)``.

    Raises
    ------
    ValueError
        If one is not a digest.
    """
    if any(len(text) != 64 for text in texts):
        raise ValueError("expected digests of 64 digits")
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(len(texts), 32)


def _source(cache: Path, value: _ScanFile) -> Path:
    """Return the path of a scan's images: relative to the cache if it exists there, else the original one.

    Raises
    ------
    ValueError, OSError
        If it is not a valid path.
    """
    if "\0" in value["source"] + value.get("place", ""):
        raise ValueError("expected a source without null characters")
    original = Path(value["source"])
    if "place" not in value:
        return original
    current = at_place(cache, value["place"])
    return current if current.exists() else original


def _path(cache: Path, source: Path) -> Path:
    return cache / "datasets" / f"{_name(source)}-{key_of(cache, source)}.json"


def _old_path(cache: Path, source: Path) -> Path:
    """Return the path of a scan written by a version that stored absolute paths."""
    return cache / "datasets" / f"{_name(source)}-{sha256_hex(os.fsencode(source.absolute()))[:16]}.json"


def _name(source: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", source.absolute().name)[:64] or "images"

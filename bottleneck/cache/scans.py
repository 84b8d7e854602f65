"""The last scans and the last extraction, so that later commands need not be told, or need the images."""

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.errors import CacheError
from bottleneck.files import canonical_json, sha256_hex, write_changed, write_json
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.splits import Shares

_VERSION = 1


@dataclass(frozen=True)
class Last:
    """The last extraction with a cache: its images, and the name of the store that took their features."""

    source: str
    labels: bool
    store: str


def save_last(cache: Path, last: Last) -> None:
    """Keep `last`; nothing is written when it is already kept."""
    write_json(cache / "datasets" / "last.json", {"version": _VERSION, **asdict(last)})


def load_last(cache: Path) -> Last | None:
    """Return the last extraction, or None before the first."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        value = json.loads((cache / "datasets" / "last.json").read_bytes())
        if isinstance(value, dict) and value.pop("version") == _VERSION:
            return Last(**value)
    return None


def save_scan(cache: Path, dataset: Dataset) -> None:
    """Keep a dataset, its failures included; nothing is written when it is already kept."""
    hexadecimal = [row.tobytes().hex() for row in dataset.digests]
    columns = (dataset.paths, hexadecimal, dataset.labels, dataset.given_splits, dataset.groups)
    value = {
        "version": _VERSION,
        "source": str(dataset.source),
        "columns": ["path", "digest", "label", "split", "group"],
        "images": [list(row) for row in zip(*columns, strict=True)],
        "failures": [asdict(failure) for failure in dataset.failures],
        "ignored": dataset.ignored,
    }
    write_changed(_path(cache, dataset.source), canonical_json(value))  # one line: a scan may list a million images


def load_scan(cache: Path, source: str | os.PathLike[str], shares: Shares) -> Dataset:
    """Return the dataset of the last scan of `source`.

    Raises
    ------
    CacheError
        If there is none, or it cannot be read.
    """
    path = _path(cache, Path(source))
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
        if value["version"] != _VERSION:
            raise CacheError(f"expected a scan of version {_VERSION} in {path}, found {value['version']}")
        rows = value["images"]
        paths, digests, labels, splits, groups = zip(*rows, strict=True) if rows else ((),) * 5
        return Dataset(
            source=Path(value["source"]),
            paths=tuple(paths),
            digests=np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32),
            labels=tuple(labels),
            given_splits=tuple(splits),
            groups=tuple(groups),
            shares=shares,
            failures=tuple(Failure(**failure) for failure in value["failures"]),
            ignored=value["ignored"],
        )
    except FileNotFoundError:
        raise CacheError(f"expected images at {source}: they are not there, and no scan of them is cached") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CacheError(f"cannot read the last scan of {source} in {path}: {error}. Delete that file") from error


def _path(cache: Path, source: Path) -> Path:
    absolute = str(source.absolute())
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.absolute().name)[:64] or "images"
    return cache / "datasets" / f"{name}-{sha256_hex(os.fsencode(absolute))[:16]}.json"

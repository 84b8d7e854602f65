"""Memos of the last extraction in each working folder, and of the last store for each IMAGES.

Both can always be deleted; commands then need the arguments that they would have taken from them. Their keys are paths
relative to the cache, so a project that is moved together with its cache keeps them, and projects that share a cache do
not see the memos of each other.
"""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bottleneck.cache.shard import writing
from bottleneck.errors import CacheError
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.schema import checked
from bottleneck.utils.tree import Tree, memo

_VERSION = 1
_HOME = "last"


@dataclass(frozen=True)
class Last:
    """The last extraction that was started in a working folder.

    Parameters
    ----------
    source : str
        Absolute path of the images.
    labels : bool
        Whether the source has labels.
    store : str or None
        Name of the store of the features; None if the extraction failed before it was known.
    finished : bool
        Whether the extraction completed.
    """

    source: str
    labels: bool
    store: str | None
    finished: bool = True

    @property
    def shown(self) -> str:
        """The source relative to the current folder, if it is below it."""
        path = Path(self.source)
        with suppress(ValueError, OSError):
            return str(path.relative_to(Path.cwd()))
        return self.source


def save_last(cache: Path, last: Last) -> None:
    """Save `last` for the current folder; write nothing if it is unchanged."""
    value = {**asdict(last), "source": place_of(cache, last.source)}
    with writing(cache):
        Tree(cache).write_json(_of_folder(cache), {"version": _VERSION, **value})


def load_last(cache: Path) -> Last | None:
    """Return the last extraction that was started in the current folder, or None."""
    with suppress(ValueError):
        last = checked(_read(cache, _of_folder(cache)), Last, closed=True)
        os.fsencode(last.source)
        return replace(last, source=str(at_place(cache, last.source)))
    return None


def save_latest(cache: Path, source: Path, store: str) -> None:
    """Save the name of the store that received features of `source` last; write nothing if it is unchanged."""
    with writing(cache):
        Tree(cache).write_json(_of_images(cache, source), {"version": _VERSION, "store": store})


def load_latest(cache: Path, source: Path) -> str | None:
    """Return the name of the store that received features of `source` last, or None if unknown."""
    store = _read(cache, _of_images(cache, source)).get("store")
    return store if isinstance(store, str) else None


class Remembered:
    """Context manager that saves the current extraction as the last one of the current folder, even if it fails.

    A later command without IMAGES then uses these images or none, never those of an earlier extraction.

    Parameters
    ----------
    cache : Path
    source : path
        The images.
    labels : bool
        Whether the source has labels.
    """

    def __init__(self, cache: Path, source: str | os.PathLike[str], labels: bool) -> None:
        self._cache = cache
        self._current = Last(os.path.abspath(source), labels, None, finished=False)

    def __enter__(self) -> "Remembered":
        previous = load_last(self._cache)
        if previous and previous.source != self._current.source:
            save_last(self._cache, self._current)  # before anything can fail or the process is killed
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None or not self._cache.is_dir():
            return
        with suppress(CacheError):
            save_last(self._cache, self._current)

    def takes(self, store: str) -> None:
        """Save the store that will receive the features, before the first is computed."""
        self._current = replace(self._current, store=store)
        previous = load_last(self._cache)
        if not previous or (previous.source, previous.store) != (self._current.source, store):
            save_last(self._cache, self._current)

    def done(self, labels: bool, store: str) -> None:
        """Save that all features are in `store`."""
        save_last(self._cache, replace(self._current, labels=labels, store=store, finished=True))
        save_latest(self._cache, Path(self._current.source), store)


def place_of(cache: Path, path: str | os.PathLike[str]) -> str:
    """Return a path relative to the cache; absolute if there is none, as between two drives on Windows."""
    with suppress(ValueError):
        return os.path.relpath(os.path.abspath(path), os.path.abspath(cache))
    return os.path.abspath(path)


def at_place(cache: Path, place: str) -> Path:
    """Return the absolute path of a result of `place_of` for the current location of the cache."""
    return Path(os.path.normpath(os.path.join(os.path.abspath(cache), place)))


def folder_of(home: Path) -> str:
    """Return the real path of the current folder relative to that of `home`: its key in memos of `home`."""
    return place_of(Path(os.path.realpath(home)), os.path.realpath(os.getcwd()))


def key_of(cache: Path, path: str | os.PathLike[str]) -> str:
    """Return a key of 16 hexadecimal digits for a path relative to the cache."""
    return sha256_hex(os.fsencode(place_of(cache, path)))[:16]


def _of_folder(cache: Path) -> Path:
    return cache / _HOME / "folders" / f"{sha256_hex(os.fsencode(folder_of(cache)))[:16]}.json"


def _of_images(cache: Path, source: Path) -> Path:
    return cache / _HOME / "images" / f"{key_of(cache, source)}.json"


def _read(cache: Path, path: Path) -> dict[str, Any]:
    with memo(ValueError):
        value = Tree(cache).read_json(path)
        if isinstance(value, dict) and value.pop("version", None) == _VERSION:
            return value
    return {}

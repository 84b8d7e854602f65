"""What was extracted last: in each working folder, and for each IMAGES.

Both are memos that can always be deleted; then a command asks for what it would have recalled. They are keyed by places
relative to the cache, so that a project that is moved with its cache keeps them, and projects that share a cache do not
see each other's.
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
    """The last extraction that was begun in a working folder.

    Parameters
    ----------
    source : str
        The images, an absolute path.
    labels : bool
        Whether the source gives labels.
    store : str or None
        Name of the store of the features; None where the extraction failed before they were known.
    finished : bool
        Whether it came to its end.
    """

    source: str
    labels: bool
    store: str | None
    finished: bool = True

    @property
    def shown(self) -> str:
        """The source as a user of the current folder would name it."""
        inside = Path(self.source)
        with suppress(ValueError, OSError):
            return str(inside.relative_to(Path.cwd()))
        return self.source


def save_last(cache: Path, last: Last) -> None:
    """Keep `last` for the current folder; nothing is written when it is already kept."""
    value = {**asdict(last), "source": place_of(cache, last.source)}
    with writing(cache):
        Tree(cache).write_json(_of_folder(cache), {"version": _VERSION, **value})


def load_last(cache: Path) -> Last | None:
    """Return the last extraction that was begun in the current folder, or None before the first."""
    with suppress(ValueError):
        last = checked(_read(cache, _of_folder(cache)), Last, closed=True)
        os.fsencode(last.source)
        return replace(last, source=str(at_place(cache, last.source)))
    return None


def save_latest(cache: Path, source: Path, store: str) -> None:
    """Keep which store took the features of `source` last; nothing is written when it is already kept."""
    with writing(cache):
        Tree(cache).write_json(_of_images(cache, source), {"version": _VERSION, "store": store})


def load_latest(cache: Path, source: Path) -> str | None:
    """Return the name of the store that took the features of `source` last, or None where that is not known."""
    store = _read(cache, _of_images(cache, source)).get("store")
    return store if isinstance(store, str) else None


class Remembered:
    """An extraction that the current folder remembers from its beginning, however it ends.

    A later command that is given no IMAGES then takes these images or none, never those of the extraction before.

    Parameters
    ----------
    cache : Path
    source : path
        The images.
    labels : bool
    """

    def __init__(self, cache: Path, source: str | os.PathLike[str], labels: bool) -> None:
        self._cache = cache
        self._now = Last(os.path.abspath(source), labels, None, finished=False)

    def __enter__(self) -> "Remembered":
        before = load_last(self._cache)
        if before and before.source != self._now.source:
            save_last(self._cache, self._now)  # before anything can fail, or the process is killed
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None or not self._cache.is_dir():
            return
        with suppress(CacheError):
            save_last(self._cache, self._now)

    def takes(self, store: str) -> None:
        """Say which store takes the features, before the first is computed."""
        self._now = replace(self._now, store=store)
        before = load_last(self._cache)
        if not before or (before.source, before.store) != (self._now.source, store):
            save_last(self._cache, self._now)

    def done(self, labels: bool, store: str) -> None:
        """Say that all features are in `store`."""
        save_last(self._cache, replace(self._now, labels=labels, store=store, finished=True))
        save_latest(self._cache, Path(self._now.source), store)


def place_of(cache: Path, path: str | os.PathLike[str]) -> str:
    """Return a path relative to the cache; absolute where there is none, as between two drives of Windows."""
    with suppress(ValueError):
        return os.path.relpath(os.path.abspath(path), os.path.abspath(cache))
    return os.path.abspath(path)


def at_place(cache: Path, place: str) -> Path:
    """Return the absolute path for what `place_of` gave, wherever the cache is now."""
    return Path(os.path.normpath(os.path.join(os.path.abspath(cache), place)))


def folder_of(home: Path) -> str:
    """Return the current folder relative to `home`, links followed: the key of what `home` remembers for it."""
    return place_of(Path(os.path.realpath(home)), os.path.realpath(os.getcwd()))


def key_of(cache: Path, path: str | os.PathLike[str]) -> str:
    """Return 16 hexadecimal digits that stand for a path beside this cache."""
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

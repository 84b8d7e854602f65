"""A quick look at a store that reads little and changes nothing; `bottleneck.cache.maintain.verify` reads all."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bottleneck.cache.shard import expect_sound, opened
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.tree import Tree

_DAY = 86_400.0  # seconds; a younger unfinished file may belong to a running extraction


@dataclass(frozen=True)
class StoreHealth:
    """What a quick look at a store found.

    Parameters
    ----------
    name : str
        Short name of the store.
    shards, bytes : int
        Number and size of its shards.
    checked : int
        Number of shards whose structure was checked: the newest ones.
    damage : tuple of str
        Why shards cannot be read.
    quarantined, leftovers : int
        Number of shards in quarantine, and of unfinished files that are older than a day.
    """

    name: str
    shards: int
    bytes: int
    checked: int
    damage: tuple[str, ...]
    quarantined: int
    leftovers: int


def look_at(store: Store, most: int) -> StoreHealth:
    """Return the health of a store, whose files stay where they are.

    Parameters
    ----------
    store : Store
    most : int
        Number of shards whose structure is checked: that the blocks of HDF5 are whole, not that the checksums match.

    Raises
    ------
    CacheError
        If its folder cannot be listed.
    """
    status = {path: found for path in store.shards() if (found := _status(store.tree, path))}
    newest = sorted(status, key=lambda path: -status[path].st_mtime)[:most]
    quarantined = [name for name in store.tree.names(store.folder / "quarantine") if not name.startswith(TEMPORARY)]
    folders = [store.folder, *(store.folder / name for name in ("shards", "index", "quarantine"))]
    return StoreHealth(
        name=store.short_name,
        shards=len(status),
        bytes=sum(found.st_size for found in status.values()),
        checked=len(newest),
        damage=tuple(_damage(newest)),
        quarantined=len(quarantined),
        leftovers=unfinished(store.tree, folders),
    )


def unfinished(tree: Tree, folders: Sequence[Path], now: float | None = None) -> int:
    """Return the number of unfinished files in some folders of a tree that are older than a day.

    Parameters
    ----------
    tree : Tree
    folders : sequence of Path
    now : float, optional
        Seconds since the epoch.
    """
    before = (time.time() if now is None else now) - _DAY
    paths = [folder / name for folder in folders for name in tree.names(folder) if name.startswith(TEMPORARY)]
    return sum(1 for path in paths if (found := _status(tree, path)) and found.st_mtime < before)


def _damage(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        try:
            with opened(path) as (file, status):
                expect_sound(path, partial(_read, file.fileno()), status.st_size)
        except FileNotFoundError:
            continue  # compacted since it was listed
        except CacheError as error:
            yield str(error)


def _read(descriptor: int, offset: int, size: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)  # Windows has no pread
    return os.read(descriptor, size)


def _status(tree: Tree, path: Path) -> os.stat_result | None:
    try:
        return tree.status(path)
    except OSError:
        return None

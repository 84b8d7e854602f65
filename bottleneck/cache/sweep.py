"""What a cache holds of ours, by name and content; what nobody needs of it is deleted, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottleneck.cache.kinds import ACTIVATIONS, FEATURES
from bottleneck.cache.lock import LOCK, PATIENCE, maintenance
from bottleneck.cache.store import Store
from bottleneck.engines.records import CONVERSION, ENGINES, UNFINISHED_CONVERSION
from bottleneck.errors import CacheError
from bottleneck.utils.files import TEMPORARY, temporary_beside
from bottleneck.utils.folder import LinkError, is_temporary
from bottleneck.utils.owned import Layout, Sweep, Test, any_content, beginning, delete, is_ours, json_with, rules_of
from bottleneck.utils.tree import Tree

_HASH = "[0-9a-f]{64}"
_QUARANTINE: Layout = {rf"{_HASH}-\d+\.h5": any_content}
_INDEX: Layout = {_HASH: beginning(b'{"version"')}
# A shard that is not whole any more is one of ours as long as its first bytes are.
_STORE: Layout = {
    "shards": {rf"{_HASH}\.h5": beginning(b"\x89HDF\r\n\x1a\n")},
    "index": _INDEX,
    "quarantine": _QUARANTINE,
    "engines": ENGINES,
    r"request\.json": json_with("model"),
    r"tuned\.json": json_with("model", "weights"),
    LOCK: beginning(),
    r"spec\.json": json_with("backbone", "weights"),  # the last: a store without one is reported
}
_UNFINISHED = (any_content, _STORE, UNFINISHED_CONVERSION)


@dataclass
class Garbage:
    """What nobody needs any more.

    Parameters
    ----------
    images : int
        Rows, of features and of activations, of images that no dataset names.
    activations : int
        Specs whose activations were not written for long; they go whole, and `images` does not count their rows.
    temporaries, quarantined, memos : int
        Unfinished files, shards in quarantine and memos of shards that are gone.
    young : int
        Rows that no dataset names, and that are kept because they are young.
    bytes : int
        What is freed, in all.
    paths : list of Path
        The files and folders in question; a shard that holds needed rows too is written anew without the others.
    left : list of Path
        What lies where garbage does and is not ours, by its name or content, or is a link: it stays.
    """

    images: int = 0
    activations: int = 0
    temporaries: int = 0
    quarantined: int = 0
    memos: int = 0
    young: int = 0
    bytes: int = 0
    paths: list[Path] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**vars(self), "paths": [str(path) for path in self.paths], "left": [str(path) for path in self.left]}


def delete_store(store: Store, *, dry_run: bool = False) -> Sweep:
    """Delete all that is ours of a store.

    Raises
    ------
    CacheError
        If it cannot be deleted, or another maintenance job is at work.
    """
    tree = store.tree
    try:
        if dry_run:
            return delete(tree, store.folder, _STORE, dry_run=True)
        with maintenance(store.folder, patience=PATIENCE):
            if delete(tree, store.folder, _STORE, dry_run=True).left:
                return delete(tree, store.folder, _STORE)
            doomed = tree.rename(store.folder, temporary_beside(store.folder))  # so that nobody sees a half of it
            tree.sync(store.folder.parent)
        return delete(tree, doomed, _STORE)
    except OSError as error:
        raise CacheError(f"cannot delete {store.folder}: {error.strerror or error}") from error


def sweep_files(store: Store, before: float, found: Garbage, dry_run: bool) -> None:
    """Delete what is in quarantine, memos of shards that are gone, and conversions, all written before a moment."""
    shards = {path.stem for path in store.shards()}
    sweep = _Sweeper(store.tree, before, found, dry_run)
    found.quarantined += sweep.within(store.folder / "quarantine", _QUARANTINE)
    found.memos += sweep.within(store.folder / "index", _INDEX, lambda name: name in shards)
    # The checks of engines are a few lines each, and stay.
    found.memos += sweep.within(store.engines, {r"[^.].*": CONVERSION}, lambda name: name.endswith(".json"))


def sweep_temporaries(root: Path, before: float, found: Garbage, dry_run: bool) -> None:
    """Delete the unfinished files and folders that killed processes left before a moment."""
    tree = Tree(root)
    sweep = _Sweeper(tree, before, found, dry_run)
    for folder in (root, root / "datasets", root / "specs", root / "last"):
        found.temporaries += sweep.temporaries(folder)
    for kind in ("folders", "images"):
        found.temporaries += sweep.temporaries(root / "last" / kind)
    for room in (root / FEATURES, root / ACTIVATIONS):
        found.temporaries += sweep.temporaries(room)
        for store in sweep.folders(room):
            if store in found.paths:
                continue  # it goes whole
            found.temporaries += sweep.temporaries(store)
            for inner in sweep.folders(store):
                found.temporaries += sweep.temporaries(inner)


class _Sweeper:
    """Deletes what was written before a moment, and notes what is not ours."""

    def __init__(self, tree: Tree, before: float, found: Garbage, dry_run: bool) -> None:
        self._tree, self._before, self._found, self._dry_run = tree, before, found, dry_run

    def within(self, folder: Path, layout: Layout, needed: Callable[[str], bool] = lambda name: False) -> int:
        """Delete from a folder what is ours and not needed; return how many files and folders."""
        names = [name for name in self._names(folder) if not name.startswith(TEMPORARY) and not needed(name)]
        return sum(self._delete(folder, name, rules_of(layout, name)) for name in names)

    def temporaries(self, folder: Path) -> int:
        """Delete unfinished files and folders from a folder; return how many."""
        names = [name for name in self._names(folder) if name.startswith(TEMPORARY)]
        return sum(self._delete(folder, name, _UNFINISHED if is_temporary(name) else ()) for name in names)

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder; links are none."""
        try:
            return [folder / name for name in self._tree.folders(folder)]
        except LinkError:
            return []

    def _names(self, folder: Path) -> list[str]:
        try:
            return self._tree.names(folder)
        except LinkError:
            self._found.left += [] if folder in self._found.left else [folder]
            return []

    def _delete(self, folder: Path, name: str, rules: Sequence[Test | Layout]) -> bool:
        """Delete what was written before the moment if one of the rules says that it is ours; return whether."""
        path = folder / name
        try:
            with self._tree.at(folder) as here:
                rule = next((rule for rule in rules if is_ours(here, name, rule)), None)
                young = here.status(name).st_mtime > self._before
            if rule is None:
                self._found.left.append(path)
                return False
            if young:
                return False
            done = delete(self._tree, path, rule, dry_run=self._dry_run)
        except FileNotFoundError:
            return False  # another process was quicker
        except LinkError:  # it has taken the folder's place since that was listed
            self._found.left += [] if folder in self._found.left else [folder]
            return False
        except OSError as error:
            raise CacheError(f"cannot delete {path}: {error.strerror or error}") from error
        self._found.bytes += done.bytes
        self._found.left += done.left
        self._found.paths += [] if done.left else [path]
        return not done.left

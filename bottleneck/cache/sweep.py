"""Delete unneeded files of a cache, but only those whose names and contents are ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottleneck.cache.kinds import ACTIVATIONS, FEATURES
from bottleneck.cache.lock import LOCK, PATIENCE, maintenance
from bottleneck.cache.store import Store
from bottleneck.engines.records import CONVERSION, ENGINES, UNFINISHED_CONVERSION
from bottleneck.errors import CacheError
from bottleneck.utils.files import TEMPORARY, temporary_path
from bottleneck.utils.folder import LinkError, is_temporary
from bottleneck.utils.owned import Layout, Sweep, Test, any_content, beginning, delete, is_ours, json_with, rules_of
from bottleneck.utils.tree import Tree

_HASH = "[0-9a-f]{64}"
_QUARANTINE: Layout = {rf"{_HASH}-\d+\.h5": any_content}
_INDEX: Layout = {_HASH: beginning(b'{"version"')}
# A truncated shard still counts as ours if its first bytes are intact.
_STORE: Layout = {
    "shards": {rf"{_HASH}\.h5": beginning(b"\x89HDF\r\n\x1a\n")},
    "index": _INDEX,
    "quarantine": _QUARANTINE,
    "engines": ENGINES,
    r"request\.json": json_with("model"),
    r"tuned\.json": json_with("model", "weights"),
    LOCK: beginning(),
    r"spec\.json": json_with("backbone", "weights"),  # deleted last: a store without it is reported
}
_UNFINISHED = (any_content, _STORE, UNFINISHED_CONVERSION)


@dataclass
class GarbageCollection:
    """The result of a garbage collection: files and rows that are no longer needed.

    Parameters
    ----------
    images : int
        Rows of features and activations of images that are in no scan.
    activations : int
        Specs whose activations have not been used for a long time; they are deleted completely and not counted in
        `images`.
    temporaries, quarantined, memos : int
        Unfinished files, shards in quarantine and memos of deleted shards.
    young : int
        Rows of images that are in no scan, kept because they are young.
    bytes : int
        Freed bytes in total.
    paths : list of Path
        The files and folders; a shard that also has needed rows is rewritten without the others.
    left : list of Path
        Files and folders in the same places that are links, or not ours by name or content; they are kept.
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


def delete_store(store: Store, *, dry_run: bool = False, patience: float = PATIENCE) -> Sweep:
    """Delete all files of a store that are ours.

    Raises
    ------
    CacheError
        If they cannot be deleted, or another maintenance job is running.
    """
    tree = store.tree
    try:
        if dry_run:
            return delete(tree, store.folder, _STORE, dry_run=True)
        with maintenance(store.folder, patience=patience):
            if delete(tree, store.folder, _STORE, dry_run=True).left:
                return delete(tree, store.folder, _STORE)
            renamed = tree.rename(store.folder, temporary_path(store.folder))  # so that nobody sees a partial store
            tree.sync(store.folder.parent)
        return delete(tree, renamed, _STORE)
    except OSError as error:
        raise CacheError(f"cannot delete {store.folder}: {error.strerror or error}") from error


def sweep_files(store: Store, before: float, found: GarbageCollection, dry_run: bool) -> None:
    """Delete shards in quarantine, memos of deleted shards, and conversions, if written before a given time."""
    shards = {path.stem for path in store.shards()}
    sweep = _Sweeper(store.tree, before, found, dry_run)
    found.quarantined += sweep.within(store.folder / "quarantine", _QUARANTINE)
    found.memos += sweep.within(store.folder / "index", _INDEX, lambda name: name in shards)
    # The engines' checks are small and are kept.
    found.memos += sweep.within(store.engines, {r"[^.].*": CONVERSION}, lambda name: name.endswith(".json"))


def sweep_temporaries(root: Path, before: float, found: GarbageCollection, dry_run: bool) -> None:
    """Delete unfinished files and folders of killed processes, if written before a given time."""
    tree = Tree(root)
    sweep = _Sweeper(tree, before, found, dry_run)
    for folder in (root, root / "datasets", root / "specs", root / "last"):
        found.temporaries += sweep.temporaries(folder)
    for key in ("folders", "images"):
        found.temporaries += sweep.temporaries(root / "last" / key)
    for kind in (root / FEATURES, root / ACTIVATIONS):
        found.temporaries += sweep.temporaries(kind)
        for store in sweep.folders(kind):
            if store in found.paths:
                continue  # deleted completely
            found.temporaries += sweep.temporaries(store)
            for inner in sweep.folders(store):
                found.temporaries += sweep.temporaries(inner)


class _Sweeper:
    """Deletes files that were written before a given time, and records foreign ones."""

    def __init__(self, tree: Tree, before: float, found: GarbageCollection, dry_run: bool) -> None:
        self._tree, self._before, self._found, self._dry_run = tree, before, found, dry_run

    def within(self, folder: Path, layout: Layout, is_needed: Callable[[str], bool] = lambda name: False) -> int:
        """Delete our files from a folder unless they are needed; return their number."""
        names = [name for name in self._names(folder) if not name.startswith(TEMPORARY) and not is_needed(name)]
        return sum(self._delete(folder, name, rules_of(layout, name)) for name in names)

    def temporaries(self, folder: Path) -> int:
        """Delete unfinished files and folders from a folder; return their number."""
        names = [name for name in self._names(folder) if name.startswith(TEMPORARY)]
        return sum(self._delete(folder, name, _UNFINISHED if is_temporary(name) else ()) for name in names)

    def folders(self, folder: Path) -> list[Path]:
        """Return the subfolders of a folder, except links."""
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
        """Delete a file or folder if it is old and matches one of the rules; return whether it was deleted."""
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
            return False  # another process has deleted it
        except LinkError:  # a link replaced the folder after the folder was listed
            self._found.left += [] if folder in self._found.left else [folder]
            return False
        except OSError as error:
            raise CacheError(f"cannot delete {path}: {error.strerror or error}") from error
        self._found.bytes += done.bytes
        self._found.left += done.left
        self._found.paths += [] if done.left else [path]
        return not done.left

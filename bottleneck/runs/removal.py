"""Delete runs: only what is a run, all of it at once, and nothing that others need."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.backbones.tuned import WEIGHTS
from bottleneck.backbones.weights_files import RecordedRequest
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckError, RunError
from bottleneck.runs.folder import RUN_LAYOUT, is_run_folder
from bottleneck.runs.listing import settings_of, size_of, unfinished_folders
from bottleneck.runs.lock import locked
from bottleneck.runs.run import list_runs
from bottleneck.utils.files import temporary_path
from bottleneck.utils.names import run_folder
from bottleneck.utils.owned import Sweep, delete
from bottleneck.utils.paths import expanded, moved
from bottleneck.utils.text import first_few
from bottleneck.utils.tree import Tree


@dataclass(frozen=True, kw_only=True)
class RemovedRun:
    """A run that was deleted, or would be.

    Parameters
    ----------
    name, path : str
    bytes : int
        Size of its files.
    needed_by : tuple of str
        What needs it, in words; not empty only if it was deleted by force.
    left : tuple of str
        Files in its folder that are not ours, and were kept.
    """

    name: str
    path: str
    bytes: int
    needed_by: tuple[str, ...]
    left: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


def remove_runs(
    names: Sequence[str | os.PathLike[str]],
    *,
    runs: str | os.PathLike[str] = "runs",
    cache: str | os.PathLike[str] = "cache",
    dry_run: bool = False,
    force: bool = False,
) -> list[RemovedRun]:
    """Delete runs and unfinished fine-tunings; delete none if one of them must be kept.

    Parameters
    ----------
    names : sequence of str or path
        Names of folders in `runs`, or paths.
    runs, cache : path
        Where runs and features are that may need them.
    dry_run : bool
        Whether to delete nothing and only return what would be deleted.
    force : bool
        Whether to delete runs that others need.

    Returns
    -------
    list of RemovedRun
        In the order of the names.

    Raises
    ------
    RunError
        If a folder is not a run or is a link; if another run, an unfinished fine-tuning or features in the cache need
        one; if a fine-tuning is running; or if a run cannot be deleted.

    Notes
    -----
    A run is first renamed, so that nobody sees a part of one. In a folder with other files, which are kept, only the
    files of the run are deleted, its card last: a killed removal can be repeated.
    """
    paths = list(dict.fromkeys(_named(run_folder(runs, name)) for name in names))
    for path in paths:
        _expect_run(path)
    needed = {path: tuple(_needing(path, paths, expanded(runs), cache)) for path in paths}
    if not force:
        _refuse(needed)
    sizes = {path: size_of(path) for path in paths}
    with ExitStack() as locks:  # all of them first, so that none is deleted if one is in use
        for path in () if dry_run else paths:
            if not (path / "card.json").exists():
                locks.enter_context(locked(path))
        aside = {path: _put_aside(path, dry_run) for path in reversed(paths)}
    left = {path: _deleted(path, found) for path, found in aside.items()}
    return [
        RemovedRun(
            name=path.name,
            path=str(path),
            bytes=sizes[path],
            needed_by=needed[path],
            left=tuple(map(str, left[path].left)),
        )
        for path in paths
    ]


def _named(path: Path) -> Path:
    """Return a path that ends in the name of its folder, which ``.`` and ``..`` do not."""
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))


def _expect_run(path: Path) -> None:
    if not path.name:
        raise RunError(f"expected a run, got {path}")
    try:
        is_run = is_run_folder(path)
    except FileNotFoundError:
        raise RunError(f"expected a run in {path}, found no such folder: `bottleneck runs` lists them") from None
    except OSError as error:
        raise RunError(f"expected a run in {path}: {error}") from error
    if not is_run:
        raise RunError(
            f"expected a run in {path}, found a folder without a card.json or finetune.json of this package: nothing "
            f"is deleted. If it is a damaged run, delete the folder yourself"
        )


def _refuse(needed: dict[Path, tuple[str, ...]]) -> None:
    for path, users in needed.items():
        if users:
            raise RunError(
                f"expected runs that nothing else needs, found that {path.name} is needed by {first_few(users)}: "
                f"delete {'that' if len(users) == 1 else 'those'} first, or use --force"
            )


def _needing(path: Path, leaving: Sequence[Path], home: Path, cache: str | os.PathLike[str]) -> Iterator[str]:
    """Yield, in words, what needs a run, except for runs that are deleted together with it."""
    others = _same_places(leaving)
    weights = path / WEIGHTS
    if weights.is_file():
        for run in list_runs(home):
            if os.path.realpath(run.path) not in others and _names(run.card.get("request"), run.path, weights):
                yield f"the run {run.name} (its network has these weights)"
        for store in FeatureCache(cache).stores():
            if _names(store.request(), store.folder, weights):
                yield f"features of {store.short_name} in {cache} (computed with these weights)"
    for unfinished in unfinished_folders(home):
        if os.path.realpath(unfinished) not in others and _begins_with(unfinished, path):
            yield f"the unfinished fine-tuning {unfinished.name} (it begins with this head)"


def _same_places(paths: Iterable[Path]) -> set[str]:
    return {os.path.realpath(path) for path in paths}


def _names(recorded: Any, home: Path, weights: Path) -> bool:
    """Return whether a request that is recorded in a folder is for these weights, also after both have moved."""
    with suppress(BottleneckError, ValueError):  # a path with a null character
        request = RecordedRequest(recorded or {}, home)
        file, place = request.request.file, request.place
        places = {os.path.realpath(one) for one in (file, place) if one is not None}
        if os.path.realpath(weights) in places:
            return True
        gone = file is not None and not any(map(os.path.exists, places))
        return bool(gone and file and (file.parent.name, file.name) == (weights.parent.name, weights.name))
    return False


def _begins_with(unfinished: Path, path: Path) -> bool:
    settings = settings_of(unfinished)
    recorded, places = settings.get("run"), settings.get("places")
    if not isinstance(recorded, str):
        return False
    place = places.get("run") if isinstance(places, dict) else None
    with suppress(ValueError):  # a path with a null character
        found = moved(recorded, place, unfinished, unfinished.absolute().parents[:2])
        return os.path.realpath(found) == os.path.realpath(path)
    return False


def _put_aside(path: Path, dry_run: bool) -> Sweep | Path:
    """Rename a run that is deleted as a whole; delete of another what is ours, and return what was left."""
    tree = Tree.above(path, 1)
    try:
        rehearsed = delete(tree, path, RUN_LAYOUT, dry_run=True)
        if dry_run:
            return rehearsed
        if rehearsed.left:
            return delete(tree, path, RUN_LAYOUT)
        renamed = tree.rename(path, temporary_path(path))
        tree.sync(path.parent)
        return renamed
    except OSError as error:
        raise RunError(f"cannot delete {path}: {error.strerror or error}") from error


def _deleted(path: Path, aside: Sweep | Path) -> Sweep:
    """Delete a run that was renamed, and return what was left of it."""
    if isinstance(aside, Sweep):
        return aside
    try:
        return delete(Tree.above(aside, 1), aside, RUN_LAYOUT)
    except OSError as error:
        raise RunError(f"cannot delete {path}: {error.strerror or error}") from error

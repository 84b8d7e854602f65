"""The configuration of a fine-tuning, saved in its folder so that it can be resumed."""

import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.cache.last import folder_of
from bottleneck.errors import RunError
from bottleneck.finetuning.recipe import Recipe
from bottleneck.runs.card import SETTINGS, next_number, number_in
from bottleneck.utils.names import run_folder
from bottleneck.utils.paths import expanded, moved, relative_to
from bottleneck.utils.schema import Finite, Whole, checked
from bottleneck.utils.tree import Tree

if TYPE_CHECKING:
    from bottleneck.finetuning.initial import InitialState

LAST = "last"
_PATHS = ("run", "source")
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """The configuration of a fine-tuning.

    Parameters
    ----------
    recipe : Recipe
    begin : str
        ``head`` or ``weights``.
    run : str or None
        The folder of the run whose head is handed back.
    model : str or None
        The model or spec of a backbone alone.
    source : str or None
        The images.
    dataset : str or None
        Their digest; see `bottleneck.images.dataset.Dataset.fingerprint`.
    memory : float or None
        The largest size of activations in memory, in bytes.
    folds : int or None
        Folds of the training images on which fine-tuning is compared with the head; None for no comparison.
    """

    recipe: Recipe
    begin: str = "head"
    run: str | None = None
    model: str | None = None
    source: str | None = None
    dataset: str | None = None
    memory: Finite | None = None
    folds: Whole | None = None

    def resolved(self, initial: "InitialState") -> "FineTuneConfig":
        """Return the configuration with its defaults replaced by the values found.

        Raises
        ------
        RunError
            If the images have changed since the fine-tuning began.
        """
        cached = initial.cached
        found = cached.usable.fingerprint()
        if self.dataset not in (None, found):
            raise RunError(
                f"expected the images, labels and splits with which the fine-tuning began, found different ones in "
                f"{cached.dataset.source}: begin again, without --resume"
            )
        return replace(
            self,
            run=str(initial.run.path.absolute()) if initial.run else None,
            model=cached.store.short_name,
            source=str(cached.dataset.source),
            dataset=found,
        )


def save_config(path: Path, config: FineTuneConfig) -> None:
    """Write a configuration into the folder of a run.

    Raises
    ------
    RunError
        If it cannot be written.
    """
    places = {name: relative_to(getattr(config, name), path) for name in _PATHS if getattr(config, name)}
    try:
        head = {"version": _VERSION, "number": next_number(path.parent), "folder": folder_of(path.parent)}
        Tree.above(path, 1).write_json(path / SETTINGS, {**head, **asdict(config), "places": places})
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror or error}") from error


def load_config(path: Path) -> FineTuneConfig:
    """Read a configuration that `save_config` wrote.

    Raises
    ------
    RunError
        If it is missing, damaged or from another version.
    """
    try:
        value = checked(Tree.above(path, 1).read_json(path / SETTINGS), dict[str, Any])
        if "version" not in value:
            raise ValueError("expected a version, found none")
        if (version := value.pop("version")) != _VERSION:
            raise RunError(f"expected settings of version {_VERSION} in {path / SETTINGS}, found {version!r:.50}")
        for name in ("folder", "number"):
            value.pop(name, None)
        places = checked(value.pop("places", {}), dict[str, str | None])
        checked(value.get("recipe"), Recipe, closed=True)
        found = checked(value, FineTuneConfig, closed=True)
        if found.begin not in ("head", "weights"):
            raise ValueError(f"expected to begin with head or weights, found {found.begin!r:.50}")
        around = path.absolute().parents[:2]  # the runs folder and its parent
        run, source = (
            recorded and str(moved(recorded, places.get(name), path, around))
            for name, recorded in (("run", found.run), ("source", found.source))
        )
        return replace(found, run=run, source=source)
    except RunError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"expected the settings of a fine-tuning in {path}, cannot read them: {error}") from error


def unfinished(runs: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """Return the folder of an unfinished fine-tuning; ``last`` is the one that began last.

    Raises
    ------
    RunError
        If there is none, or it is finished.
    """
    home = expanded(runs)
    names: list[str] = []
    with suppress(OSError):
        names = Tree(home).folders(home)
    candidates = sorted((home / name for name in names if (home / name / SETTINGS).exists()), key=_order)
    unfinished_runs = [path for path in candidates if not (path / "card.json").exists()]
    if str(name) == LAST:
        here = [path for path in unfinished_runs if _begun_here(path)]
        if not here:
            others = (
                f"; those that began in other folders: {', '.join(path.name for path in unfinished_runs)}"
                if unfinished_runs
                else ""
            )
            raise RunError(
                f"expected an unfinished fine-tuning in {runs} that began in the current folder, found none: there is "
                f"nothing to resume{others}"
            )
        return here[-1]
    path = run_folder(runs, name)
    if path.is_symlink() and path == expanded(name):  # made by the user
        path = path.resolve()
    if (path / "card.json").exists() and not (path / SETTINGS).exists():
        raise RunError(
            f"expected a fine-tuning in {path}, found the run of a fit: `bottleneck finetune --run` starts one"
        )
    if (path / "card.json").exists():
        raise RunError(f"the run in {path} has ended: there is nothing to resume")
    if not (path / SETTINGS).exists():
        known = ", ".join(one.name for one in unfinished_runs) or "none"
        raise RunError(f"expected a fine-tuning in {path}, found none; unfinished in {runs}: {known}")
    return path


def _begun_here(path: Path) -> bool:
    """Return whether a fine-tuning began in the current folder; True for earlier versions, which did not record it."""
    with suppress(OSError, ValueError, AttributeError):
        here = folder_of(path.parent)
        return bool(Tree.above(path, 1).read_json(path / SETTINGS).get("folder", here) == here)
    return True


def _order(path: Path) -> tuple[int, list[str | int]]:
    """Return the sort key of a fine-tuning: its number, then its name, for versions that had no numbers."""
    number = 0
    with suppress(OSError, ValueError):
        number = number_in(Tree.above(path, 1).read_json(path / SETTINGS))
    return number, _by_number(path.name)


def _by_number(name: str) -> list[str | int]:
    """Return a sort key that orders the numbers in names numerically."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]

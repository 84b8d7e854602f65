"""What a fine-tuning was asked to do, kept in its folder so that it can be resumed."""

import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bottleneck.cache.last import folder_of
from bottleneck.errors import RunError
from bottleneck.finetuning.initial import InitialState
from bottleneck.finetuning.recipe import Recipe
from bottleneck.runs.card import SETTINGS, next_number, number_in
from bottleneck.utils.names import run_folder
from bottleneck.utils.paths import expanded, moved, relative_to
from bottleneck.utils.schema import Finite, Whole, checked
from bottleneck.utils.tree import Tree

LAST = "last"
_PLACES = ("run", "source")  # settings that are paths
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a fine-tuning was asked to do.

    Parameters
    ----------
    recipe : Recipe
    begin : str
        ``head`` or ``weights``.
    run : str or None
        The folder of the run whose head is handed back.
    model : str or None
        The spec of the features of a backbone alone.
    source : str or None
        The images.
    dataset : str or None
        Their digest, once they were seen; see `bottleneck.images.dataset.Dataset.fingerprint`.
    memory : float or None
        Bytes that activations may take in memory.
    folds : int or None
        Of the training images, on which fine-tuning is compared with the head; None for no such comparison.
    """

    recipe: Recipe
    begin: str = "head"
    run: str | None = None
    model: str | None = None
    source: str | None = None
    dataset: str | None = None
    memory: Finite | None = None
    folds: Whole | None = None

    def of(self, origin: InitialState) -> "Settings":
        """Return the settings with all that was left to be found.

        Raises
        ------
        RunError
            If the images have changed since.
        """
        found = origin.usable.fingerprint()
        if self.dataset not in (None, found):
            raise RunError(
                f"expected the images, labels and splits with which the fine-tuning began, found others in "
                f"{origin.dataset.source}: begin again, without --resume"
            )
        return replace(
            self,
            run=str(origin.run.path.absolute()) if origin.run else None,
            model=origin.store.short_name,
            source=str(origin.dataset.source),
            dataset=found,
        )


def save_settings(path: Path, settings: Settings) -> None:
    """Write settings into the folder of a run.

    Raises
    ------
    RunError
        If they cannot be written.
    """
    places = {name: relative_to(getattr(settings, name), path) for name in _PLACES if getattr(settings, name)}
    try:
        head = {"version": _VERSION, "number": next_number(path.parent), "folder": folder_of(path.parent)}
        Tree.above(path, 1).write_json(path / SETTINGS, {**head, **asdict(settings), "places": places})
    except OSError as error:
        raise RunError(f"cannot write to {path}: {error.strerror or error}") from error


def load_settings(path: Path) -> Settings:
    """Read what `save_settings` wrote.

    Raises
    ------
    RunError
        If they are missing, damaged or of another version.
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
        found = checked(value, Settings, closed=True)
        if found.begin not in ("head", "weights"):
            raise ValueError(f"expected to begin with head or weights, found {found.begin!r:.50}")
        around = path.absolute().parents[:2]  # the folder of runs, and what it lies in
        run, source = (
            then and str(moved(then, places.get(name), path, around))
            for name, then in (("run", found.run), ("source", found.source))
        )
        return replace(found, run=run, source=source)
    except RunError:
        raise
    except (OSError, ValueError) as error:
        raise RunError(f"expected the settings of a fine-tuning in {path}, cannot read them: {error}") from error


def unfinished(runs: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """Return the folder of a fine-tuning that has not ended; ``last`` is the one that began last.

    Raises
    ------
    RunError
        If there is none, or it has ended.
    """
    home = expanded(runs)
    names: list[str] = []
    with suppress(OSError):
        names = Tree(home).folders(home)
    begun = sorted((home / name for name in names if (home / name / SETTINGS).exists()), key=_order)
    left = [path for path in begun if not (path / "card.json").exists()]
    if str(name) == LAST:
        here = [path for path in left if _begun_here(path)]
        if not here:
            others = f"; other folders began {', '.join(path.name for path in left)}" if left else ""
            raise RunError(
                f"expected a fine-tuning in {runs} that this folder began and that has not ended, found none: nothing "
                f"is to be resumed{others}"
            )
        return here[-1]
    path = run_folder(runs, name)
    if path.is_symlink() and path == expanded(name):  # the user's own
        path = path.resolve()
    if (path / "card.json").exists() and not (path / SETTINGS).exists():
        raise RunError(
            f"expected a fine-tuning in {path}, found the run of a fit: `bottleneck finetune --run` begins one"
        )
    if (path / "card.json").exists():
        raise RunError(f"the run in {path} has ended: there is nothing to be resumed")
    if not (path / SETTINGS).exists():
        known = ", ".join(one.name for one in left) or "none"
        raise RunError(f"expected a fine-tuning in {path}, found none; not ended in {runs} are: {known}")
    return path


def _begun_here(path: Path) -> bool:
    """Whether a fine-tuning was begun in the current folder; earlier versions did not tell."""
    with suppress(OSError, ValueError, AttributeError):
        here = folder_of(path.parent)
        return bool(Tree.above(path, 1).read_json(path / SETTINGS).get("folder", here) == here)
    return True


def _order(path: Path) -> tuple[int, list[str | int]]:
    """Return what fine-tunings are sorted by: their number, and the name where versions gave none."""
    number = 0
    with suppress(OSError, ValueError):
        number = number_in(Tree.above(path, 1).read_json(path / SETTINGS))
    return number, _by_number(path.name)


def _by_number(name: str) -> list[str | int]:
    """Return what names are sorted by: those of one second have a number behind them, and 10 comes after 9."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))]

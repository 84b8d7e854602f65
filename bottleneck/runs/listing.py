"""The runs in a folder at a glance, unfinished fine-tunings too."""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bottleneck.runs.card import SETTINGS, number_in
from bottleneck.runs.run import Run, list_runs
from bottleneck.utils.files import TEMPORARY
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree

UNFINISHED = "unfinished"
_FITTED, _TUNED = "fit", "finetune"


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run at a glance. What an unfinished fine-tuning, or a card of an earlier version, does not record is None.

    Parameters
    ----------
    name : str
        Of its folder.
    path : str
    number : int
        Orders the runs of a folder; 0 if unknown.
    kind : str
        ``fit``, ``finetune`` or ``unfinished``, which is a fine-tuning that can be resumed.
    created : str or None
        ISO 8601, UTC.
    source : str or None
        The path of the images.
    images : int or None
        Number of images that were used.
    model, head : str or None
    cv_accuracy, cv_ci95 : float, tuple of float, or None
        Cross-validated accuracy of a head, and its 95 % interval.
    accuracy, accuracy_ci95 : float, tuple of float, or None
        On the held-out images.
    heldout : str or None
        Their split.
    n_train, n_heldout : int or None
    final : bool
        Whether the head was trained again on all images after its test.
    bytes : int
        Size of the folder.
    """

    name: str
    path: str
    number: int
    kind: str
    created: str | None = None
    source: str | None = None
    images: int | None = None
    model: str | None = None
    head: str | None = None
    cv_accuracy: float | None = None
    cv_ci95: tuple[float, float] | None = None
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    heldout: str | None = None
    n_train: int | None = None
    n_heldout: int | None = None
    final: bool = False
    bytes: int = 0

    def __repr__(self) -> str:
        score = "" if self.accuracy is None else f"accuracy {self.accuracy:.1%}"
        return one_line(self, self.name, self.kind, score)

    @property
    def is_finished(self) -> bool:
        """Whether it is complete."""
        return self.kind != UNFINISHED

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class RunFile:
    """A file in the folder of a run.

    Parameters
    ----------
    name : str
        Relative to the folder.
    bytes : int
    """

    name: str
    bytes: int


def summaries(folder: str | os.PathLike[str]) -> list[RunSummary]:
    """Return the runs in `folder` and its unfinished fine-tunings, oldest first; warn of runs that cannot be read."""
    home = expanded(folder)
    found = [summary_of(run) for run in list_runs(home)]
    found += [_unfinished(path) for path in unfinished_folders(home)]
    return sorted(found, key=lambda run: (run.number, run.created or "", run.name))


def unfinished_folders(home: Path) -> list[Path]:
    """Return the folders of fine-tunings that have begun and not ended, sorted by name."""
    tree, names = Tree(home), list[str]()
    with suppress(OSError):
        names = [name for name in tree.folders(home) if not name.startswith(TEMPORARY)]
    return [home / name for name in names if _has(tree, home / name / SETTINGS, home / name / "card.json")]


def summary_of(run: Run) -> RunSummary:
    """Return a run at a glance."""
    card, metrics, search = run.card, run.card.get("metrics", {}), run.card.get("search", {})
    return RunSummary(
        name=run.name,
        path=str(run.path),
        number=number_in(card),
        kind=_TUNED if run.is_tuned else _FITTED,
        created=card.get("created"),
        source=card["dataset"].get("source"),
        images=card["dataset"].get("used"),
        model=card.get("model"),
        head=card.get("head"),
        cv_accuracy=search.get("cv_accuracy"),
        cv_ci95=_pair(search.get("cv_ci95")),
        accuracy=metrics.get("accuracy"),
        accuracy_ci95=_pair(metrics.get("accuracy_ci95")),
        heldout=card.get("heldout"),
        n_train=card.get("n_train"),
        n_heldout=card.get("n_heldout"),
        final=run.is_final,
        bytes=size_of(run.path),
    )


def files_of(folder: Path) -> list[RunFile]:
    """Return the files in a folder and below, sorted by name; links are neither listed nor followed."""
    found = []
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where, name)
            with suppress(OSError):
                if not path.is_symlink():
                    found.append(RunFile(path.relative_to(folder).as_posix(), path.stat().st_size))
    return sorted(found, key=lambda file: file.name)


def size_of(folder: str | os.PathLike[str]) -> int:
    """Return the bytes of the files in a folder and below, without links; 0 for what cannot be read."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += size_of(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total


def _unfinished(path: Path) -> RunSummary:
    settings = settings_of(path)
    source, model = settings.get("source"), settings.get("model")
    return RunSummary(
        name=path.name,
        path=str(path),
        number=number_in(settings),
        kind=UNFINISHED,
        source=source if isinstance(source, str) else None,
        model=model if isinstance(model, str) else None,
        bytes=size_of(path),
    )


def settings_of(path: Path) -> dict[str, Any]:
    """Return the settings of a fine-tuning as they are in its folder; empty if they cannot be read."""
    with suppress(OSError, ValueError):
        found = Tree.above(path, 1).read_json(path / SETTINGS)
        return found if isinstance(found, dict) else {}
    return {}


def _has(tree: Tree, this: Path, other: Path) -> bool:
    try:
        return tree.exists(this) and not tree.exists(other)
    except OSError:
        return False


def _pair(value: Any) -> tuple[float, float] | None:
    return None if value is None else (float(value[0]), float(value[1]))

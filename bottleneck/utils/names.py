"""How names of runs, and paths of files and folders, are written, so that neither is taken for the other.

A path has a separator in it: ``./last`` is a folder, ``last`` is a word. A run is ``run:NAME``, or NAME alone where
nothing but a run can be meant. So no file or folder that happens to be there changes what a word means.
"""

import os
from pathlib import Path

from bottleneck.errors import RunError
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded

RUN = "run:"
_MARKS = ("card.json", "finetune.json")  # of a run, and of a fine-tuning that has not ended


def is_path(text: str) -> bool:
    """Return whether a text is written as a path: it has a separator, begins with ``~``, or is ``.`` or ``..``."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return text in (".", "..") or text.startswith("~") or any(separator in text for separator in separators)


def written(value: str | os.PathLike[str]) -> str:
    """Return what a caller passed as text; a path object, however short, becomes a text that `is_path`."""
    text = Arguments(RunError).path("a name or a path", value)
    return text if isinstance(value, str) or is_path(text) else os.path.join(".", text)


def run_below(runs: str | os.PathLike[str], name: str) -> Path:
    """Return the folder of the run that ``run:NAME`` or NAME stands for.

    Raises
    ------
    RunError
        If it is not one name.
    """
    bare = name.removeprefix(RUN)
    if not bare or is_path(bare):
        raise RunError(f"expected {RUN}NAME with the name of a folder in {runs}, got {name!r}; a path has no {RUN}")
    expanded(bare)  # which refuses what no folder can be called
    return expanded(runs) / bare


def run_folder(runs: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """Return the folder of a run, where a name can mean nothing else.

    Parameters
    ----------
    runs : path
        Where runs are.
    name : str or path
        ``NAME`` or ``run:NAME`` of a folder in `runs`, or a path.

    Raises
    ------
    RunError
        If the name is that of another run in the current folder, too, or only there.
    """
    text = written(name)
    if is_path(text) and not text.startswith(RUN):
        return expanded(text)
    found, here = run_below(runs, text), Path(text)
    if text.startswith(RUN) or not _is_run(here) or os.path.realpath(here) == os.path.realpath(found):
        return found
    if _is_run(found):
        raise RunError(
            f"expected one run called {text}, found two: write {RUN}{text} for the one in {runs}, or "
            f"{os.path.join('.', text)} for the one in the current folder"
        )
    raise RunError(
        f"expected a run called {text} in {runs}, found none: write {os.path.join('.', text)} for the one of that name "
        f"in the current folder"
    )


def _is_run(folder: Path) -> bool:
    return any(os.path.exists(folder / mark) for mark in _MARKS)

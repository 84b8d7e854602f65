"""Distinguish names of runs from paths of files and folders by how they are written.

A path contains a separator: ``./last`` is a folder, ``last`` is a name. A run is ``run:NAME``, or just NAME where only
a run is possible. The meaning therefore never depends on which files or folders exist.
"""

import os
from pathlib import Path

from bottleneck.errors import RunError
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded

RUN = "run:"
_MARKS = ("card.json", "finetune.json")  # files of a run, and of an unfinished fine-tuning


def is_path(text: str) -> bool:
    """Return whether a text is a path: it contains a separator, begins with ``~``, or is ``.`` or ``..``."""
    separators = [separator for separator in (os.sep, os.altsep) if separator]
    return text in (".", "..") or text.startswith("~") or any(separator in text for separator in separators)


def written(value: str | os.PathLike[str]) -> str:
    """Convert a name or a path to text; a path object always becomes a text for which `is_path` is True."""
    text = Arguments(RunError).path("a name or a path", value)
    return text if isinstance(value, str) or is_path(text) else os.path.join(".", text)


def run_below(runs: str | os.PathLike[str], name: str) -> Path:
    """Return the folder of the run ``run:NAME`` or NAME.

    Raises
    ------
    RunError
        If it is not a single name.
    """
    bare = name.removeprefix(RUN)
    if not bare or is_path(bare):
        raise RunError(
            f"expected {RUN}NAME with the name of a folder in {runs}, got {name!r}; write a path without {RUN}"
        )
    expanded(bare)  # refuses invalid folder names
    return expanded(runs) / bare


def run_folder(runs: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """Return the folder of a run that is given by name or path.

    Parameters
    ----------
    runs : path
        Folder of the runs.
    name : str or path
        ``NAME`` or ``run:NAME`` of a folder in `runs`, or a path.

    Raises
    ------
    RunError
        If there is also, or only, a run of that name in the current folder.
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

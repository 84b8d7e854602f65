"""A run is written whole or not at all, and read back before it counts."""

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bottleneck.cache.last import folder_of
from bottleneck.errors import RunError
from bottleneck.heads.head import Head
from bottleneck.runs.card import next_number
from bottleneck.runs.card_parts import PREDICTIONS, check_read_back, store_parts
from bottleneck.runs.card_schema import VERSION
from bottleneck.runs.folder import delete_run
from bottleneck.runs.images import IMAGES, RunImages
from bottleneck.runs.run import Run, load_run
from bottleneck.utils.csv_text import csv_bytes
from bottleneck.utils.files import fsync_folder, sha256_hex, temporary_beside
from bottleneck.utils.paths import expanded, relative_to
from bottleneck.utils.tree import Tree


def save_run(
    folder: str | os.PathLike[str],
    name: str,
    head: Head,
    card: dict[str, Any],
    columns: Sequence[str],
    predictions: Iterable[Sequence[object]],
    images: RunImages | None = None,
) -> Run:
    """Write a run below `folder`, whole or not at all.

    Parameters
    ----------
    folder : path
        Where the runs are.
    name : str
        The run's name begins with the time and ends with this.
    head : Head
    card : dict
        A JSON object; ``version``, ``number`` and ``created`` are added.
    columns : sequence of str
        The header of ``predictions.csv``.
    predictions : iterable of sequences
        Its rows.
    images : RunImages, optional
        What each image was used for.

    Returns
    -------
    Run
        As it was read back.

    Raises
    ------
    RunError
        If the folder cannot be written, or what was written cannot be read back; nothing is left of it.
    """
    home = expanded(folder)
    temporary = temporary_beside(home / name)
    try:
        Tree(home).make(temporary)
        card = write_run(temporary, head, card, columns, predictions, images).card
        path = _named(home, dated(name), lambda path: Tree(home).rename(temporary, path))
        fsync_folder(home)
    except OSError as error:
        raise RunError(f"cannot write a run below {home}: {error.strerror or error}") from error
    finally:
        delete_run(temporary)  # nothing is left of it once it has its name
    return Run(path, card)


def write_run(
    path: Path,
    head: Head,
    card: dict[str, Any],
    columns: Sequence[str],
    predictions: Iterable[Sequence[object]],
    images: RunImages | None = None,
) -> Run:
    """Write what every run has into a folder; the card, which makes it a run, comes last, and all is read back.

    Raises
    ------
    OSError
        If the folder cannot be written.
    RunError
        If what was written cannot be read back; the folder is no run then.
    """
    runs, data = Tree.above(path, 1), head.to_bytes()
    runs.write(path / "head.safetensors", data)
    if images is not None:
        runs.write(path / IMAGES, images.to_bytes())
    rows = list(predictions)
    runs.write(path / PREDICTIONS, csv_bytes([columns, *rows]))
    card = {
        "version": VERSION,
        "number": next_number(path.parent),
        "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "folder": folder_of(path.parent),
        **card,
        "head_sha256": sha256_hex(data),
    }
    if "source" in card.get("dataset", {}):
        card["dataset"] = {**card["dataset"], "place": relative_to(card["dataset"]["source"], path)}
    runs.write_json(path / "card.json", store_parts(path, card))
    try:
        run = load_run(path)
        check_read_back(run, card, len(rows))
    except BaseException:
        runs.unlink(path / "card.json")
        raise
    return run


def new_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Make the folder of a run that takes long; it becomes a run by `write_run`.

    Raises
    ------
    RunError
        If it cannot be made.
    """
    home = expanded(folder)
    try:
        Tree(home).make(home)
        path = _named(home, dated(name), os.mkdir)
        fsync_folder(home)
    except OSError as error:
        raise RunError(f"cannot write a run below {home}: {error.strerror or error}") from error
    return path


def dated(name: str) -> str:
    """Return a run's name: the time, then `name`."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{name}"


def _named(home: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder of some name, with a number behind it where that name is taken, and return its path."""
    for number in range(1, 1000):
        path = home / (name if number == 1 else f"{name}-{number}")
        if os.path.lexists(path):
            continue
        try:
            make(path)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        else:
            return path
    raise OSError(f"no free name like {name}")

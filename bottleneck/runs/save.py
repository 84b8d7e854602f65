"""Write a run atomically, and read it back to verify it."""

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
from bottleneck.runs.uncertainty import UNCERTAINTY, Uncertainty
from bottleneck.utils.csv_text import csv_bytes
from bottleneck.utils.files import fsync_folder, sha256_hex, temporary_path
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
    uncertainty: Uncertainty | None = None,
    *,
    tree: type[Tree] = Tree,
) -> Run:
    """Write a run below `folder` atomically.

    Parameters
    ----------
    folder : path
        The folder of all runs.
    name : str
        The name of the run without its time, which is added in front.
    head : Head
    card : dict
        A JSON object; ``version``, ``number`` and ``created`` are added.
    columns : sequence of str
        The header of ``predictions.csv``.
    predictions : iterable of sequences
        Its rows.
    images : RunImages, optional
        The roles of the images.
    uncertainty : Uncertainty, optional
    tree : type of Tree
        Writes the files.

    Returns
    -------
    Run
        The run as it was read back.

    Raises
    ------
    RunError
        If the run cannot be written or read back; its folder is then deleted.
    """
    home = expanded(folder)
    temporary = temporary_path(home / name)
    try:
        tree(home).make(temporary)
        card = write_run(temporary, head, card, columns, predictions, images, uncertainty, tree=tree).card
        path = make_under_free_name(home, dated(name), lambda path: tree(home).rename(temporary, path))
        fsync_folder(home)
    except OSError as error:
        raise RunError(f"cannot write a run below {home}: {error.strerror or error}") from error
    finally:
        delete_run(temporary)  # does nothing once the run has its name
    return Run(path, card)


def write_run(
    path: Path,
    head: Head,
    card: dict[str, Any],
    columns: Sequence[str],
    predictions: Iterable[Sequence[object]],
    images: RunImages | None = None,
    uncertainty: Uncertainty | None = None,
    *,
    tree: type[Tree] = Tree,
) -> Run:
    """Write the files of a run into a folder, and read them back; the card, which makes it a run, is written last.

    Raises
    ------
    OSError
        If the folder cannot be written.
    RunError
        If they cannot be read back; the folder is then not a run.
    """
    runs, data = tree.above(path, 1), head.to_bytes()
    runs.write(path / "head.safetensors", data)
    if images is not None:
        runs.write(path / IMAGES, images.to_bytes())
    known = None if uncertainty is None else uncertainty.to_bytes()
    if known is not None:
        runs.write(path / UNCERTAINTY, known)
    rows = list(predictions)
    runs.write(path / PREDICTIONS, csv_bytes([columns, *rows]))
    card = {
        "version": VERSION,
        "number": next_number(path.parent),
        "created": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "folder": folder_of(path.parent),
        **card,
        "head_sha256": sha256_hex(data),
        **({} if known is None else {"uncertainty_sha256": sha256_hex(known)}),
    }
    if "source" in card.get("dataset", {}):
        card["dataset"] = {**card["dataset"], "place": relative_to(card["dataset"]["source"], path)}
    runs.write_json(path / "card.json", store_parts(runs, path, card))
    try:
        run = load_run(path)
        check_read_back(run, card, len(rows))
    except BaseException:
        runs.unlink(path / "card.json")
        raise
    return run


def new_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Create the folder of a run before its training; `write_run` completes it.

    Raises
    ------
    RunError
        If it cannot be created.
    """
    home = expanded(folder)
    try:
        Tree(home).make(home)
        path = make_under_free_name(home, dated(name), os.mkdir)
        fsync_folder(home)
    except OSError as error:
        raise RunError(f"cannot write a run below {home}: {error.strerror or error}") from error
    return path


def dated(name: str) -> str:
    """Return the name of a run: the time, then `name`."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{name}"


def make_under_free_name(home: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Make a folder called `name`, with a number appended if the name is taken, and return its path.

    Parameters
    ----------
    home : Path
        The folder of all runs.
    name : str
    make : callable
        Makes the folder of a path; raises FileExistsError if another process made it a moment ago.

    Raises
    ------
    OSError
        If the folder cannot be made.
    """
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

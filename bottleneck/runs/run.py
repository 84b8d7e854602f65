"""A run on disk: the folder that one fit or fine-tuning leaves, with the head, its card and its predictions."""

import errno
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request
from bottleneck.backbones.tuned import WEIGHTS
from bottleneck.backbones.weights_files import RecordedRequest
from bottleneck.cache.last import folder_of
from bottleneck.runs.card_parts import PREDICTIONS, CardParts, check_read_back, store_parts
from bottleneck.runs.card import SETTINGS, next_number, number_in
from bottleneck.errors import BottleneckWarning, ModelError, RunError
from bottleneck.utils.files import TEMPORARY, fsync_folder, sha256_hex, temporary_beside
from bottleneck.heads.head import Head, head_of, read_head
from bottleneck.runs.ranking import Choice, choose
from bottleneck.runs.card_schema import VERSION, checked_card
from bottleneck.runs.folder import delete_run
from bottleneck.runs.images import IMAGES, RunImages, load_run_images
from bottleneck.runs.backbone_request import located_request
from bottleneck.utils.csv_text import csv_bytes
from bottleneck.utils.names import run_folder
from bottleneck.utils.paths import expanded, relative_to
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree

_SHOWN = 4  # runs that a message names


@dataclass(frozen=True)
class Run(CardParts):
    """What one fit or fine-tuning left.

    Parameters
    ----------
    path : Path
        The folder: ``head.safetensors``, ``card.json``, ``predictions.csv``; of a fine-tuning ``model.safetensors``,
        ``curves.csv`` and ``curves.png`` too.
    card : dict
        What was trained, on what, and how well it does; `CardParts` reads what is too large for it.
    """

    path: Path
    card: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        metrics = self.card.get("metrics") or {}
        score = f"accuracy {100 * metrics['accuracy']:.1f} %" if "accuracy" in metrics else ""
        return one_line(self, str(self.path), score)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def is_tuned(self) -> bool:
        """Whether it is of a fine-tuning, and has weights of its own."""
        return self.card.get("kind") == "finetune"

    @property
    def is_final(self) -> bool:
        """Whether its head was trained on all images after the test of another, see `bottleneck.fitting.fit.fit`."""
        return "final" in self.card

    @property
    def weights(self) -> Path:
        """The weights of the whole network, where it was fine-tuned."""
        return self.path / WEIGHTS

    @property
    def cv_accuracy(self) -> float:
        """Mean accuracy over the folds of the training part, of a head."""
        return float(self.card["search"]["cv_accuracy"])

    @property
    def score(self) -> float:
        """How well it does by what it was chosen by, never by the held-out part.

        Of a head its cross-validated accuracy, but where its features come from a network that was fine-tuned on these
        images, and has seen their labels, at most that network's score. Of a fine-tuned network the score of the head
        that it began with, and what the validation part gained since, at most 1; or the accuracy on the validation
        part, where it began with a random layer.
        """
        score = self.card.get("score")
        return self.cv_accuracy if score is None else float(score)

    @property
    def features(self) -> str:
        """The network that it was trained on, and with which options its features were asked for."""
        unusual = ""
        with suppress(ModelError):
            unusual = RecordedRequest(self.card["request"], self.path).request.unusual()
        model = self.recorded("model")
        return f"{model} ({unusual})" if unusual else str(model)

    def recorded(self, name: str) -> Any:
        """Return what the card says of something that cards of earlier versions may lack.

        Raises
        ------
        RunError
            If this one does.
        """
        try:
            return self.card[name]
        except KeyError:
            raise RunError(f"expected {name} in {self.path / 'card.json'}, found none: fit again") from None

    @property
    def request(self) -> Request:
        """How its backbone is asked for, in the precision of its features, with its weights file where that is now.

        Raises
        ------
        RunError
            If the card does not tell.
        """
        return located_request(self.path, self.card)

    @cached_property
    def images(self) -> RunImages | None:
        """What each of its images was used for; None of a run of an earlier version, which does not know.

        Raises
        ------
        RunError
            If that cannot be read.
        """
        return load_run_images(self.path)

    @cached_property
    def head(self) -> Head:
        """The head.

        Raises
        ------
        RunError
            If it cannot be read, or does not belong to the card.
        """
        file = self.path / "head.safetensors"
        data = read_head(file, Tree(self.path).open)
        head = head_of(data, file)
        if sha256_hex(data) != self.card.get("head_sha256"):
            raise RunError(f"expected {file} to be as it was written; it has changed. Fit again")
        if head.fingerprint != self.card["fingerprint"] or head.classes != self.classes:
            raise RunError(f"expected the head and the card in {self.path} to belong together; they do not. Fit again")
        return head


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a run.

    Parameters
    ----------
    path : path
        The run's folder.

    Raises
    ------
    RunError
        If it is no run, is damaged, or was written by a newer bottleneck.
    """
    folder = expanded(path)
    file = folder / "card.json"
    try:
        return Run(folder, checked_card(Tree(folder).read_json(file)))
    except FileNotFoundError:
        if (folder / SETTINGS).exists():
            raise RunError(
                f"expected a run in {folder}, found a fine-tuning that has not ended: `bottleneck finetune --resume "
                f"{folder.name}` goes on with it"
            ) from None
        raise RunError(f"expected a run in {folder}, found no card.json; `bottleneck fit` makes one") from None
    except (OSError, ValueError) as error:
        raise RunError(f"expected a run in {folder}, cannot read its card, {file}: {error}. Fit it again") from error


def list_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """Return the runs in `folder` that can be read, oldest first."""
    found, problems = [], []
    home = expanded(folder)
    tree = Tree(home)
    try:
        names = [name for name in tree.folders(home) if not name.startswith(TEMPORARY)]  # of a fit at work, or killed
        linked = [path for path in tree.links(home) if (path / "card.json").exists()]
        problems += [f"expected a run in {path}, found a link" for path in linked]
    except OSError:
        names = []  # there is no such folder
    for name in names:
        try:
            if tree.exists(home / name / "card.json"):
                found.append(load_run(home / name))
        except RunError as error:
            problems.append(str(error))
    if problems:
        which = "it is left out" if len(problems) == 1 else f"{len(problems)} such runs are left out"
        warnings.warn(f"{problems[0]}; {which}", BottleneckWarning, stacklevel=3)
    return sorted(found, key=lambda run: (number_in(run.card), str(run.card.get("created")), run.name))


def default_run(folder: str | os.PathLike[str]) -> Choice:
    """Return the run that is used where none is named, and why; see `bottleneck.runs.ranking.choose`.

    Raises
    ------
    RunError
        If there is no run.
    """
    runs = list_runs(folder)
    if not runs:
        raise RunError(f"expected runs in {folder}, found none; `bottleneck fit` makes one")
    return choose(runs_here(runs, folder))


def runs_here(runs: Sequence[Run], folder: str | os.PathLike[str]) -> list[Run]:
    """Return those of the runs in `folder` that were made in the current folder, or all where they have one data set.

    Raises
    ------
    RunError
        If all were made in other folders, on several data sets: none of them is the one that is meant.
    """
    here = folder_of(expanded(folder))
    own = [run for run in runs if run.card.get("folder", here) == here]  # earlier versions did not tell
    if own or len({run.card["dataset"]["digest"] for run in runs}) < 2:
        return own or list(runs)
    latest = {run.card["dataset"]["digest"]: run.name for run in runs}
    raise RunError(
        f"expected a run in {folder} that was made in this folder, found runs of other folders on {len(latest)} data "
        f"sets: name one with --run, {', '.join(list(latest.values())[-_SHOWN:])}"
    )


def find_run(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> Run:
    """Return the run called `name` in `folder`, or the one in the folder that `name` is the path of.

    Raises
    ------
    RunError
        If there is none, or two may be meant; see `bottleneck.utils.names.run_folder`.
    """
    return load_run(run_folder(folder, name))


def images_of_weights(request: Request | None, runs: str | os.PathLike[str]) -> RunImages | None:
    """Return the images of the fine-tuned run whose weights a request names; None where they are not known."""
    file = request.file if request else None
    folders = [file.parent, expanded(runs) / file.parent.name] if file else []  # the latter where a project has moved
    for folder in folders:
        with suppress(RunError):
            if found := load_run_images(folder):
                return found
    return None


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

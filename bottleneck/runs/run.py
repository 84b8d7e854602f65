"""A run on disk: the folder of one fit or fine-tuning, with the head, its card and its predictions."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import Request
from bottleneck.backbones.tuned import WEIGHTS
from bottleneck.backbones.weights_files import RecordedRequest
from bottleneck.cache.last import folder_of
from bottleneck.errors import ModelError, RunError
from bottleneck.heads.head import Head
from bottleneck.heads.load import head_of, read_head
from bottleneck.runs.backbone_request import located_request
from bottleneck.runs.card import SETTINGS, number_in
from bottleneck.runs.card_parts import CardParts
from bottleneck.runs.card_schema import checked_card
from bottleneck.runs.images import RunImages, load_run_images
from bottleneck.runs.run_html import run_html
from bottleneck.runs.uncertainty import Uncertainty, load_uncertainty
from bottleneck.utils.files import TEMPORARY, sha256_hex
from bottleneck.utils.names import run_folder
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import one_line
from bottleneck.utils.tree import Tree
from bottleneck.utils.warn import warn

_SHOWN = 4  # runs that a message names
_METRICS = ("accuracy", "accuracy_ci95", "balanced_accuracy", "macro_f1", "log_loss", "ece")  # of a run's JSON


@dataclass(frozen=True)
class Run(CardParts):
    """The result of one fit or fine-tuning.

    Parameters
    ----------
    path : Path
        The folder, with ``head.safetensors``, ``card.json``, ``predictions.csv``, ``images.safetensors`` and
        ``uncertainty.safetensors``; a fine-tuning also has ``model.safetensors``, ``curves.csv`` and ``curves.png``.
    card : dict
        A description of the trained model and its images, with its scores; `CardParts` reads large parts from other
        files.
    """

    path: Path
    card: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        metrics = self.card.get("metrics") or {}
        score = f"accuracy {100 * metrics['accuracy']:.1f} %" if "accuracy" in metrics else ""
        return one_line(self, str(self.path), score)

    def _repr_html_(self) -> str:
        return run_html(self)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def is_tuned(self) -> bool:
        """Whether it is a fine-tuning, which has its own weights."""
        return self.card.get("kind") == "finetune"

    @property
    def is_final(self) -> bool:
        """Whether its head was trained on all images after another was tested, see `bottleneck.fitting.fit.fit`."""
        return "final" in self.card

    @property
    def weights(self) -> Path:
        """The path of the weights of a fine-tuned network."""
        return self.path / WEIGHTS

    @property
    def cv_accuracy(self) -> float:
        """Mean accuracy of a head over the folds of the training split."""
        return float(self.card["search"]["cv_accuracy"])

    @property
    def score(self) -> float:
        """The score that ranks runs, which never uses the held-out split.

        For a head, this is its cross-validated accuracy; on features of a fine-tuned network, which was trained on the
        labels, it is at most the score of that network. For a fine-tuned network, it is the score of its initial head
        plus the gain of accuracy on the validation split, at most 1; with a random initial layer, it is the accuracy on
        the validation split.
        """
        score = self.card.get("score")
        return self.cv_accuracy if score is None else float(score)

    @property
    def features(self) -> str:
        """The backbone, and the options of its features that are not the default."""
        unusual = ""
        with suppress(ModelError):
            unusual = RecordedRequest(self.card["request"], self.path).request.unusual()
        model = self.recorded("model")
        return f"{model} ({unusual})" if unusual else str(model)

    def recorded(self, name: str) -> Any:
        """Return an entry of the card that cards of earlier versions may lack.

        Raises
        ------
        RunError
            If this card lacks it.
        """
        try:
            return self.card[name]
        except KeyError:
            raise self._lacks(name) from None

    def _lacks(self, name: str) -> RunError:
        return RunError(f"expected {name} in {self.path / 'card.json'}, found none: fit again")

    def to_json(self) -> dict[str, Any]:
        """Return its options, scores and failures as a JSON object.

        Raises
        ------
        RunError
            If the card lacks one, as cards of earlier versions may.
        """
        try:
            return _tuned_json(self) if self.is_tuned else _fitted_json(self)
        except KeyError as error:
            raise self._lacks(str(error.args[0])) from None

    @property
    def request(self) -> Request:
        """The request that builds its backbone, see `bottleneck.runs.backbone_request.located_request`.

        Raises
        ------
        RunError
            If the card does not record it.
        """
        return located_request(self.path, self.card)

    @cached_property
    def images(self) -> RunImages | None:
        """The roles of its images; None for a run of an earlier version, which does not record them.

        Raises
        ------
        RunError
            If they cannot be read.
        """
        return load_run_images(self.path)

    @cached_property
    def uncertainty(self) -> Uncertainty | None:
        """The familiarity of images, and the prediction sets; None for a run of an earlier version.

        Raises
        ------
        RunError
            If they cannot be read, or do not belong to the card.
        """
        digest = self.card.get("uncertainty_sha256")
        return None if digest is None else load_uncertainty(self.path, digest, len(self.head.mean))

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
            raise RunError(f"expected {file} to be unchanged since it was written; it has changed. Fit again")
        if head.fingerprint != self.card["fingerprint"] or head.classes != self.classes:
            raise RunError(f"expected the head and the card in {self.path} to belong together; they do not. Fit again")
        return head


def _fitted_json(run: Run) -> dict[str, Any]:
    card, metrics, search = run.card, run.metrics, run.card["search"]
    return {
        "run": str(run.path),
        **{name: card[name] for name in ("head", "model", "params")},
        "classes": list(run.classes),
        **{name: card[name] for name in ("n_train", "n_heldout", "heldout", "headline", "normalize")},
        "select": search["select"],
        "divisions": search["divisions"],
        "final": card.get("final"),
        **{name: search[name] for name in ("cv_accuracy", "cv_ci95", "cv_spread")},
        **{name: metrics[name] for name in (*_METRICS, "top5_accuracy", "resolution")},
        "failed": len(run.failures),
        "failures": [vars(failure) for failure in run.failures],
        "seconds": round(card["seconds"], 3),
    }


def _tuned_json(run: Run) -> dict[str, Any]:
    card, metrics = run.card, run.metrics
    seconds = [epoch["seconds"] for epoch in card["curves"][1:]]
    return {
        "run": str(run.path),
        "from_run": card["from"]["run"],
        **{name: card[name] for name in ("model", "trained", "start_accuracy")},
        **{name: metrics[name] for name in _METRICS},
        **{name: card[name] for name in ("heldout", "heldout_test", "fold_test", "n_train")},
        "n_validation": card["validation"]["n"],
        "n_heldout": card["n_heldout"],
        "best_epoch": card["best_epoch"],
        "epochs": len(seconds),
        **{name: card[name] for name in ("curves", "trained_parameters", "frozen_parameters")},
        "seconds_per_epoch": round(sum(seconds) / len(seconds), 3) if seconds else None,
        "seconds": round(card["seconds"], 3),
    }


def load_run(path: str | os.PathLike[str]) -> Run:
    """Read a run.

    Parameters
    ----------
    path : path
        The run's folder.

    Raises
    ------
    RunError
        If it is not a run, is damaged, or was written by a newer version.
    """
    folder = expanded(path)
    file = folder / "card.json"
    try:
        return Run(folder, checked_card(Tree(folder).read_json(file)))
    except FileNotFoundError:
        if (folder / SETTINGS).exists():
            raise RunError(
                f"expected a run in {folder}, found an unfinished fine-tuning: continue it with `bottleneck finetune "
                f"--resume {folder.name}`"
            ) from None
        found = "no card.json" if folder.is_dir() else "no such folder"
        raise RunError(f"expected a run in {folder}, found {found}; {_runs_in(folder.parent)}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"expected a run in {folder}, cannot read its card, {file}: {error}. Fit it again") from error


def list_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """Return the runs in `folder` that can be read, oldest first."""
    found, problems = [], []
    home = expanded(folder)
    tree = Tree(home)
    try:
        names = [
            name for name in tree.folders(home) if not name.startswith(TEMPORARY)
        ]  # of a fit that is running or was killed
        linked = [path for path in tree.links(home) if (path / "card.json").exists()]
        problems += [f"expected a run in {path}, found a link" for path in linked]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise RunError(f"expected a folder of runs in {home}: {error.strerror or error}") from error
    for name in names:
        try:
            if tree.exists(home / name / "card.json"):
                found.append(load_run(home / name))
        except RunError as error:
            problems.append(str(error))
    if problems:
        which = "it is ignored" if len(problems) == 1 else f"{len(problems)} such runs are ignored"
        warn(f"{problems[0]}; {which}")
    return sorted(found, key=lambda run: (number_in(run.card), str(run.card.get("created")), run.name))


def runs_here(runs: Sequence[Run], folder: str | os.PathLike[str]) -> list[Run]:
    """Return the runs that were made in the current folder, or all runs if they are on one dataset.

    Raises
    ------
    RunError
        If all were made in other folders, on several datasets, so that none is the default.
    """
    here = folder_of(expanded(folder))
    own = [run for run in runs if run.card.get("folder", here) == here]  # earlier versions do not record it
    if own or len({run.card["dataset"]["digest"] for run in runs}) < 2:
        return own or list(runs)
    latest = {run.card["dataset"]["digest"]: run.name for run in runs}
    raise RunError(
        f"expected a run in {folder} that was made in this folder, found runs of other folders on {len(latest)} "
        f"datasets: name one with --run, {', '.join(list(latest.values())[-_SHOWN:])}"
    )


def _runs_in(folder: Path) -> str:
    """Name the newest runs in a folder, for an error message."""
    with suppress(OSError):
        if names := sorted((path.name for path in folder.iterdir() if (path / "card.json").is_file()), reverse=True):
            more = "" if len(names) <= _SHOWN else f" and {len(names) - _SHOWN} more"
            return f"runs in {folder}: {', '.join(names[:_SHOWN])}{more}"
    return "`bottleneck fit` creates one"


def find_run(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> Run:
    """Return the run called `name` in `folder`, or the run whose path is `name`.

    Raises
    ------
    RunError
        If there is none, or the name is ambiguous; see `bottleneck.utils.names.run_folder`.
    """
    return load_run(run_folder(folder, name))


def images_of_weights(request: Request | None, runs: str | os.PathLike[str]) -> RunImages | None:
    """Return the images of the fine-tuned run whose weights a request names; None if they are unknown."""
    file = request.file if request else None
    folders = [file.parent, expanded(runs) / file.parent.name] if file else []  # the latter if the project has moved
    for folder in folders:
        with suppress(RunError):
            if found := load_run_images(folder):
                return found
    return None

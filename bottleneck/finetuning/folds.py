"""Fine-tuning against its head by folds: images that neither of the two has seen, and more of them than are held out.

Each fold hands back a head that was fitted without its images, and trains from it with the same recipe. What stands
before the boundary runs for none of this: the activations are those of the fine-tuning itself.
"""

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bottleneck.backbones.tuned import has_tuned
from bottleneck.errors import BottleneckWarning, HeadError, RunError, TuningError
from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.context import Setting
from bottleneck.finetuning.handback import Layer, folded, refit
from bottleneck.finetuning.head_comparison import Right, against_head
from bottleneck.finetuning.history import Progress, Tensors
from bottleneck.finetuning.optim import optimizer
from bottleneck.finetuning.partition import Parts, codes, fold_parts, together
from bottleneck.finetuning.train import Job, predicted, train
from bottleneck.images.dataset import Dataset
from bottleneck.runs.folder import FOLDS
from bottleneck.utils.schema import checked
from bottleneck.utils.text import counted
from bottleneck.utils.tree import Tree

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What came of one fold.

    Parameters
    ----------
    number, folds : int
        From 1, and of how many.
    tuned, head : ndarray of bool, shape (n,)
        Whether each of them is right about the images of the fold.
    seconds : float
    """

    number: int
    folds: int
    tuned: Right
    head: Right
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PreparedFolds:
    """A fold that has not been trained.

    Parameters
    ----------
    parts : Parts
        Whose held-out part are the images that it tests.
    head : Layer
        Fitted on all training images of the other folds.
    first : Layer
        What training begins with: `head`, or where validation images were cut off one that has not seen them.
    """

    parts: Parts
    head: Layer
    first: Layer


def prepare(setting: Setting) -> list[PreparedFolds]:
    """Divide the training images, and fit the heads; done before any training, so that what cannot be is told first.

    Raises
    ------
    TuningError
        If there are too few images, a head cannot be fitted without those of a fold, or the backbone was fine-tuned
        before, and may have seen them all.
    """
    if setting.settings.folds is None:
        return []
    if has_tuned(setting.origin.store.folder):
        raise TuningError(
            f"expected a backbone that has not seen the training images, for folds to be a fair test, found one that "
            f"was fine-tuned, {setting.origin.store.short_name}: leave --folds out"
        )
    found = []
    for parts in fold_parts(setting.origin.usable, setting.parts, setting.settings.folds, setting.recipe.seed):
        first = _layer(setting, parts.train)
        head = _layer(setting, parts.train, parts.val) if parts.cut else first
        found.append(PreparedFolds(parts=parts, head=head, first=first))
    return found


def compare(
    setting: Setting,
    prepared: list[PreparedFolds],
    pristine: Tensors,
    folder: Path,
    job_of: Callable[[Setting], Job],
    tell: Callable[[Fold], None],
) -> dict[str, Any] | None:
    """Train in each fold, and test network and head on its images; return a JSON object for the card.

    Parameters
    ----------
    setting : Setting
        Its network is left as the last fold trained it.
    prepared : list of PreparedFolds
        Where it is empty, nothing is done, and None returned.
    pristine : dict of str to Tensor
        All that training changes, as it was before.
    folder : Path
        Of the checkpoint. A fold that was done before a kill is not done again.
    job_of : callable
        Returns what `bottleneck.finetuning.train.train` takes.
    tell : callable
        Called after each fold.

    Raises
    ------
    RunError
        If what a fold gave cannot be written, or read.
    """
    if not prepared:
        return None
    done = _read(folder, [len(one.parts.heldout) for one in prepared])
    for number, one in enumerate(prepared[len(done) :], len(done) + 1):
        started = time.perf_counter()
        found = _one(replace(setting, parts=one.parts), one, pristine, job_of)
        if found is None:
            warnings.warn(
                f"training diverged in fold {number}, so fine-tuning and the head are not compared by folds: try a "
                f"smaller learning rate",
                BottleneckWarning,
                stacklevel=2,
            )
            return None
        tuned, head = found
        done.append(found)
        if setting.processes.rank == 0:
            _write(folder, done)
        seconds = time.perf_counter() - started
        tell(Fold(number=number, folds=len(prepared), tuned=tuned, head=head, seconds=seconds))
    right_tuned, right_head = (np.concatenate(rows) for rows in zip(*done, strict=True))
    return {
        "folds": len(prepared),
        "tuned_accuracy": float(right_tuned.mean()),
        "head_accuracy": float(right_head.mean()),
        **against_head(right_tuned, right_head),
    }


def _layer(setting: Setting, *parts: Dataset) -> Layer:
    """Return the head that is fitted on these training images."""
    origin = setting.origin
    assert origin.run is not None
    try:
        return folded(refit(origin.run, together(origin.usable, parts), origin.store))
    except HeadError as error:
        raise TuningError(
            f"expected a head that can be fitted without the images of a fold, found none ({error}): give more images "
            f"of each class, or leave --folds out"
        ) from error


def _one(
    setting: Setting, prepared: PreparedFolds, pristine: Tensors, job_of: Callable[[Setting], Job]
) -> tuple[Right, Right] | None:
    """Return whether the network that is trained in a fold, and its head, are right about the images of the fold.

    None if training diverged.
    """
    network, tested = setting.network, setting.parts.heldout
    wanted, feed = codes(tested, setting.origin.classes), setting.as_they_are(tested)
    tail = Tail(network, setting.boundary)

    def right() -> Right:
        return np.equal(predicted(tail, feed, len(tested), setting.device), wanted)

    network.set_state(pristine)
    network.reset(prepared.head)
    head = right()
    network.reset(prepared.first)
    progress = Progress()
    finite = train(
        job_of(setting),
        optimizer(network, setting.plan, setting.recipe),
        progress,
        keep=lambda _: None,
        watch=lambda _: None,
    )
    if not finite:
        return None
    if progress.best == 0:
        return head, head  # as the fine-tuning keeps the head where no epoch is better
    network.set_state(progress.best_tensors)
    return right(), head


class _Done(TypedDict):
    tuned: list[bool]
    head: list[bool]


class _Folds(TypedDict):
    version: int
    folds: list[_Done]


def _write(folder: Path, done: list[tuple[Right, Right]]) -> None:
    folds = [{"tuned": tuned.tolist(), "head": head.tolist()} for tuned, head in done]
    data = json.dumps({"version": _VERSION, "folds": folds}) + "\n"
    try:
        Tree.above(folder, 2).write(folder / FOLDS, data.encode())
    except OSError as error:
        raise RunError(f"cannot write to {folder / FOLDS}: {error.strerror or error}") from error


def _read(folder: Path, sizes: list[int]) -> list[tuple[Right, Right]]:
    """Return what `_write` wrote, of folds of these sizes; nothing where none was done."""
    file = folder / FOLDS
    try:
        value = checked(Tree.above(folder, 2).read_json(file), _Folds)
        found = [(np.array(one["tuned"], bool), np.array(one["head"], bool)) for one in value["folds"]]
        if value["version"] != _VERSION or len(found) > len(sizes):
            raise ValueError(f"expected version {_VERSION} and at most {counted(len(sizes), 'fold')}")
        if any((len(tuned), len(head)) != (size, size) for (tuned, head), size in zip(found, sizes, strict=False)):
            raise ValueError("expected folds of the same images")
        return found
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(f"expected folds that were tested in {file}, cannot read them: {error}. Delete it") from error

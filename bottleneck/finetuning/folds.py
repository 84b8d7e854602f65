"""Cross-validated comparison of fine-tuning with its head.

Each fold tests its images with a head that was fitted without them, and with a network that was fine-tuned from that
head with the same recipe. This tests more images than are held out. The activations are those of the fine-tuning
itself, so the frozen part does not run again.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bottleneck.backbones.tuned import has_tuned
from bottleneck.errors import HeadError, RunError, TuningError
from bottleneck.finetuning.boundary import Tail
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.handback import LinearLayer, fold_head, refit_head
from bottleneck.finetuning.head_comparison import Correct, compare_with_head
from bottleneck.finetuning.history import History, Tensors
from bottleneck.finetuning.optim import build_optimizer
from bottleneck.finetuning.partition import Partition, fold_partitions, label_codes, union
from bottleneck.finetuning.train import TrainingJob, predict_codes, train
from bottleneck.images.dataset import Dataset
from bottleneck.runs.folder import FOLDS
from bottleneck.utils.schema import checked
from bottleneck.utils.text import counted
from bottleneck.utils.tree import Tree
from bottleneck.utils.warn import warn

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The result of one fold.

    Parameters
    ----------
    number, folds : int
        The number of the fold, from 1, and of all folds.
    tuned, head : ndarray of bool, shape (n,)
        Whether each of them classifies each image of the fold correctly.
    seconds : float
    """

    number: int
    folds: int
    tuned: Correct
    head: Correct
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PreparedFold:
    """A fold before its training.

    Parameters
    ----------
    partition : Partition
        Its held-out part contains the images that the fold tests.
    head : LinearLayer
        Fitted on all training images of the other folds.
    first : LinearLayer
        The initial last layer: `head`, or one fitted without the validation images that were cut off.
    """

    partition: Partition
    head: LinearLayer
    first: LinearLayer


def prepare_folds(context: FineTuningContext) -> list[PreparedFold]:
    """Divide the training images, and fit the heads; called before any training, so that errors come early.

    Raises
    ------
    TuningError
        If there are too few images, a head cannot be fitted without those of a fold, or the backbone was fine-tuned
        before, perhaps on these images.
    """
    cached, count = context.initial.cached, context.config.folds
    if count is None:
        return []
    if has_tuned(cached.store.folder):
        raise TuningError(
            f"expected a backbone that has not been trained on these images, so that folds are a fair test, found a "
            f"fine-tuned one, {cached.store.short_name}: leave --folds out"
        )
    prepared = []
    for partition in fold_partitions(cached.usable, context.partition, count, context.recipe.seed):
        first = _fitted_layer(context, partition.train)
        head = _fitted_layer(context, partition.train, partition.val) if partition.cut else first
        prepared.append(PreparedFold(partition=partition, head=head, first=first))
    return prepared


def compare_by_folds(
    context: FineTuningContext,
    prepared: Sequence[PreparedFold],
    initial_tensors: Tensors,
    folder: Path,
    watch: Callable[[Fold], None],
) -> dict[str, Any] | None:
    """Train in each fold, and test the network and the head on its images; return a JSON object for the card.

    Parameters
    ----------
    context : FineTuningContext
        Its network keeps the weights of the last fold.
    prepared : sequence of PreparedFold
        If it is empty, do nothing and return None.
    initial_tensors : dict of str to Tensor
        The trained tensors before training.
    folder : Path
        Of the checkpoint. Folds that were finished before a kill are not repeated.
    watch : callable
        Called after each fold.

    Raises
    ------
    RunError
        If the result of a fold cannot be written, or read.
    """
    if not prepared:
        return None
    done = _read(folder, [len(one.partition.heldout) for one in prepared])
    for number, one in enumerate(prepared[len(done) :], len(done) + 1):
        started = time.perf_counter()
        result = _run_fold(replace(context, partition=one.partition), one, initial_tensors)
        if result is None:
            warn(f"training diverged in fold {number}, so there is no comparison by folds: try a smaller learning rate")
            return None
        tuned, head = result
        done.append(result)
        if context.processes.is_rank_zero:
            _write(folder, done)
        seconds = time.perf_counter() - started
        watch(Fold(number=number, folds=len(prepared), tuned=tuned, head=head, seconds=seconds))
    all_tuned, all_head = (np.concatenate(rows) for rows in zip(*done, strict=True))
    return {
        "folds": len(prepared),
        "tuned_accuracy": float(all_tuned.mean()),
        "head_accuracy": float(all_head.mean()),
        **compare_with_head(all_tuned, all_head),
    }


def _fitted_layer(context: FineTuningContext, *parts: Dataset) -> LinearLayer:
    """Return the head of the run, refitted on these training images."""
    run, cached = context.initial.run, context.initial.cached
    assert run is not None
    try:
        return fold_head(refit_head(run, union(cached.usable, parts), cached.store))
    except HeadError as error:
        raise TuningError(
            f"expected a head that can be fitted without the images of a fold, found none ({error}): give more images "
            f"of each class, or leave --folds out"
        ) from error


def _run_fold(
    context: FineTuningContext, prepared: PreparedFold, initial_tensors: Tensors
) -> tuple[Correct, Correct] | None:
    """Return whether the network trained in a fold, and its head, classify each image of the fold correctly.

    None if training diverged.
    """
    network, tested = context.network, context.partition.heldout
    expected, loader = label_codes(tested, context.initial.classes), context.clean_loader(tested)
    tail = Tail(network, context.boundary)

    def correct() -> Correct:
        return np.equal(predict_codes(tail, loader, len(tested), context.device), expected)

    network.set_state(initial_tensors)
    network.set_layer(prepared.head)
    head = correct()
    network.set_layer(prepared.first)
    history, optimizer = History(), build_optimizer(network, context.plan, context.recipe)
    finite = train(TrainingJob.of(context), optimizer, history, save=lambda _: None, watch=lambda _: None)
    if not finite:
        return None
    if history.best == 0:
        return head, head  # fine-tuning also keeps the head if no epoch is better
    network.set_state(history.best_tensors)
    return correct(), head


class _Done(TypedDict):
    tuned: list[bool]
    head: list[bool]


class _Folds(TypedDict):
    version: int
    folds: list[_Done]


def _write(folder: Path, done: list[tuple[Correct, Correct]]) -> None:
    folds = [{"tuned": tuned.tolist(), "head": head.tolist()} for tuned, head in done]
    data = json.dumps({"version": _VERSION, "folds": folds}) + "\n"
    try:
        Tree.above(folder, 2).write(folder / FOLDS, data.encode())
    except OSError as error:
        raise RunError(f"cannot write to {folder / FOLDS}: {error.strerror or error}") from error


def _read(folder: Path, sizes: list[int]) -> list[tuple[Correct, Correct]]:
    """Read the finished folds, whose sizes must match; return an empty list if there are none."""
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
        raise RunError(f"expected the results of folds in {file}, cannot read them: {error}. Delete it") from error

"""The head of features that tell nothing: each class has its share of the training rows, whatever the image.

That is so of features of which none differs between the training rows: of blank images, of a network whose last layers
are dead. A fold of which it is so says the shares of its own rows; the head of all rows does where it is so of all
folds, since then no fold can say what the differences between them are worth.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import BottleneckWarning
from bottleneck.heads.family import NEVER, Family, Fitted, Params, Validation
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.problem import Problem

_MANY = 0.5  # of the features: so many constant ones are worth a warning
_SHOWN = 5
_CHECK = "check that the images are not blank, and the model's weights and layer"


class Prior(Family):
    """The family of a head without weights, whose biases are the logarithms of the classes' shares.

    The shares are those of the weights that the family would train with: balanced classes, and equal ones, have 1 / k
    each. Its scores are logarithms of probabilities: they need no calibration.

    Parameters
    ----------
    instead_of : Family
        Whose name and grid it takes over.
    """

    def __init__(self, instead_of: Family) -> None:
        self.instead_of = instead_of

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the family that was to be trained."""
        return self.instead_of.name

    def grid(self, task: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the points of the other family; at all of them the head is the same."""
        return self.instead_of.grid(task, full=full)

    def cross_validate(self, task: Problem, points: Sequence[Params]) -> "PriorValidation":
        """Return the logarithms of the shares in the training part of each fold."""
        return PriorValidation(task, len(points))

    def fit(self, task: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Return the head of the shares in all rows."""
        weight = np.zeros((task.count, task.table.shape[1]), np.float32)
        bias = _log_shares(task.whole())[0].astype(np.float32)
        return Fitted(form=LinearHead, parts={"weight": weight, "bias": bias})


@dataclass(frozen=True)
class PriorValidation:
    """The scores of tested rows by the shares of their fold, see `bottleneck.heads.family.Validation`."""

    task: Problem
    points: int

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the scores, the same at each point."""
        for fold, scores in enumerate(_log_shares(self.task).astype(np.float32)):
            rows = np.flatnonzero(self.task.folds.tested == fold)
            yield rows, np.broadcast_to(scores, (self.points, len(rows), len(scores)))


def unless_constant(family: Family, task: Problem, *, warn: bool = True) -> Family:
    """Return the family, or `Prior` in its place where the features of the task tell nothing.

    Warns where that is so, and where many of the features are the same in all rows.
    """
    constant, folds = task.scaling.constant, task.constant_folds
    nothing = bool(constant.all() or (len(folds) and folds.all()))
    if warn and (nothing or constant.mean() >= _MANY):
        message = _nothing(constant, len(task.codes)) if nothing else _little(constant, len(task.codes))
        warnings.warn(message, BottleneckWarning, stacklevel=2)
    return Prior(family) if nothing else family


def known_blocks(task: Problem, validation: Validation) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield what a validation does, with the scores of `Prior` for rows that a constant fold tests."""
    constant, shares = task.constant_folds, _log_shares(task).astype(np.float32)
    for rows, scores in validation.blocks():
        fold = task.folds.tested[rows]
        replaced = constant[fold][:, None]
        yield rows, np.where(replaced, shares[fold], scores) if replaced.any() else scores


def _nothing(constant: NDArray[np.bool_], rows: int) -> str:
    which = f"all {len(constant):,} the same in all {rows:,} training rows"
    if not constant.all():
        which = f"all {len(constant):,} the same in all training rows of each fold"
    return (
        f"expected features that differ between images, found {which}: each class gets its share of the training rows "
        f"as its probability, whatever the image; {_CHECK}"
    )


def _little(constant: NDArray[np.bool_], rows: int) -> str:
    columns = np.flatnonzero(constant)
    some = ", ".join(map(str, columns[:_SHOWN].tolist())) + (", ..." if len(columns) > _SHOWN else "")
    return (
        f"{len(columns):,} of {len(constant):,} features are the same in all {rows:,} training rows and tell nothing "
        f"(columns {some}); {_CHECK}"
    )


def _log_shares(task: Problem) -> NDArray[np.float64]:
    """Return the logarithm of each class's share of the weight of each fold ``(F, k)``; `NEVER` for absent classes."""
    weights = task.weights.astype(np.float64)
    totals = np.stack([np.bincount(task.codes, of_fold, task.count) for of_fold in weights.T])
    shares = totals / totals.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.log(shares, out=np.full(shares.shape, NEVER), where=shares > 0)
    return found

"""The head for constant features: it predicts the class frequencies of the training rows for every image.

Features are constant if, for example, images are blank or the last layers of a network are dead. A fold with constant
features predicts the frequencies of its own rows. The final head does so if the features are constant in all rows, or
within every fold: then no fold can measure whether the differences between folds are informative.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import MASKED, Family, Fitted, Params, Validation
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.problem import Problem
from bottleneck.utils.warn import warn

_MANY = 0.5  # fraction of constant features that causes a warning
_SHOWN = 5
_CHECK = "check that the images are not blank, and the model's weights and layer"


class Prior(Family):
    """The family of heads with zero weights, whose biases are the log class frequencies.

    Frequencies are weighted as in the training of the original family: balanced classes have 1 / k each. The scores are
    log probabilities and need no calibration.

    Parameters
    ----------
    instead_of : Family
        The original family, which provides name and grid.
    """

    def __init__(self, instead_of: Family) -> None:
        self.instead_of = instead_of

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the original family."""
        return self.instead_of.name

    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the points of the original family; the head is the same at all of them."""
        return self.instead_of.grid(problem, full=full)

    def cross_validate(self, problem: Problem, points: Sequence[Params]) -> "PriorValidation":
        """Return the log class frequencies of the training part of each fold."""
        return PriorValidation(problem, len(points))

    def fit(self, problem: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Return the head of the class frequencies of all rows."""
        weight = np.zeros((problem.count, problem.table.shape[1]), np.float32)
        bias = _log_shares(problem.on_all_rows())[0].astype(np.float32)
        return Fitted(form=LinearHead, parts={"weight": weight, "bias": bias})


@dataclass(frozen=True)
class PriorValidation:
    """Log class frequencies of the folds as scores, see `bottleneck.heads.family.Validation`."""

    problem: Problem
    points: int

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the scores, the same at each point."""
        for fold, scores in enumerate(_log_shares(self.problem).astype(np.float32)):
            rows = np.flatnonzero(self.problem.folds.tested == fold)
            yield rows, np.broadcast_to(scores, (self.points, len(rows), len(scores)))


def prior_if_constant(family: Family, problem: Problem, *, quiet: bool = False) -> Family:
    """Return the family, or `Prior` if the features of the problem are constant.

    Unless `quiet`, warns in that case, and if many features are constant.
    """
    constant, folds = problem.scaling.constant, problem.constant_folds
    no_signal = bool(constant.all() or (len(folds) and folds.all()))
    if not quiet and (no_signal or constant.mean() >= _MANY):
        message = (
            _no_signal_message(constant, len(problem.codes))
            if no_signal
            else _few_signals_message(constant, len(problem.codes))
        )
        warn(message)
    return Prior(family) if no_signal else family


def scored_blocks(problem: Problem, validation: Validation) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield the blocks of a validation, with the scores of `Prior` for rows tested by a constant fold."""
    constant, shares = problem.constant_folds, _log_shares(problem).astype(np.float32)
    for rows, scores in validation.blocks():
        fold = problem.folds.tested[rows]
        replaced = constant[fold][:, None]
        yield rows, np.where(replaced, shares[fold], scores) if replaced.any() else scores


def _no_signal_message(constant: NDArray[np.bool_], rows: int) -> str:
    which = f"all {len(constant):,} the same in all {rows:,} training rows"
    if not constant.all():
        which = f"all {len(constant):,} the same in all training rows of each fold"
    return (
        f"expected features that differ between images, found {which}: the head predicts the class frequencies of the "
        f"training rows for every image; {_CHECK}"
    )


def _few_signals_message(constant: NDArray[np.bool_], rows: int) -> str:
    columns = np.flatnonzero(constant)
    some = ", ".join(map(str, columns[:_SHOWN].tolist())) + (", ..." if len(columns) > _SHOWN else "")
    return (
        f"{len(columns):,} of {len(constant):,} features are the same in all {rows:,} training rows and carry no "
        f"information (columns {some}); {_CHECK}"
    )


def _log_shares(problem: Problem) -> NDArray[np.float64]:
    """Return the log weighted frequency of each class in each fold ``(F, k)``; `MASKED` for absent classes."""
    weights = problem.weights.astype(np.float64)
    totals = np.stack([np.bincount(problem.codes, of_fold, problem.count) for of_fold in weights.T])
    shares = totals / totals.sum(axis=1, keepdims=True)
    found: NDArray[np.float64] = np.log(shares, out=np.full(shares.shape, MASKED), where=shares > 0)
    return found

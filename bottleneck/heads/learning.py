"""A head of one point: its probabilities are fitted on the folds, where there are any."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.family import NEVER, Family, Params
from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.linear_family import offset_of
from bottleneck.heads.prior import Prior, unless_constant
from bottleneck.heads.problem import Problem
from bottleneck.utils.arguments import Arguments

COMPARED_ROWS = 256
_SURER = 30.0  # how much larger the scores of training rows may be than out-of-fold scores of the same rows
_LEAST = 1e-30  # of a factor that is to be above 0


@one_core_a_product()
def learn(task: Problem, some: Family, point: Params, classes: Sequence[str]) -> tuple[Head, bool]:
    """Return the head of all rows, and whether it was calibrated on the folds of a task, which may test none.

    Of features that tell nothing it is `bottleneck.heads.prior.Prior`'s.

    Raises
    ------
    HeadError
        If features are too large, or nothing finite comes of them.
    """
    some = unless_constant(some, task)
    if not isinstance(some, Prior):
        task.refuse_huge()
    is_tested = task.folds.tested >= 0
    if isinstance(some, Prior) or not is_tested.any():
        return some.fit(task, point).head(some.name, classes, task.scaling), bool(is_tested.any())
    tested = np.flatnonzero(is_tested & ~task.constant_folds[task.folds.tested])
    validation = some.cross_validate(task, [point])
    scores = np.zeros((len(task.codes), task.count))
    for rows, found in validation.blocks():
        scores[rows] = found[0]
    weights = task.whole().weights[tested, 0].astype(np.float64)
    factor = calibrate(scores[tested], task.codes[tested], weights=weights)
    fitted = some.fit(task, point, validation)
    head = fitted.head(some.name, classes, task.scaling)
    offset = offset_of(validation, 0)
    return calibrated(head, task, tested, scores[tested], factor=factor, offset=offset), True


def calibrated(
    head: Head,
    task: Problem,
    rows: NDArray[np.intp],
    scores: NDArray[np.float64],
    *,
    factor: float,
    offset: NDArray[np.float64],
) -> Head:
    """Return the head of all rows with the factor of its scores, and what is added to them.

    Where folds saw features that told them less than all rows tell together, its scores may be larger than theirs by
    any factor; it is then hardly surer of its own training rows than they were of the rows that they had not seen.

    Parameters
    ----------
    head : Head
    task : Problem
    rows : ndarray of int, shape (m,)
        Rows of `task` that a fold tests, and
    scores : ndarray of float64, shape (m, k)
        what the heads of the folds say of them.
    factor : float
        What calibrates these.
    offset : ndarray of float64, shape (k,) or (1,)
        What was added to these, see `bottleneck.heads.linear_family.offset_of`, and is to the head's, which has not got
        it yet.
    """
    some = slice(None, None, -(-len(rows) // COMPARED_ROWS))
    of_folds, own = spread(scores[some] - offset), spread(head.scores(task.table.take(rows[some])))
    inverse_temperature = factor
    if inverse_temperature * own > _SURER * factor * of_folds:
        inverse_temperature = _SURER * factor * of_folds / own
    head = replace(head, inverse_temperature=max(inverse_temperature, _LEAST))
    return head.moved(offset) if isinstance(head, LinearHead) and offset.any() else head


def spread(scores: NDArray[np.float64]) -> float:
    """Return how far apart the scores ``(m, k)`` of known classes lie: the root of the mean of squares."""
    known = scores > NEVER / 10
    count = known.sum(axis=1, keepdims=True)
    middle = np.where(known, scores, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return float(np.sqrt(np.square(np.where(known, scores - middle, 0.0)).mean()))


def positive(name: str, value: Any) -> float:
    """Return a number above 0, as float.

    Raises
    ------
    HeadError
        If it is none.
    """
    return Arguments(HeadError).number(name, value, above=0)


def variance(features: NDArray[np.float32], weights: NDArray[np.float64] | None) -> float:
    """Return the variance of all numbers in features ``(n, d)`` whose rows count so often."""
    if weights is None:
        return float(features.var(dtype=np.float64))
    rows = features.astype(np.float64)
    middle = np.average(rows.mean(axis=1), weights=weights)
    return float(np.average(np.square(rows - middle).mean(axis=1), weights=weights))

"""Fit a head with fixed hyperparameters, and calibrate it on the folds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.family import MASKED, Family, Params
from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.linear_family import offset_of
from bottleneck.heads.prior import Prior, prior_if_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.utils.arguments import Arguments

COMPARED_ROWS = 256
_MAX_RATIO = 30.0  # bound on the spread of training scores relative to out-of-fold scores of the same rows
_MIN_INVERSE_TEMPERATURE = 1e-30


@single_threaded_blas()
def fit_calibrated(problem: Problem, some: Family, point: Params, classes: Sequence[str]) -> tuple[Head, bool]:
    """Return a head trained on all rows, and whether it was calibrated on the folds of the problem.

    For constant features it is the head of `bottleneck.heads.prior.Prior`.

    Raises
    ------
    HeadError
        If features are too large, or the fit is not finite.
    """
    some = prior_if_constant(some, problem)
    if not isinstance(some, Prior):
        problem.check_magnitudes()
    is_tested = problem.folds.tested >= 0
    if isinstance(some, Prior) or not is_tested.any():
        return some.fit(problem, point).head(some.name, classes, problem.scaling), bool(is_tested.any())
    tested = np.flatnonzero(is_tested & ~problem.constant_folds[problem.folds.tested])
    validation = some.cross_validate(problem, [point])
    scores = np.zeros((len(problem.codes), problem.count))
    for rows, found in validation.blocks():
        scores[rows] = found[0]
    weights = problem.on_all_rows().weights[tested, 0].astype(np.float64)
    factor = calibrate(scores[tested], problem.codes[tested], weights=weights)
    fitted = some.fit(problem, point, validation)
    head = fitted.head(some.name, classes, problem.scaling)
    offset = offset_of(validation, 0)
    return calibrated(head, problem, tested, scores[tested], factor=factor, offset=offset), True


def calibrated(
    head: Head,
    problem: Problem,
    rows: NDArray[np.intp],
    scores: NDArray[np.float64],
    *,
    factor: float,
    offset: NDArray[np.float64],
) -> Head:
    """Return the head trained on all rows with its inverse temperature and offset.

    If the features of single folds are less informative than those of all rows, the scores of this head can be larger
    than out-of-fold scores by any factor. Its confidence on its training rows is then bounded by a multiple of the
    out-of-fold confidence.

    Parameters
    ----------
    head : Head
    problem : Problem
    rows : ndarray of int, shape (m,)
        Tested rows of `problem`.
    scores : ndarray of float64, shape (m, k)
        Their out-of-fold scores, including `offset`.
    factor : float
        The factor that calibrates `scores`.
    offset : ndarray of float64, shape (k,) or (1,)
        The offset in `scores`, see `bottleneck.heads.linear_family.offset_of`; it is added to the scores of the head.
    """
    some = slice(None, None, -(-len(rows) // COMPARED_ROWS))
    of_folds, of_head = score_spread(scores[some] - offset), score_spread(head.scores(problem.table.take(rows[some])))
    inverse_temperature = factor
    if inverse_temperature * of_head > _MAX_RATIO * factor * of_folds:
        inverse_temperature = _MAX_RATIO * factor * of_folds / of_head
    head = replace(head, inverse_temperature=max(inverse_temperature, _MIN_INVERSE_TEMPERATURE))
    return head.moved(offset) if isinstance(head, LinearHead) and offset.any() else head


def score_spread(scores: NDArray[np.float64]) -> float:
    """Return the root mean square of the centred scores ``(m, k)`` of known classes."""
    known = scores > MASKED / 10
    count = known.sum(axis=1, keepdims=True)
    middle = np.where(known, scores, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    return float(np.sqrt(np.square(np.where(known, scores - middle, 0.0)).mean()))


def positive(name: str, value: Any) -> float:
    """Return a positive number as float.

    Raises
    ------
    HeadError
        If it is not a number above 0.
    """
    return Arguments(HeadError).number(name, value, above=0)


def variance(features: NDArray[np.float32], weights: NDArray[np.float64] | None) -> float:
    """Return the variance of all numbers in features ``(n, d)`` with weighted rows."""
    if weights is None:
        return float(features.var(dtype=np.float64))
    rows = features.astype(np.float64)
    middle = np.average(rows.mean(axis=1), weights=weights)
    return float(np.average(np.square(rows - middle).mean(axis=1), weights=weights))

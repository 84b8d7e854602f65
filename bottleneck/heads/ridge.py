"""Ridge regression on targets -1 and 1, in closed form, as scikit-learn's ``RidgeClassifier``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.family import Params
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.objective import relative, signs
from bottleneck.heads.problem import Problem

_CELLS = 4 << 20
_MOST_LEFT_OUT = 4096  # features: their decomposition takes half a minute
_WIDEST = 16_384  # features: their products take 2 GB

Exact = NDArray[np.float64]


class RidgeFamily(LinearFamily):
    """Ridge heads; the objective is ``|W|^2 / 2 + C * sum of squared errors``, so scikit-learn's alpha is 1 / (2 C)."""

    name = "ridge"
    values = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def path_facts(self, problem: Problem, points: Sequence[Params]) -> dict[str, Any]:
        """Return the leave-one-out accuracy at each point, if there are more rows than features."""
        n, d = problem.scaled.shape
        if d > min(n, _MOST_LEFT_OUT):
            return {}
        return {"leave_one_out": leave_one_out(problem, [point["C"] for point in points])}

    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: object = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; the solution is always exact."""
        n, d = problem.scaled.shape
        if isinstance(problem.scaled, InMemoryFeatures) and n < d:
            return np.stack(
                [_by_rows(problem, problem.scaled.features, Cs, fold) for fold in range(len(problem.folds))], axis=1
            )
        if d > _WIDEST:
            raise HeadError(
                f"ridge needs the products of all pairs of features, too many for {d:,} features of {n:,} images: use "
                f"another head, or pooled features"
            )
        return np.stack([_by_columns(problem, Cs, fold) for fold in range(len(problem.folds))], axis=1)


def leave_one_out(problem: Problem, Cs: Sequence[float]) -> list[float]:
    """Return the leave-one-out accuracy at each C, from a single decomposition.

    Without row i of weight w, its score would be ``y - (y - f) / (1 - w q)`` with
    ``q = 1 / sum of weights + x' (X'WX + I / (2 C))^-1 x``, for centred features (Cook and Weisberg 1982, "Residuals
    and influence in regression", section 2.2; also used by ``RidgeClassifierCV``). The scaling is that of all rows.

    Parameters
    ----------
    problem : Problem
        Its folds are not used.
    Cs : sequence of float, length g
    """
    whole = problem.on_all_rows()
    weights = whole.weights[:, 0].astype(np.float64)
    products, answers, mean, answer, total = _sums(whole, 0)
    values, vectors = np.linalg.eigh(products)
    inverse = 1 / (np.maximum(values, 0)[:, None] + 1 / (2 * np.array(Cs)))  # (d, g)
    turned = vectors.T @ answers
    right = np.zeros(len(Cs))
    for rows, features in whole.scaled.blocks(max(64, _CELLS // len(values))):
        along, target = (features - mean) @ vectors, signs(whole.codes[rows], np.arange(whole.count))
        leverage = weights[rows][:, None] * (1 / total + np.square(along) @ inverse)
        for number in range(len(Cs)):
            scores = along @ (inverse[:, number, None] * turned) + answer
            without = target - (target - scores) / np.maximum(1 - leverage[:, number, None], 1e-9)
            right[number] += (without.argmax(axis=1) == whole.codes[rows]).sum()
    return [float(share) for share in right / len(whole.codes)]


def _by_columns(problem: Problem, Cs: Sequence[float], fold: int) -> Theta:
    """Return the weights of one fold ``(g, k, d + 1)`` from the normal equations ``(d, d)``."""
    products, answers, mean, answer, _ = _sums(problem, fold)
    gain = _gain(problem, fold)
    products *= gain[:, None] * gain
    answers *= gain[:, None]
    path = []
    for C in Cs:
        weight: NDArray[Any] = np.linalg.solve(products + np.eye(len(products)) / (2 * C), answers).T
        path.append(_theta(problem, fold, weight, mean, answer))
    return np.array(path, np.float32)


def _sums(problem: Problem, fold: int) -> tuple[Exact, Exact, Exact, Exact, float]:
    """Return the centred ``X'WX (d, d)`` and ``X'WY (d, k)``, the means ``(d,)`` and ``(k,)``, and the total weight."""
    d, count = problem.scaled.shape[1], problem.count
    products, answers = np.zeros((d, d)), np.zeros((d, count))
    mean, answer, total = np.zeros(d), np.zeros(count), 0.0
    pivot: NDArray[np.float32] | None = None  # near the mean, to avoid cancellation
    for rows, features in problem.scaled.blocks(max(64, _CELLS // d)):
        pivot = features.mean(axis=0) if pivot is None else pivot
        centred, weights = features - pivot, problem.weights[rows, fold]
        weighted, target = centred * weights[:, None], signs(problem.codes[rows], np.arange(count))
        products += weighted.T @ centred
        answers += weighted.T @ target
        mean += weighted.sum(axis=0, dtype=np.float64)
        answer += weights @ target.astype(np.float64)
        total += weights.sum(dtype=np.float64)
    total = max(total, 1e-12)
    mean, answer = mean / total, answer / total
    products -= total * np.outer(mean, mean)
    answers -= total * np.outer(mean, answer)
    return products, answers, mean if pivot is None else mean + pivot, answer, float(total)


def _by_rows(problem: Problem, features: NDArray[np.float32], Cs: Sequence[float], fold: int) -> Theta:
    """Return the same from the dual problem ``(n, n)``, for fewer rows than features."""
    rows = np.flatnonzero(problem.folds.trained[:, fold])
    weights = problem.weights[rows, fold].astype(np.float64)
    own = features[rows].astype(np.float64)
    target = signs(problem.codes[rows], np.arange(problem.count)).astype(np.float64)
    total = weights.sum()
    mean, answer = weights @ own / total, weights @ target / total
    root = np.sqrt(weights)[:, None]
    own = (own - mean) * _gain(problem, fold) * root
    products, answers = own @ own.T, (target - answer) * root
    path = []
    for C in Cs:
        weight = (own.T @ np.linalg.solve(products + np.eye(len(rows)) / (2 * C), answers)).T
        path.append(_theta(problem, fold, weight, mean, answer))
    return np.array(path, np.float32)


def _gain(problem: Problem, fold: int) -> NDArray[np.float64]:
    d = problem.scaled.shape[1]
    if not problem.scaled_by_rows:
        return np.ones(d)
    gain: NDArray[np.float64] = relative(problem.scaling, problem.fold_scalings)[1][fold].astype(np.float64)
    return gain


def _theta(
    problem: Problem, fold: int, weight: NDArray[np.float64], mean: NDArray[np.float64], answer: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``(k, d + 1)`` for features scaled by the fold, from weights for centred features."""
    middle = mean
    if problem.scaled_by_rows:
        shift, gain = (one[fold].astype(np.float64) for one in relative(problem.scaling, problem.fold_scalings))
        middle = (mean - shift) * gain
    return np.column_stack([weight, answer - weight @ middle])


make = RidgeFamily

"""Ridge regression on the classes as -1 and 1, in closed form, as scikit-learn's ``RidgeClassifier``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.family import Params
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.problem import Problem
from bottleneck.heads.sums import relative, signs

_CELLS = 4 << 20
_MOST_LEFT_OUT = 4096  # features, whose decomposition takes half a minute
_WIDEST = 16_384  # features, of which all products are kept: 2 GB

Exact = NDArray[np.float64]


class RidgeFamily(LinearFamily):
    """Ridge heads; the objective is ``|W|^2 / 2 + C * sum of squared errors``, so scikit-learn's alpha is 1 / (2 C)."""

    name = "ridge"
    values = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def path_facts(self, task: Problem, points: Sequence[Params]) -> dict[str, Any]:
        """Return the accuracy by leaving one row out, at each point, where there are more rows than features."""
        n, d = task.scaled.shape
        if d > min(n, _MOST_LEFT_OUT):
            return {}
        return {"leave_one_out": leave_one_out(task, [point["C"] for point in points])}

    def paths(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: object = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; they are always exact."""
        n, d = task.scaled.shape
        if isinstance(task.scaled, InMemoryFeatures) and n < d:
            return np.stack([_by_rows(task, task.scaled.features, Cs, fold) for fold in range(len(task.folds))], axis=1)
        if d > _WIDEST:
            raise HeadError(
                f"ridge keeps the products of all features, which for {d:,} of {n:,} images are too many: take another "
                f"head, or features that are pooled"
            )
        return np.stack([_by_columns(task, Cs, fold) for fold in range(len(task.folds))], axis=1)


def leave_one_out(task: Problem, Cs: Sequence[float]) -> list[float]:
    """Return the accuracy at each C on every row by the head of all others, which one decomposition gives for all.

    Without row i, whose weight is w, its score would be ``y - (y - f) / (1 - w q)`` with
    ``q = 1 / sum of weights + x' (X'WX + I / (2 C))^-1 x``, of features about their mean (Cook and Weisberg 1982,
    "Residuals and influence in regression", section 2.2; it is what ``RidgeClassifierCV`` does). The scaling is that by
    all rows.

    Parameters
    ----------
    task : Problem
        Its folds have no part in it.
    Cs : sequence of float, length g
    """
    whole = task.whole()
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


def _by_columns(task: Problem, Cs: Sequence[float], fold: int) -> Theta:
    """Return the weights of one fold ``(g, k, d + 1)``, from sums over its rows of the products of features."""
    products, answers, mean, answer, _ = _sums(task, fold)
    gain = _gain(task, fold)
    products *= gain[:, None] * gain
    answers *= gain[:, None]
    path = []
    for C in Cs:
        weight: NDArray[Any] = np.linalg.solve(products + np.eye(len(products)) / (2 * C), answers).T
        path.append(_theta(task, fold, weight, mean, answer))
    return np.array(path, np.float32)


def _sums(task: Problem, fold: int) -> tuple[Exact, Exact, Exact, Exact, float]:
    """Return ``X'WX (d, d)`` and ``X'WY (d, k)`` about the means ``(d,)`` and ``(k,)``, and the sum of the weights."""
    d, count = task.scaled.shape[1], task.count
    products, answers = np.zeros((d, d)), np.zeros((d, count))
    mean, answer, total = np.zeros(d), np.zeros(count), 0.0
    pivot: NDArray[np.float32] | None = None  # near the mean, which would drown the differences
    for rows, features in task.scaled.blocks(max(64, _CELLS // d)):
        pivot = features.mean(axis=0) if pivot is None else pivot
        centred, weights = features - pivot, task.weights[rows, fold]
        weighted, target = centred * weights[:, None], signs(task.codes[rows], np.arange(count))
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


def _by_rows(task: Problem, features: NDArray[np.float32], Cs: Sequence[float], fold: int) -> Theta:
    """Return the same from products of rows, of which there are fewer than features."""
    rows = np.flatnonzero(task.folds.trained[:, fold])
    weights = task.weights[rows, fold].astype(np.float64)
    own = features[rows].astype(np.float64)
    target = signs(task.codes[rows], np.arange(task.count)).astype(np.float64)
    total = weights.sum()
    mean, answer = weights @ own / total, weights @ target / total
    root = np.sqrt(weights)[:, None]
    own = (own - mean) * _gain(task, fold) * root
    products, answers = own @ own.T, (target - answer) * root
    path = []
    for C in Cs:
        weight = (own.T @ np.linalg.solve(products + np.eye(len(rows)) / (2 * C), answers)).T
        path.append(_theta(task, fold, weight, mean, answer))
    return np.array(path, np.float32)


def _gain(task: Problem, fold: int) -> NDArray[np.float64]:
    d = task.scaled.shape[1]
    if not task.by_rows:
        return np.ones(d)
    gain: NDArray[np.float64] = relative(task.scaling, task.fold_scalings)[1][fold].astype(np.float64)
    return gain


def _theta(
    task: Problem, fold: int, weight: NDArray[np.float64], mean: NDArray[np.float64], answer: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``(k, d + 1)``, for features as the fold scales them, of weights that were found about the mean."""
    middle = mean
    if task.by_rows:
        shift, gain = (one[fold].astype(np.float64) for one in relative(task.scaling, task.fold_scalings))
        middle = (mean - shift) * gain
    return np.column_stack([weight, answer - weight @ middle])


make = RidgeFamily

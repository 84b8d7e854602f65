"""Ridge regression on the classes as -1 and 1, in closed form, as scikit-learn's ``RidgeClassifier``."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.logistic import signs
from bottleneck.heads.solver import relative
from bottleneck.heads.table import Held
from bottleneck.heads.task import Task

_CELLS = 4 << 20
_WIDEST = 16_384  # features, of which all products are kept: 2 GB


class RidgeFamily(LinearFamily):
    """Ridge heads; the objective is ``|W|^2 / 2 + C * sum of squared errors``, so scikit-learn's alpha is 1 / (2 C)."""

    name = "ridge"
    values = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def paths(self, task: Task, Cs: Sequence[float], *, exact: bool, start: object = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; they are always exact."""
        n, d = task.scaled.shape
        if isinstance(task.scaled, Held) and n < d:
            return np.stack([_by_rows(task, task.scaled.features, Cs, fold) for fold in range(len(task.folds))], axis=1)
        if d > _WIDEST:
            raise HeadError(
                f"ridge keeps the products of all features, which for {d:,} of {n:,} images are too many: take another "
                f"head, or features that are pooled"
            )
        return np.stack([_by_columns(task, Cs, fold) for fold in range(len(task.folds))], axis=1)


def _by_columns(task: Task, Cs: Sequence[float], fold: int) -> Theta:
    """Return the weights of one fold ``(g, k, d + 1)``, from sums over its rows of the products of features."""
    d, count = task.scaled.shape[1], task.count
    products, answers = np.zeros((d, d)), np.zeros((d, count))
    mean, answer, total, target = np.zeros(d), np.zeros(count), 0.0, signs(task)
    for rows, features in task.scaled.blocks(max(64, _CELLS // d)):
        weights = task.weights[rows, fold]
        weighted = features * weights[:, None]
        products += weighted.T @ features
        answers += weighted.T @ target[rows]
        mean += weighted.sum(axis=0, dtype=np.float64)
        answer += weights @ target[rows].astype(np.float64)
        total += weights.sum(dtype=np.float64)
    total = max(total, 1e-12)
    mean, answer = mean / total, answer / total
    products -= total * np.outer(mean, mean)
    answers -= total * np.outer(mean, answer)
    gain = _gain(task, fold)
    products *= gain[:, None] * gain
    answers *= gain[:, None]
    path = []
    for C in Cs:
        weight = np.linalg.solve(products + np.eye(d) / (2 * C), answers).T
        path.append(_theta(task, fold, weight, mean, answer))
    return np.array(path, np.float32)


def _by_rows(task: Task, features: NDArray[np.float32], Cs: Sequence[float], fold: int) -> Theta:
    """Return the same from products of rows, of which there are fewer than features."""
    rows = np.flatnonzero(task.folds.trained[:, fold])
    weights = task.weights[rows, fold].astype(np.float64)
    own, target = features[rows].astype(np.float64), signs(task)[rows].astype(np.float64)
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


def _gain(task: Task, fold: int) -> NDArray[np.float64]:
    d = task.scaled.shape[1]
    if task.normalize != "standard":
        return np.ones(d)
    gain: NDArray[np.float64] = relative(task.scaling, task.fold_scalings)[1][fold].astype(np.float64)
    return gain


def _theta(
    task: Task, fold: int, weight: NDArray[np.float64], mean: NDArray[np.float64], answer: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ``(k, d + 1)``, for features as the fold scales them, of weights that were found about the mean."""
    middle = mean
    if task.normalize == "standard":
        shift, gain = (one[fold].astype(np.float64) for one in relative(task.scaling, task.fold_scalings))
        middle = (mean - shift) * gain
    return np.column_stack([weight, answer - weight @ middle])


make = RidgeFamily

"""What the heads of the folds say of rows that they were not trained on: how right, how sure, and calibrated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.calibration import calibrate, calibrated_loss
from bottleneck.heads.family import Validation
from bottleneck.heads.head import softmax
from bottleneck.heads.prior import known_blocks
from bottleneck.heads.problem import Problem
from bottleneck.heads.selecting import Performance

_ROWS = 10_000  # whose scores are calibrated on
_CELLS = 16 << 20  # scores of all points, that losses are of

Division = tuple[Problem, Validation]


@dataclass(frozen=True)
class OutOfFold:
    """What the heads of the folds say of rows that they were not trained on.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
    scores : ndarray of float64, shape (g, m, k)
    known : ndarray of bool, shape (m,)
        Whether the scores are a head's: those of constant folds are logarithms of probabilities already.
    """

    rows: NDArray[np.intp]
    scores: NDArray[np.float64]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, task: Problem, validation: Validation, points: slice, most: int = _ROWS) -> "OutOfFold":
        """Return the scores at some points of about as many tested rows as `most`, in their order."""
        tested = np.flatnonzero(task.folds.tested >= 0)
        wanted = np.zeros(len(task.codes), bool)
        wanted[tested[:: -(-len(tested) // max(1, most))]] = True
        found = [
            (rows[wanted[rows]], scores[points][:, wanted[rows]]) for rows, scores in known_blocks(task, validation)
        ]
        rows = np.concatenate([rows for rows, _ in found])
        order = np.argsort(rows)
        scores = np.concatenate([scores for _, scores in found], axis=1)[:, order].astype(np.float64)
        rows = rows[order]
        return cls(rows, scores, ~task.constant_folds[task.folds.tested[rows]])


def performance(divisions: Sequence[Division], points: int) -> Performance:
    """Return how well the heads of the folds of some divisions do at each of so many points."""
    tables = [_accuracies(*division, points) for division in divisions]
    accuracy, balanced = (np.concatenate(kind, axis=1) for kind in zip(*tables, strict=True))
    return Performance(
        accuracy=accuracy, balanced=balanced, losses=_losses(divisions, points), divisions=len(divisions)
    )


def _accuracies(task: Problem, validation: Validation, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracy, and the mean recall of the classes that a fold tests, ``(g, F)``."""
    folds, count = len(task.folds), task.count
    right_of, rows_of = np.zeros((points, folds * count)), np.zeros(folds * count)
    for rows, scores in known_blocks(task, validation):
        cell = task.folds.tested[rows] * count + task.codes[rows]
        rows_of += np.bincount(cell, minlength=folds * count)
        right = scores.argmax(axis=2) == task.codes[rows]
        for point in range(points):
            right_of[point] += np.bincount(cell, right[point], folds * count)
    hits, tested = right_of.reshape(points, folds, count), rows_of.reshape(folds, count)
    recall = hits / np.maximum(tested, 1)
    return hits.sum(axis=2) / tested.sum(axis=1), recall.sum(axis=2) / (tested > 0).sum(axis=1)


def _losses(divisions: Sequence[Division], points: int) -> NDArray[np.float64]:
    """Return the calibrated log-loss at each point, ``(g,)``."""
    task = divisions[0][0]
    most = min(_ROWS, _CELLS // (points * task.count))
    scored = [OutOfFold.of(*division, slice(None), most) for division in divisions]
    rows = np.concatenate([one.rows[one.known] for one in scored])
    codes, weights, times = task.codes[rows], _row_weights(task)[rows], len(divisions)
    of_point = [np.concatenate([one.scores[point][one.known] for one in scored]) for point in range(points)]
    return np.array([calibrated_loss(scores, codes, weights=weights, divisions=times) for scores in of_point])


def guesses(divisions: Sequence[Division], point: int) -> NDArray[np.intp]:
    """Return the class that each row got in each division at a point, ``(divisions, n)``; -1 if never tested."""
    found = np.full((len(divisions), len(divisions[0][0].codes)), -1)
    for own, (task, validation) in zip(found, divisions, strict=True):
        for rows, scores in known_blocks(task, validation):
            own[rows] = scores[point].argmax(axis=1)
    return found


def cross_calibrated(task: Problem, scored: Sequence[OutOfFold]) -> tuple[float, NDArray[np.float64]]:
    """Return the factor of the scores, and the probabilities ``(m, k)`` of each row by the factor of other folds."""
    rows = np.concatenate([one.rows[one.known] for one in scored])
    scores = np.concatenate([one.scores[0][one.known] for one in scored])
    codes, weights, fold = task.codes[rows], _row_weights(task)[rows], task.folds.tested[rows]

    def factor(some: NDArray[np.bool_]) -> float:
        return calibrate(scores[some], codes[some], weights=weights[some], divisions=len(scored))

    first, everything = scored[0], np.ones(len(rows), bool)
    own_fold = task.folds.tested[first.rows]
    probabilities = softmax(first.scores[0])
    for number in np.flatnonzero(~task.constant_folds):
        own, others = own_fold == number, fold != number
        probabilities[own] = softmax(factor(others if others.any() else everything) * first.scores[0][own])
    return factor(everything), probabilities


def _row_weights(task: Problem) -> NDArray[np.float64]:
    """Return how much a row counts in a loss."""
    if not task.balanced:
        return np.ones(len(task.codes))
    weights: NDArray[np.float64] = 1 / np.bincount(task.codes, minlength=task.count)[task.codes]
    return weights

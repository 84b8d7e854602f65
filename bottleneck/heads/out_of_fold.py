"""Out-of-fold scores: accuracy, log-loss and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.calibration import calibrate, calibrated_loss
from bottleneck.heads.family import Validation
from bottleneck.heads.head import softmax
from bottleneck.heads.prior import scored_blocks
from bottleneck.heads.problem import Problem
from bottleneck.heads.selection import Performance

_ROWS = 10_000  # used for calibration
_CELLS = 16 << 20  # scores of all points used for losses

Division = tuple[Problem, Validation]


@dataclass(frozen=True)
class OutOfFold:
    """Scores of rows by heads of folds that were not trained on them.

    Parameters
    ----------
    rows : ndarray of int, shape (m,)
    scores : ndarray of float64, shape (g, m, k)
    known : ndarray of bool, shape (m,)
        Whether the scores come from a head; those of constant folds are log probabilities.
    """

    rows: NDArray[np.intp]
    scores: NDArray[np.float64]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, problem: Problem, validation: Validation, points: slice, most: int = _ROWS) -> "OutOfFold":
        """Return the scores at some points of about `most` evenly spaced tested rows, in their order."""
        tested = np.flatnonzero(problem.folds.tested >= 0)
        wanted = np.zeros(len(problem.codes), bool)
        wanted[tested[:: -(-len(tested) // max(1, most))]] = True
        found = [
            (rows[wanted[rows]], scores[points][:, wanted[rows]]) for rows, scores in scored_blocks(problem, validation)
        ]
        rows = np.concatenate([rows for rows, _ in found])
        order = np.argsort(rows)
        scores = np.concatenate([scores for _, scores in found], axis=1)[:, order].astype(np.float64)
        rows = rows[order]
        return cls(rows, scores, ~problem.constant_folds[problem.folds.tested[rows]])


def performance(divisions: Sequence[Division], points: int) -> Performance:
    """Return the cross-validated performance at each point, over all divisions."""
    tables = [_accuracies(*division, points) for division in divisions]
    accuracy, balanced = (np.concatenate(kind, axis=1) for kind in zip(*tables, strict=True))
    return Performance(
        accuracy=accuracy, balanced=balanced, losses=_losses(divisions, points), divisions=len(divisions)
    )


def _accuracies(
    problem: Problem, validation: Validation, points: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracy and the mean recall of the tested classes, in each fold, ``(g, F)``."""
    folds, count = len(problem.folds), problem.count
    right_of, rows_of = np.zeros((points, folds * count)), np.zeros(folds * count)
    for rows, scores in scored_blocks(problem, validation):
        cell = problem.folds.tested[rows] * count + problem.codes[rows]
        rows_of += np.bincount(cell, minlength=folds * count)
        right = scores.argmax(axis=2) == problem.codes[rows]
        for point in range(points):
            right_of[point] += np.bincount(cell, right[point], folds * count)
    hits, tested = right_of.reshape(points, folds, count), rows_of.reshape(folds, count)
    recall = hits / np.maximum(tested, 1)
    return hits.sum(axis=2) / tested.sum(axis=1), recall.sum(axis=2) / (tested > 0).sum(axis=1)


def _losses(divisions: Sequence[Division], points: int) -> NDArray[np.float64]:
    """Return the calibrated log-loss at each point, ``(g,)``."""
    problem = divisions[0][0]
    most = min(_ROWS, _CELLS // (points * problem.count))
    scored = [OutOfFold.of(*division, slice(None), most) for division in divisions]
    rows = np.concatenate([one.rows[one.known] for one in scored])
    codes, weights, times = problem.codes[rows], _row_weights(problem)[rows], len(divisions)
    of_point = [np.concatenate([one.scores[point][one.known] for one in scored]) for point in range(points)]
    return np.array([calibrated_loss(scores, codes, weights=weights, divisions=times) for scores in of_point])


def guesses(divisions: Sequence[Division], point: int) -> NDArray[np.intp]:
    """Return the predicted class of each row in each division at a point, ``(divisions, n)``; -1 if never tested."""
    found = np.full((len(divisions), len(divisions[0][0].codes)), -1)
    for own, (problem, validation) in zip(found, divisions, strict=True):
        for rows, scores in scored_blocks(problem, validation):
            own[rows] = scores[point].argmax(axis=1)
    return found


def cross_calibrated(problem: Problem, scored: Sequence[OutOfFold]) -> tuple[float, NDArray[np.float64]]:
    """Return the calibration factor of all rows, and probabilities ``(m, k)`` calibrated on the other folds."""
    rows = np.concatenate([one.rows[one.known] for one in scored])
    scores = np.concatenate([one.scores[0][one.known] for one in scored])
    codes, weights, fold = problem.codes[rows], _row_weights(problem)[rows], problem.folds.tested[rows]

    def factor(some: NDArray[np.bool_]) -> float:
        return calibrate(scores[some], codes[some], weights=weights[some], divisions=len(scored))

    first, everything = scored[0], np.ones(len(rows), bool)
    own_fold = problem.folds.tested[first.rows]
    probabilities = softmax(first.scores[0])
    for number in np.flatnonzero(~problem.constant_folds):
        own, others = own_fold == number, fold != number
        probabilities[own] = softmax(factor(others if others.any() else everything) * first.scores[0][own])
    return factor(everything), probabilities


def _row_weights(problem: Problem) -> NDArray[np.float64]:
    """Return the weight of each row in a loss."""
    if not problem.balanced:
        return np.ones(len(problem.codes))
    weights: NDArray[np.float64] = 1 / np.bincount(problem.codes, minlength=problem.count)[problem.codes]
    return weights

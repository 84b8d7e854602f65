"""Scores become probabilities: ``softmax(a * scores + b)``, fitted on images that the scores were not trained on.

b is 0 but for two classes of an SVM, and then no label changes: that is temperature scaling, a = 1 / T (Guo et al.
2017, "On calibration of modern neural networks"). a is chosen so that the mean confidence is the accuracy (Clarté et
al. 2023, "Expectation consistency for calibration of neural networks"), which a few images with large wrong scores
upset less than the likelihood: on the digits of the demonstration it halves the calibration error of all heads.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import NEVER
from bottleneck.heads.folds import Codes
from bottleneck.heads.head import softmax

_UNKNOWN = NEVER / 10  # below it are the scores of classes that a fold was not trained on
_HALVINGS = 40
_LARGEST = 15.0  # of |log a|
_ROUNDS = 100

Scores = NDArray[np.float64]  # (n, k)


@dataclass(frozen=True)
class Calibration:
    """The a and b of ``softmax(a * scores + b)``.

    Parameters
    ----------
    sharpness : float
    offset : ndarray of float64, shape (k,)
    """

    sharpness: float
    offset: NDArray[np.float64]

    def __call__(self, scores: Scores) -> Scores:
        """Return probabilities ``(n, k)`` of scores ``(n, k)``."""
        return softmax(self.sharpness * scores + self.offset)


def calibrate(
    scores: Scores, codes: Codes, *, platt: bool = False, weights: NDArray[np.float64] | None = None
) -> Calibration:
    """Return the calibration that these images ask for.

    To the n images one is added whose class could be any: n that are all right do not prove that the next cannot be
    wrong (after Platt 1999, section 2.2).

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Of images the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    platt : bool
        Whether two classes get Platt's sigmoid, which has a b.
    weights : ndarray of float64, shape (n,), optional
        Of the images.
    """
    count = scores.shape[1]
    learnt = scores[np.arange(len(codes)), codes] > _UNKNOWN  # a fold that lacks a class says nothing of its images
    scores, codes = scores[learnt], codes[learnt]
    n = len(scores)
    if not n:
        return Calibration(1.0, np.zeros(count))
    share = np.ones(n) if weights is None else weights[learnt] * n / weights[learnt].sum()
    if platt and count == 2 and scores.min() > _UNKNOWN:
        return _sigmoid(scores, codes, share)
    return Calibration(_consistent(scores, codes, share), np.zeros(count))


def _consistent(scores: Scores, codes: Codes, share: NDArray[np.float64]) -> float:
    """Return the a with which the mean confidence is the accuracy, by bisection on log a."""
    n, count = scores.shape
    right = (float(share @ (scores.argmax(axis=1) == codes)) + 1 / count) / (n + 1)
    behind = scores - scores.max(axis=1, keepdims=True)  # 0 for the best class
    behind[behind < _UNKNOWN / 2] = -np.inf
    middle = -float(np.log(np.abs(behind[np.isfinite(behind)]).mean() + 1e-12))
    low, high = middle - _LARGEST, middle + _LARGEST
    for _ in range(_HALVINGS):
        half = (low + high) / 2
        confidence = float(share @ (1 / np.exp(np.exp(half) * behind).sum(axis=1))) / n
        low, high = (half, high) if confidence < right else (low, half)
    return float(np.exp((low + high) / 2))


def _sigmoid(scores: Scores, codes: Codes, share: NDArray[np.float64]) -> Calibration:
    """Return the most likely a and b of two classes.

    Platt 1999, "Probabilistic outputs for support vector machines", by Newton's method on the difference of the scores,
    with his targets, which are a little less than certain; steps are shortened until the loss falls (Lin, Lin and Weng
    2007, "A note on Platt's probabilistic outputs").
    """
    difference = scores[:, 1] - scores[:, 0]
    positive, negative = share[codes == 1].sum(), share[codes == 0].sum()
    target = np.where(codes == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    design = np.stack([difference, np.ones(len(difference))], axis=1)
    unit = np.array([np.abs(difference).mean() + 1e-12, 1.0])
    design /= unit

    def loss(at: NDArray[np.float64]) -> float:
        logits = design @ at
        return float(share @ (np.logaddexp(0, logits) - target * logits))

    found = np.array([0.0, np.log((positive + 1) / (negative + 1))])
    for _ in range(_ROUNDS):
        shares = 1 / (1 + np.exp(-np.clip(design @ found, -500, 500)))
        slope = design.T @ (share * (shares - target))
        curvature = (design * (share * shares * (1 - shares))[:, None]).T @ design + 1e-10 * np.eye(2)
        step, now = np.linalg.solve(curvature, slope), loss(found)
        while loss(found - step) > now and np.abs(step).max() > 1e-10:
            step /= 2
        found = found - step
        if np.abs(step).max() < 1e-8:
            break
    slope_of_score, offset = found / unit
    sharpness = float(np.clip(slope_of_score, np.exp(-_LARGEST), np.exp(2 * _LARGEST)))
    return Calibration(sharpness, np.array([-offset / 2, offset / 2]))

"""Scores become probabilities: ``softmax(a * scores)``, with one factor fitted on images not trained on.

That is temperature scaling, a = 1 / T (Guo et al. 2017, "On calibration of modern neural networks"); of two classes it
is Platt's sigmoid without its offset (Platt 1999, "Probabilistic outputs for support vector machines"). No label
changes: an offset that was fitted on the heads of the folds can turn all labels of the head of all rows.

a is chosen so that the mean confidence is the accuracy (Clarté et al. 2023, "Expectation consistency for calibration of
neural networks"), which a few images with large wrong scores upset less than the likelihood: on the digits of the
demonstration it halves the calibration error of all heads. Where there are few images it can go astray, so it stays
within a factor of `_FAR` of the most likely a.
"""

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import NEVER
from bottleneck.heads.folds import Codes
from bottleneck.heads.head import softmax

_UNKNOWN = NEVER / 10  # below it are the scores of classes that a fold was not trained on
_FAR = 3.0
_LARGEST = 15.0  # of |log a|, from where a times the mean score is 1
_HALVINGS = 40
_STEPS = 50

Scores = NDArray[np.float64]  # (n, k)


def calibrate(scores: Scores, codes: Codes, *, weights: NDArray[np.float64] | None = None) -> float:
    """Return the factor a that these images ask for.

    To the n images one is added whose class could be any: n that are all right do not prove that the next cannot be
    wrong (after Platt, section 2.2).

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Of images the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    weights : ndarray of float64, shape (n,), optional
        Of the images.
    """
    learnt = scores[np.arange(len(codes)), codes] > _UNKNOWN  # a fold that lacks a class says nothing of its images
    scores, codes = scores[learnt], codes[learnt]
    n = len(scores)
    if not n:
        return 1.0
    share = np.ones(n) if weights is None else weights[learnt] * n / weights[learnt].sum()
    likely = _most_likely(scores, codes, share)
    return _consistent(scores, codes, share, likely / _FAR, likely * _FAR)


def _consistent(scores: Scores, codes: Codes, share: NDArray[np.float64], low: float, high: float) -> float:
    """Return the a with which the mean confidence is the accuracy, by bisection on log a between two bounds."""
    n, count = scores.shape
    right = (float(share @ (scores.argmax(axis=1) == codes)) + 1 / count) / (n + 1)
    behind = scores - scores.max(axis=1, keepdims=True)  # 0 for the best class
    behind[behind < _UNKNOWN / 2] = -np.inf
    below, above = np.log(low), np.log(high)
    for _ in range(_HALVINGS):
        half = (below + above) / 2
        confidence = float(share @ (1 / np.exp(np.exp(half) * behind).sum(axis=1))) / n
        below, above = (half, above) if confidence < right else (below, half)
    return float(np.exp((below + above) / 2))


def _most_likely(scores: Scores, codes: Codes, share: NDArray[np.float64]) -> float:
    """Return the a with which the classes are most likely, by Newton's method on log a."""
    n = len(scores)
    known = np.where(scores > _UNKNOWN, scores, 0.0)
    target = (n * known[np.arange(n), codes] + known.mean(axis=1)) / (n + 1)
    start = logarithm = -float(np.log(np.abs(known).mean() + 1e-12))
    for _ in range(_STEPS):
        factor = np.exp(logarithm)
        shares = softmax(factor * scores)
        mean = (shares * known).sum(axis=1)
        spread = (shares * known**2).sum(axis=1) - mean**2
        slope = float((share * (mean - target)).mean() * factor)
        curvature = float((share * spread).mean() * factor**2 + slope)
        step = slope / curvature if curvature > 0 else np.sign(slope)
        logarithm = float(np.clip(logarithm - np.clip(step, -1, 1), start - _LARGEST, start + _LARGEST))
        if abs(step) < 1e-8:
            break
    return float(np.exp(logarithm))

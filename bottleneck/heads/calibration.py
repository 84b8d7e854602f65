"""Scores become probabilities: ``softmax(a * scores + b)``, fitted on images that the scores were not trained on.

With b = 0 this is temperature scaling, a = 1 / T (Guo et al. 2017, "On calibration of modern neural networks"), and no
label changes. With b, of two classes, it is Platt's sigmoid (Platt 1999, "Probabilistic outputs for support vector
machines"); of more it is the form of it that is still one linear layer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import NEVER
from bottleneck.heads.folds import Codes
from bottleneck.heads.head import softmax

_UNKNOWN = NEVER / 10  # below it are the scores of classes that a fold was not trained on
_ROUNDS = 100


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

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities ``(n, k)`` of scores ``(n, k)``."""
        return softmax(self.sharpness * scores + self.offset)


def calibrate(
    scores: NDArray[np.float64], codes: Codes, *, platt: bool, weights: NDArray[np.float64] | None = None
) -> Calibration:
    """Return the most likely calibration.

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Of images the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    platt : bool
        Whether b is fitted too.
    weights : ndarray of float64, shape (n,), optional
        Of the images.

    Notes
    -----
    a by Newton's method on log a; b by ``b_j += log(n_j / sum of p_j)``, which is generalised iterative scaling
    (Darroch and Ratcliff 1972). To the n images one is added whose class could be any: n that are all right do not
    prove that the next cannot be wrong (after Platt, section 2.2).
    """
    count = scores.shape[1]
    learnt = scores[np.arange(len(codes)), codes] > _UNKNOWN  # a fold that lacks a class says nothing of its images
    scores, codes = scores[learnt], codes[learnt]
    n, offset = len(scores), np.zeros(count)
    if not n:
        return Calibration(1.0, offset)
    share = np.ones(n) if weights is None else weights[learnt] * n / weights[learnt].sum()
    known = np.where(scores > _UNKNOWN, scores, 0.0)
    target = (n * known[np.arange(n), codes] + known.mean(axis=1)) / (n + 1)
    frequency = (n * np.bincount(codes, share, count) / n + 1 / count) / (n + 1)
    logarithm = -float(np.log(np.abs(known).mean() + 1e-12))
    for _ in range(_ROUNDS):
        factor = np.exp(logarithm)
        shares = softmax(factor * scores + offset)
        mean = (shares * known).sum(axis=1)
        spread = (shares * known**2).sum(axis=1) - mean**2
        slope = float((share * (mean - target)).mean() * factor)
        curvature = float((share * spread).mean() * factor**2 + slope)
        step = slope / curvature if curvature > 0 else np.sign(slope)
        logarithm = float(np.clip(logarithm - np.clip(step, -1, 1), -15, 15))
        moved = abs(step)
        if platt:
            now = (share @ shares + 1 / count) / (n + 1)
            change = np.log(frequency / np.maximum(now, 1e-12))
            offset += change
            moved = max(moved, float(np.abs(change).max()))
        if moved < 1e-8:
            break
    return Calibration(float(np.exp(logarithm)), offset - offset.mean())

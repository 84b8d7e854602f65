"""Scores become probabilities: ``softmax(a * scores)``, with one factor fitted on images not trained on.

That is temperature scaling, a = 1 / T (Guo et al. 2017, "On calibration of modern neural networks"); of two classes it
is Platt's sigmoid without its offset (Platt 1999, "Probabilistic outputs for support vector machines"). No label
changes: an offset that was fitted on the heads of the folds can turn all labels of the head of all rows.

a is the most likely one of the images and of one more, whose class could be any. In the simulations of
``docs/heads.md`` nothing did better from two images a class on: neither a factor by which the mean
confidence is the accuracy, nor a stronger prior, nor a correction for the rows that the heads of the folds lack.
"""

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import NEVER
from bottleneck.heads.folds import Codes
from bottleneck.heads.head import softmax

_UNKNOWN = NEVER / 10  # below it are the scores of classes that a fold was not trained on
_LARGEST = 15.0  # of |log a|, from where a times the mean score is 1
_STEPS = 50

Scores = NDArray[np.float64]  # (n, k)


def calibrate(scores: Scores, codes: Codes, *, weights: NDArray[np.float64] | None = None, divisions: int = 1) -> float:
    """Return the factor a that these images ask for.

    To the images one is added whose class could be any: images that are all right do not prove that the next cannot be
    wrong (after Platt, section 2.2).

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Of images the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    weights : ndarray of float64, shape (n,), optional
        Of the images.
    divisions : int
        How often each image is among them, by the heads of several divisions into folds.
    """
    scores, codes, share = _learnt(scores, codes, weights)
    return _most_likely(scores, codes, share, divisions) if len(scores) else 1.0


def calibrated_loss(
    scores: Scores, codes: Codes, *, weights: NDArray[np.float64] | None = None, divisions: int = 1
) -> float:
    """Return the mean log-loss of scores with the factor that they ask for; see `calibrate`."""
    scores, codes, share = _learnt(scores, codes, weights)
    if not len(scores):
        return 0.0
    behind = _most_likely(scores, codes, share, divisions) * (scores - scores.max(axis=1, keepdims=True))
    own = behind[np.arange(len(codes)), codes]
    return float((share * (np.log(np.exp(behind).sum(axis=1)) - own)).mean())


def _learnt(
    scores: Scores, codes: Codes, weights: NDArray[np.float64] | None
) -> tuple[Scores, Codes, NDArray[np.float64]]:
    """Return the images of classes that their fold was trained on, and their weights about 1."""
    learnt = scores[np.arange(len(codes)), codes] > _UNKNOWN
    scores, codes = scores[learnt], codes[learnt]
    own = np.ones(len(codes)) if weights is None else weights[learnt]
    return scores, codes, own / own.mean() if len(own) else own


def _most_likely(scores: Scores, codes: Codes, share: NDArray[np.float64], more: int) -> float:
    """Return the a with which the classes are most likely, of `more` unknown ones too, by Newton's method on log a."""
    n = len(scores)
    is_known = scores > _UNKNOWN
    known = np.where(is_known, scores, 0.0)
    target = (n * known[np.arange(n), codes] + more * known.sum(axis=1) / is_known.sum(axis=1)) / (n + more)
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

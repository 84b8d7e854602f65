"""Scores become probabilities: ``softmax(a * scores)``, with one factor fitted on images not trained on.

That is temperature scaling, a = 1 / T (Guo et al. 2017, "On calibration of modern neural networks"); of two classes it
is Platt's sigmoid without its offset (Platt 1999, "Probabilistic outputs for support vector machines"). No label
changes: an offset for each class that was fitted on the heads of the folds can turn all labels of the head of all rows.
One number does not: `prior_offset`, for linear heads of classes of unequal sizes.

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
_HALVINGS = 30
_HEARD = 0.1  # the least deviation of a times the scores beside shares

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


def prior_offset(
    scores: Scores, codes: Codes, log_shares: NDArray[np.float64], *, weights: NDArray[np.float64] | None = None
) -> float:
    """Return how many times the logarithms of the classes' shares should be added to scores.

    Margins of an SVM know nothing of how frequent a class is, and a strong penalty leaves a logistic head with little
    but that. The number is the ratio b / a of the most likely ``softmax(a * scores + b * log_shares)``, of the images
    and of one more whose class could be any, with a normal prior of b, of mean 0 and deviation 1: where there are few
    images, hardly anything is added. Nor is a so small that shares of classes that are nearly equal would drown scores
    which seem to tell nothing: the standard deviation of a times the scores of an image is 0.1 or more.

    Parameters
    ----------
    scores, codes, weights
        As for `calibrate`, each image once.
    log_shares : ndarray of float64, shape (k,)
        Of mean 0.

    Notes
    -----
    Newton's method with halved steps; the objective is convex in a and b. Adding logarithms of shares is the correction
    for other frequencies of M. Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14, 21-41; here how much of it is fitted.
    """
    scores, codes, share = _learnt(scores, codes, weights)
    n = len(scores)
    if not n:
        return 0.0
    known = scores > _UNKNOWN
    terms = np.stack([np.where(known, scores, 0.0), np.where(known, log_shares, 0.0)])  # (2, n, k)
    target = (n * terms[:, np.arange(n), codes] + terms.sum(axis=2) / known.sum(axis=1)) / (n + 1)
    around = terms[0].sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    deviation = float(np.sqrt(np.square(np.where(known, terms[0] - around, 0.0)).mean()))
    if not deviation:
        return 0.0
    terms[0] /= deviation
    target[0] /= deviation
    prior = np.array([0.0, 1 / (n + 1)])

    def loss(point: NDArray[np.float64]) -> float:
        logits = np.where(known, np.tensordot(point, terms, 1), NEVER)
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float((share * (total - point @ target)).mean() + prior @ point**2 / 2)

    point = np.array([1.0, 0.0])  # a, of scores of deviation 1, and b
    for _ in range(_STEPS):
        shares = softmax(np.where(known, np.tensordot(point, terms, 1), NEVER))
        mean = (shares * terms).sum(axis=2)
        slope = (share * (mean - target)).mean(axis=1) + prior * point
        apart = terms - mean[:, :, None]
        curvature = np.einsum("n,nk,ink,jnk->ij", share, shares, apart, apart) / n + np.diag(prior + 1e-9)
        step, before = np.linalg.solve(curvature, slope), loss(point)
        if point[0] == _HEARD and step[0] > 0:  # b alone can move
            step = np.array([0.0, slope[1] / curvature[1, 1]])
        for halving in range(_HALVINGS):
            found = np.maximum(point - step / 2**halving, [_HEARD, -np.inf])
            if (now := loss(found)) < before:
                point = found
                break
        else:
            break
        if before - now < 1e-9:
            break
    return float(deviation * point[1] / point[0])


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

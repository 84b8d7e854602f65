"""Turn scores into probabilities, ``softmax(a * scores)``, with one factor fitted on out-of-fold scores.

This is temperature scaling with a = 1 / T (Guo et al. 2017, "On calibration of modern neural networks"). For two
classes it is Platt scaling without an offset (Platt 1999, "Probabilistic outputs for support vector machines"). It
never changes a label. A free offset for each class, fitted on the heads of the folds, could change every label of the
head trained on all rows. `prior_offset`, for linear heads and unequal classes, fits a single number instead.

a maximises the likelihood of the images and of one pseudo-image with a uniform class. In the simulations of
``docs/explanation/heads.md`` no alternative was better from two images per class on: neither matching the mean
confidence to the accuracy, nor a stronger prior, nor a correction for the smaller training sets of the folds.
"""

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import MASKED
from bottleneck.heads.folds import Codes
from bottleneck.heads.head import softmax

_UNKNOWN = MASKED / 10  # lower scores are those of classes that the fold was not trained on
_MAX_LOG_RATIO = 15.0  # of |log a|, relative to the a at which a times the mean score is 1
_STEPS = 50
_HALVINGS = 30
_MIN_SCALE = 0.1  # minimum standard deviation of a times the scores

Scores = NDArray[np.float64]  # (n, k)


def calibrate(scores: Scores, codes: Codes, *, weights: NDArray[np.float64] | None = None, divisions: int = 1) -> float:
    """Return the factor a of maximum likelihood.

    One pseudo-image with a uniform class is added for each division: images that are all classified correctly do not
    prove that the next one will be (after Platt, section 2.2).

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Scores of images that the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    weights : ndarray of float64, shape (n,), optional
        Weights of the images.
    divisions : int
        How many times each image occurs: once for each division into folds.
    """
    scores, codes, share = _rows_of_known_classes(scores, codes, weights)
    return _max_likelihood(scores, codes, share, divisions) if len(scores) else 1.0


def calibrated_loss(
    scores: Scores, codes: Codes, *, weights: NDArray[np.float64] | None = None, divisions: int = 1
) -> float:
    """Return the mean log-loss of scores after `calibrate`."""
    scores, codes, share = _rows_of_known_classes(scores, codes, weights)
    if not len(scores):
        return 0.0
    behind = _max_likelihood(scores, codes, share, divisions) * (scores - scores.max(axis=1, keepdims=True))
    own = behind[np.arange(len(codes)), codes]
    return float((share * (np.log(np.exp(behind).sum(axis=1)) - own)).mean())


def prior_offset(
    scores: Scores, codes: Codes, log_shares: NDArray[np.float64], *, weights: NDArray[np.float64] | None = None
) -> float:
    """Return the multiple of the log class priors to add to scores.

    SVM margins ignore class frequencies, and a strongly regularised logistic head predicts little else. The result is
    the ratio b / a of maximum likelihood in ``softmax(a * scores + b * log_shares)``, over the images and one
    pseudo-image with a uniform class. b has a standard normal prior, so with few images the offset is close to 0. a is
    bounded below, so that nearly equal priors cannot dominate uninformative scores: the standard deviation of a times
    the scores of an image is at least 0.1.

    Parameters
    ----------
    scores, codes, weights
        As for `calibrate`, each image once.
    log_shares : ndarray of float64, shape (k,)
        Logarithms of the class frequencies, with mean 0.

    Notes
    -----
    Newton's method with step halving; the objective is convex in a and b. Adding log priors is the correction of
    M. Saerens et al. 2002, "Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation
    14, 21-41; here its strength is fitted.
    """
    scores, codes, share = _rows_of_known_classes(scores, codes, weights)
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
        logits = np.where(known, np.tensordot(point, terms, 1), MASKED)
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float((share * (total - point @ target)).mean() + prior @ point**2 / 2)

    point = np.array([1.0, 0.0])  # a, of scores of deviation 1, and b
    before = loss(point)
    for _ in range(_STEPS):
        shares = softmax(np.where(known, np.tensordot(point, terms, 1), MASKED))
        mean = (shares * terms).sum(axis=2)
        slope = (share * (mean - target)).mean(axis=1) + prior * point
        apart = terms - mean[:, :, None]
        curvature = np.einsum("n,nk,ink,jnk->ij", share, shares, apart, apart) / n + np.diag(prior + 1e-9)
        step = np.linalg.solve(curvature, slope)
        if point[0] == _MIN_SCALE and step[0] > 0:  # a is at its bound: only b can move
            step = np.array([0.0, slope[1] / curvature[1, 1]])
        for halving in range(_HALVINGS):
            found = np.maximum(point - step / 2**halving, [_MIN_SCALE, -np.inf])
            if (now := loss(found)) < before:
                point = found
                break
        else:
            break
        gain, before = before - now, now
        if gain < 1e-9:
            break
    return float(deviation * point[1] / point[0])


def _rows_of_known_classes(
    scores: Scores, codes: Codes, weights: NDArray[np.float64] | None
) -> tuple[Scores, Codes, NDArray[np.float64]]:
    """Return the images whose class their fold was trained on, with weights normalized to mean 1."""
    known = scores[np.arange(len(codes)), codes] > _UNKNOWN
    scores, codes = scores[known], codes[known]
    own = np.ones(len(codes)) if weights is None else weights[known]
    return scores, codes, own / own.mean() if len(own) else own


def _max_likelihood(scores: Scores, codes: Codes, share: NDArray[np.float64], more: int) -> float:
    """Return the maximum-likelihood a for the images and `more` pseudo-images, by Newton's method on log a."""
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
        logarithm = float(np.clip(logarithm - np.clip(step, -1, 1), start - _MAX_LOG_RATIO, start + _MAX_LOG_RATIO))
        if abs(step) < 1e-8:
            break
    return float(np.exp(logarithm))

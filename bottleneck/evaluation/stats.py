"""Confidence intervals of an accuracy, and tests of the difference between two heads."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottleneck.utils.groups import group_codes
from bottleneck.utils.quantiles import NORMAL

_STUDENT = (12.7062, 4.3027, 3.1824, 2.7764)  # quantiles of Student's t at 97.5 %, for 1 to 4 degrees of freedom
_VARIANCE_OF_HEADS = 1.05  # factor of the variance: the head of all images differs from the heads of the folds
_LEARNING_RATE = 0.3  # the odds of an error are proportional to the number of images to the power of minus this


def wilson_interval(successes: float, trials: float, z: float = NORMAL) -> tuple[float, float]:
    """Return the score interval of a proportion, whose coverage is accurate for small n and near 0 and 1.

    Parameters
    ----------
    successes, trials : float
    z : float
        Quantile of the normal distribution; the default gives 95 %.

    Notes
    -----
    E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, 209-212.
    """
    p, n = successes / trials, trials
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_interval(right: ArrayLike, groups: Sequence[str | None] | None = None) -> tuple[float, float]:
    """Return a 95 % interval of the accuracy of a head on new images, given the images that it was tested on.

    This is Wilson's interval at the effective number of images; see `cross_validated_interval`.

    Parameters
    ----------
    right : array of bool, shape (n,)
        Whether the prediction of each image is correct; n is at least 1.
    groups : sequence of str or None, length n
        Images of one group may be correlated; None is a group of one image.
    """
    shares = np.asarray(right, np.float64)
    n = _effective_size(shares, groups)
    return wilson_interval(float(shares.mean()) * n, n) if n else (0.0, 1.0)


def cross_validated_interval(
    accuracy: float, right: NDArray[np.float64], groups: Sequence[str | None] | None = None, *, share: float = 0.8
) -> tuple[float, float]:
    """Return a 95 % interval of the accuracy on new images of a head trained on all images, given its cross-validation.

    This is Wilson's interval with three corrections:

    - Images of a group are correlated: 100 images in groups of 5, each all right or all wrong, count as 20.
    - The head trained on all images differs from the heads of the folds, and so does its accuracy, by chance: this
      adds 5 % to the variance.
    - It is trained on more images than they are: the upper bound assumes that the odds of an error fall with the number
      of images to the power of -0.3.

    Both numbers are fitted to simulations; ``docs/explanation/intervals.md`` has the coverage.

    Parameters
    ----------
    accuracy : float
    right : ndarray of float64, shape (n,)
        For each tested image, the fraction of the divisions into folds in which its prediction is correct.
    groups : sequence of str or None, length n
        Images of one group may be correlated; None is a group of one image.
    share : float
        The fraction of the images that the head of a fold is trained on: 0.8 with five folds.

    Notes
    -----
    The correlation within groups is the intraclass correlation by analysis of variance; it gives the design effect of
    groups of unequal sizes (L. Kish 1965, "Survey sampling"). The effective number of images in Wilson's interval, and
    the quantile of Student's t for few groups, are due to E. L. Korn and B. I. Graubard 1998, "Confidence intervals for
    proportions with small expected number of positive counts estimated from survey data", Survey Methodology 24,
    193-201, and to N. Dean and M. Pagano 2015, "Evaluating confidence interval methods for binomial proportions in
    clustered surveys", Journal of Survey Statistics and Methodology 3, 484-503.
    """
    n = _effective_size(right, groups) / _VARIANCE_OF_HEADS
    if not n:
        return 0.0, 1.0
    wrong = (1 - accuracy) * share**_LEARNING_RATE
    learned = accuracy / (accuracy + wrong)
    return wilson_interval(accuracy * n, n)[0], wilson_interval(learned * n, n)[1]


def is_guessing(interval: tuple[float, float], balanced: float, counts: Sequence[int]) -> bool:
    """Return whether predictions are not significantly better than guessing.

    Neither the accuracy is above the share of the largest class, nor the balanced accuracy above 1 / k.

    Parameters
    ----------
    interval : (float, float)
        Of the accuracy, 95 %; half its width is used for the balanced accuracy, too.
    balanced : float
        The mean recall of the classes.
    counts : sequence of int
        Images of each class; k of them have some.
    """
    low, high = interval
    return low <= max(counts) / sum(counts) and balanced - (high - low) / 2 <= 1 / sum(map(bool, counts))


def half_width(n: int, accuracy: float) -> float:
    """Return half the width of the 95 % interval (`wilson_interval`) of an accuracy that is measured on n images.

    It applies to a single accuracy. To compare two heads, use `mcnemar`, which compares them image by image and detects
    smaller differences.
    """
    low, high = wilson_interval(accuracy * n, n)
    return (high - low) / 2


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> dict[str, Any]:
    """Test whether two heads have the same accuracy, using the images that only one of them classifies correctly.

    Parameters
    ----------
    right_a, right_b : array of bool, shape (n,)
        Whether the prediction of each head is correct for each image.

    Returns
    -------
    dict
        A JSON object: ``only_a`` and ``only_b``, the numbers of images that only one head classifies correctly, and
        ``p_value``, two-sided and exact: twice the smaller tail of the binomial distribution, at most 1.

    Notes
    -----
    Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 153-157; for classifiers T. G. Dietterich 1998, "Approximate statistical tests for comparing
    supervised classification learning algorithms", Neural Computation 10, 1895-1923. The test compares two trained
    heads, not two ways to train.
    """
    from scipy.special import bdtr  # its import takes longer than most commands need; scipy.stats takes even longer

    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    tail = float(bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return {"only_a": only_a, "only_b": only_b, "p_value": min(1.0, 2 * tail)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests, in the same order.

    Notes
    -----
    S. Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
    65-70.
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _effective_size(right: NDArray[np.float64], groups: Sequence[str | None] | None) -> float:
    """Return how many independent images would have the same information; 0 if all images are of one group."""
    n = len(right)
    if groups is None:
        return n
    codes = group_codes(groups, n)
    sizes = np.bincount(codes)
    if len(sizes) in (1, n):
        return n if len(sizes) == n else 0
    correlation = _intraclass_correlation(right, codes, sizes)
    effect = 1 + correlation * (float((sizes**2).sum()) / n - 1)
    return float(n / effect / _student(len(sizes) - 1) ** 2)


def _intraclass_correlation(right: NDArray[np.float64], codes: NDArray[np.intp], sizes: NDArray[np.intp]) -> float:
    """Return the correlation of the images of a group, from 0 to 1; 1 if all images are equal."""
    n, count = len(right), len(sizes)
    means = np.bincount(codes, right) / sizes
    between = float((sizes * (means - right.mean()) ** 2).sum()) / (count - 1)
    within = float(((right - means[codes]) ** 2).sum()) / (n - count)
    size = (n - float((sizes**2).sum()) / n) / (count - 1)
    total = between + (size - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total else 1.0


def _student(degrees: int) -> float:
    """Return the quantile of Student's t at 97.5 %, divided by that of the normal distribution.

    Up to four degrees of freedom it is looked up in a table. Above, it is approximated within 0.2 % (M. Abramowitz and
    I. A. Stegun 1964, "Handbook of mathematical functions", 26.7.5).
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1] / NORMAL
    z = NORMAL**2
    terms = (z + 1) / 4, (5 * z**2 + 16 * z + 3) / 96, (3 * z**3 + 19 * z**2 + 17 * z - 15) / 384
    return float(1 + sum(term / degrees**power for power, term in enumerate(terms, 1)))

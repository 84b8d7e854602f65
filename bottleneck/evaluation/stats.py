"""Intervals and tests: how far an accuracy may be off, and whether two heads differ by more than chance."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottleneck.utils.groups import group_codes

_NORMAL = 1.959963984540054  # its quantile for 95 %
_FEW_FREEDOMS = (12.7062, 4.3027, 3.1824, 2.7764)  # Student's, of 1 to 4 degrees of freedom
_OTHER_HEAD = 1.05  # how many times the variance is larger, as the head of all images is another one
_LEARNING = 0.3  # the odds of an error fall with the number of images to the power of minus this


def wilson_interval(successes: float, trials: float, z: float = _NORMAL) -> tuple[float, float]:
    """Return the score interval of a proportion, which holds its level at small n and near 0 and 1.

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
    """Return a 95 % interval of the accuracy of a head on new images, by images that it was tested on.

    It is Wilson's interval on as many independent images as tell as much; see `cross_validated_interval`.

    Parameters
    ----------
    right : array of bool, shape (n,)
        Whether the head is right about each image; n is at least 1.
    groups : sequence of str or None, length n
        Images of one group may be alike; None is a group of its own.
    """
    shares = np.asarray(right, np.float64)
    n = _independent(shares, groups)
    return wilson_interval(float(shares.mean()) * n, n) if n else (0.0, 1.0)


def cross_validated_interval(
    accuracy: float, right: NDArray[np.float64], groups: Sequence[str | None] | None = None, *, share: float = 0.8
) -> tuple[float, float]:
    """Return a 95 % interval of the accuracy, on new images, of a head of all images whose folds have been tested.

    It is Wilson's interval with three corrections:

    - Images of a group are not independent: 100 that are right or wrong by fives tell no more than 20.
    - The head of all images is another one than those of the folds, and its accuracy differs by chance: that adds 5 %
      to the variance.
    - It has seen more images than they: the upper end is that of an error whose odds fall with the number of images to
      the power of -0.3.

    Both numbers are fitted to simulations; ``docs/intervals.md`` has the coverage.

    Parameters
    ----------
    accuracy : float
    right : ndarray of float64, shape (n,)
        Of each image that was tested the share of the divisions into folds in which it was right.
    groups : sequence of str or None, length n
        Images of one group may be alike; None is a group of its own.
    share : float
        How many of the images the head of a fold is trained on: of five folds four in five.

    Notes
    -----
    How much images of a group are alike is their intraclass correlation by analysis of variance; it gives the design
    effect of groups of unequal sizes (L. Kish 1965, "Survey sampling"). That an effective number of images may go into
    Wilson's interval, and that few groups widen it by the quantile of Student's t, is due to E. L. Korn and B. I.
    Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24, 193-201, and to N. Dean and M. Pagano 2015, "Evaluating confidence interval
    methods for binomial proportions in clustered surveys", Journal of Survey Statistics and Methodology 3, 484-503.
    """
    n = _independent(right, groups) / _OTHER_HEAD
    if not n:
        return 0.0, 1.0
    wrong = (1 - accuracy) * share**_LEARNING
    learned = accuracy / (accuracy + wrong)
    return wilson_interval(accuracy * n, n)[0], wilson_interval(learned * n, n)[1]


def resolution(n: int, accuracy: float) -> float:
    """Return half the width of the 95 % interval (`wilson_interval`) of an accuracy measured on n images.

    It is of one accuracy, and no threshold for the difference of two: `mcnemar` compares two heads image by image, and
    finds smaller differences.
    """
    low, high = wilson_interval(accuracy * n, n)
    return (high - low) / 2


def mcnemar(right_a: ArrayLike, right_b: ArrayLike) -> dict[str, Any]:
    """Test whether two heads are right equally often, by the images on which they differ.

    Parameters
    ----------
    right_a, right_b : array of bool, shape (n,)
        Whether each head is right on each of the same images.

    Returns
    -------
    dict
        A JSON object: ``only_a`` and ``only_b``, the numbers of images that only one head has right, and ``p_value``,
        two-sided and exact: twice the smaller tail of the binomial distribution of ``only_a`` among both, at most 1.

    Notes
    -----
    Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 153-157; for classifiers T. G. Dietterich 1998, "Approximate statistical tests for comparing
    supervised classification learning algorithms", Neural Computation 10, 1895-1923. It says how sure the difference
    of two trained heads is, not that of two ways to train.
    """
    a, b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = min(1.0, 2 * _binomial_tail(min(only_a, only_b), only_a + only_b))
    return {"only_a": only_a, "only_b": only_b, "p_value": p_value}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in their order; those below a level hold together at that level.

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


def _independent(right: NDArray[np.float64], groups: Sequence[str | None] | None) -> float:
    """Return how many independent images tell as much of their mean as these; 0 where all are of one group."""
    n = len(right)
    if groups is None:
        return n
    codes = group_codes(groups, n)
    sizes = np.bincount(codes)
    if len(sizes) in (1, n):
        return n if len(sizes) == n else 0
    alike = _intraclass_correlation(right, codes, sizes)
    effect = 1 + alike * (float((sizes**2).sum()) / n - 1)
    return float(n / effect / _student(len(sizes) - 1) ** 2)


def _intraclass_correlation(right: NDArray[np.float64], codes: NDArray[np.intp], sizes: NDArray[np.intp]) -> float:
    """Return how alike the images of a group are, from 0 to 1; 1 where no image differs from another."""
    n, count = len(right), len(sizes)
    means = np.bincount(codes, right) / sizes
    between = float((sizes * (means - right.mean()) ** 2).sum()) / (count - 1)
    within = float(((right - means[codes]) ** 2).sum()) / (n - count)
    size = (n - float((sizes**2).sum()) / n) / (count - 1)
    total = between + (size - 1) * within
    return min(1.0, max(0.0, (between - within) / total)) if total else 1.0


def _student(freedom: int) -> float:
    """Return how many times that of the normal distribution the quantile of Student's t for 95 % is.

    From tables for up to four degrees of freedom; from five on by M. Abramowitz and I. A. Stegun 1964, "Handbook of
    mathematical functions", 26.7.5, within 0.2 %.
    """
    if freedom <= len(_FEW_FREEDOMS):
        return _FEW_FREEDOMS[freedom - 1] / _NORMAL
    z = _NORMAL**2
    terms = (z + 1) / 4, (5 * z**2 + 16 * z + 3) / 96, (3 * z**3 + 19 * z**2 + 17 * z - 15) / 384
    return float(1 + sum(term / freedom**power for power, term in enumerate(terms, 1)))


def _binomial_tail(most: int, trials: int) -> float:
    """Return P(X <= most) of X ~ Binomial(trials, 1/2), for `most` up to the half: the terms fall from the last on."""
    log_last = math.lgamma(trials + 1) - math.lgamma(most + 1) - math.lgamma(trials - most + 1) - trials * math.log(2)
    term = total = 1.0
    for successes in range(most, 0, -1):
        term *= successes / (trials - successes + 1)
        total += term
        if term < total * 1e-17:
            break
    return math.exp(log_last) * total

"""Intervals and tests: how far an accuracy may be off, and whether two heads differ by more than chance."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(successes: float, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the score interval of a proportion, which holds its level at small n and near 0 and 1.

    Parameters
    ----------
    successes : float
    trials : int
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


def resolution(n: int, accuracy: float) -> float:
    """Return how far an accuracy that was measured on n images may be off: half the width of `wilson_interval`.

    A rule of thumb for two heads: by their accuracies alone, ones that differ by less cannot be told apart on these
    images. `mcnemar`, which looks at both heads on each image, sees finer.
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

"""Coverage and size of conformal prediction sets: by a threshold (as in the package), adaptive, regularised adaptive.

Each split draws a training set, on which a head is cross-validated and fitted as `fit` does, and tests the sets of all
other images. All three methods have the same probabilities and the same random numbers.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from selection_sets import Features, features

from bottleneck.evaluation.conformal import Conformal
from bottleneck.heads.family import family
from bottleneck.heads.search import Search, search

PROMISES = (0.9, 0.95, 0.99)
TRAINED = 0.6  # share of the images
SPLITS = 50
REGULARISED = (0.01, 2)  # lambda and k_reg of RAPS
METHODS = ("threshold", "adaptive", "regularised")


class Coverage(NamedTuple):
    """Of one split: coverage before and after the most probable class is added to each set, size, and empty sets."""

    before: float
    after: float
    size: float
    empty: float
    worst: float  # coverage of the class with the lowest


def section(work: Path, images: Path | None, *, quick: bool) -> Iterator[str]:
    """Yield the lines of the table, set by set."""
    splits = 5 if quick else SPLITS
    yield f"conformal sets: {splits} splits of each set, {TRAINED:.0%} for training; mean ± standard deviation"
    yield (
        "set     method       promise  coverage, exact  coverage, shown  mean size      empty   worst class  "
        "largest gap of all splits"
    )
    for name in ("digits", "ants", "elpv"):
        found = features(name, work, images)
        if found is None:
            yield f"{name}: not available"
            continue
        yield from _rows(name, found, splits)


def _rows(name: str, given: Features, splits: int) -> Iterator[str]:
    results = {(method, promise): [] for method in METHODS for promise in PROMISES}
    for seed in range(splits):
        for key, result in _split(given, seed).items():
            results[key].append(result)
    for (method, promise), of_splits in results.items():
        mean, spread = np.mean(of_splits, axis=0), np.std(of_splits, axis=0, ddof=1)
        gap = max(abs(result.before - promise) for result in of_splits)
        exact, shown = (f"{mean[place]:7.2%} ± {spread[place]:5.2%}" for place in (0, 1))
        size = f"{mean[2]:5.2f} ± {spread[2]:4.2f}"
        yield (
            f"{name:7s} {method:12s} {promise:6.0%}   {exact}  {shown}   {size}  {mean[3]:6.2%}  {mean[4]:11.1%}  "
            f"{gap:.1%}"
        )


def _split(given: Features, seed: int) -> dict[tuple[str, float], Coverage]:
    random = np.random.default_rng(seed)
    order = random.permutation(len(given.codes))
    cut = round(TRAINED * len(order))
    train, test = order[:cut], order[cut:]
    names = [f"{code:03d}" for code in given.codes]
    done = search(given.x[train], [names[row] for row in train], family("logistic"), seed=seed)
    known = np.unique(given.codes[train])
    calibrating = np.searchsorted(known, given.codes[train][done.rows])
    codes = np.searchsorted(known, given.codes[test])
    chances = random.random(len(given.codes))
    own, others = chances[train][done.rows], chances[test]
    return {
        (method, promise): _coverage(method, promise, done, (calibrating, own), (given.x[test], codes, others))
        for method in METHODS
        for promise in PROMISES
    }


def _coverage(method: str, promise: float, done: Search, calibration: tuple, tested: tuple) -> Coverage:
    codes, chances = calibration
    x, labels, others = tested
    shares = done.head.probabilities(x)
    if method == "threshold":
        before = Conformal.of(done.probabilities, codes).sets_with_empty_ones(shares, promise)
    else:
        scores = _scores(method, done.probabilities, chances)[np.arange(len(codes)), codes]
        rank = int(np.ceil((len(scores) + 1) * promise - 1e-9))
        limit = np.sort(scores)[rank - 1] if rank <= len(scores) else np.inf
        before = _scores(method, shares, others) <= limit
    after = before.copy()
    after[np.arange(len(after)), shares.argmax(axis=1)] = True
    right = after[np.arange(len(labels)), labels]
    return Coverage(
        before=before[np.arange(len(labels)), labels].mean(),
        after=right.mean(),
        size=after.sum(axis=1).mean(),
        empty=(~before.any(axis=1)).mean(),
        worst=min(right[labels == code].mean() for code in np.unique(labels)),
    )


def _scores(method: str, shares: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Return the scores of APS (Romano, Sesia and Candes 2020) or RAPS (Angelopoulos and others 2021), ``(n, k)``."""
    order = np.argsort(-shares, axis=1, kind="stable")
    ranked = np.take_along_axis(shares, order, axis=1)
    values = np.cumsum(ranked, axis=1) - ranked + chances[:, None] * ranked
    if method == "regularised":
        weight, free = REGULARISED
        values += weight * np.maximum(np.arange(1, shares.shape[1] + 1) - free, 0)
    scores = np.empty(shares.shape)
    np.put_along_axis(scores, order, values, axis=1)
    return scores

"""Refit a tested head on more rows, with the same parameters and at most the same confidence."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Arrays
from bottleneck.heads.calibrated_fit import COMPARED_ROWS, fit_calibrated, score_spread
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Normalize
from bottleneck.heads.folds import divide
from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.prior import Prior
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import SINGLE_THREAD_SIZE, linalg_errors_as_head_errors
from bottleneck.heads.threads import single_threaded_blas


def refit(
    tested: Head,
    family: Family,
    params: Params,
    features: Features | FeatureTable,
    labels: Sequence[str],
    *,
    seen: NDArray[np.bool_],
    groups: Sequence[str | None] | None = None,
    folds: int = 5,
    normalize: Normalize,
    balanced: bool = False,
    seed: int = 0,
    device: str = "cpu",
) -> Head:
    """Train a head on all rows, with the parameters of one that was trained on some of them.

    Nothing is selected again, since no row is left to test the choice: hyperparameters, kind of scaling and seed are
    those of the tested head. If that is the head for constant features, see `bottleneck.heads.prior.Prior`, so is the
    result.

    Parameters
    ----------
    tested : Head
    family : Family
        Its family, with its options.
    params : dict of str to float
        Its hyperparameters.
    features : ndarray of float32, shape (n, d), or FeatureTable
    labels : sequence of str, length n
        Labels among the classes of the tested head.
    seen : ndarray of bool, shape (n,)
        Which rows the tested head was trained on.
    groups, folds, normalize, balanced, seed, device
        The values passed to `bottleneck.heads.search.search` for the tested head.

    Returns
    -------
    Head
        Deterministic for a seed and an order of the rows.

    Raises
    ------
    HeadError
        If the fit is not finite.

    Notes
    -----
    The inverse temperature is that of the tested head, times the ratio of the spreads of both heads' scores on rows
    that both were trained on, at most 1: with more rows the same C regularises less and scores grow, which does not
    justify more confidence; if they shrink, the new rows contradict the old ones. It is also at most the value fitted
    by cross-validation on all rows: with a dozen images, the tested head may have had balanced classes and a large
    value, with which one more image of a class dominates. Mean log-loss on unseen images of ants and bees, digits and
    solar cells, seven heads each, with 5, 20 and 100 images per class of which a fifth are new: 0.977, 0.576, 0.422;
    without the last bound 1.183, 0.579, 0.423; of the tested heads 1.069, 0.601, 0.435 (``benchmarks/bench_final.py``,
    with ``shrunk`` features).
    """
    place = {name: code for code, name in enumerate(tested.classes)}
    table = InMemoryFeatures(features) if isinstance(features, np.ndarray) else features
    codes = np.array([place[label] for label in labels], np.intp)
    n, d = table.shape
    with single_threaded_blas() as cores, linalg_errors_as_head_errors(family.name):
        problem = Problem(
            table=table,
            codes=codes,
            count=len(place),
            folds=divide(codes, groups, folds, seed),
            normalize=normalize,
            balanced=balanced,
            seed=seed,
            arrays=Arrays(device, cores if n * d >= SINGLE_THREAD_SIZE else 1),
        )
        if isinstance(tested, LinearHead) and not tested.weight.any():
            fitted = Prior(family).fit(problem, params)
            return fitted.head(family.name, tested.classes, problem.scaling, tested.fingerprint)
        head, _ = fit_calibrated(problem, family, params, tested.classes)
        carried = tested.inverse_temperature * _ratio(tested, head, table, seen)
        return replace(head, inverse_temperature=min(carried, head.inverse_temperature), fingerprint=tested.fingerprint)


def _ratio(tested: Head, head: Head, table: FeatureTable, seen: NDArray[np.bool_]) -> float:
    """Return the ratio of the score spreads of the tested and the new head on common training rows, at most 1."""
    rows = np.flatnonzero(seen)
    some = table.take(rows[:: -(-len(rows) // COMPARED_ROWS)])
    before, now = score_spread(tested.scores(some)), score_spread(head.scores(some))
    return min(1.0, before / now) if before and now else 1.0

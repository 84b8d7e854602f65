"""A head that was tested, trained again on more rows: with the same parameters, and no surer of itself."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Arrays
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Normalize
from bottleneck.heads.folds import divide
from bottleneck.heads.head import Head
from bottleneck.heads.learning import COMPARED_ROWS, learn, spread
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.prior import Prior
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import FOR_ONE_CORE, as_sentence


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

    Nothing is chosen anew, since no row is left that could test the choice: parameters, scaling (its kind; the numbers
    are those of all rows) and seed are those of the tested head. Where that is the head of features that tell nothing,
    see `bottleneck.heads.prior.Prior`, so is this one.

    Parameters
    ----------
    tested : Head
    family : Family
        Its family, with its options.
    params : dict of str to float
        The point that was chosen for it.
    features : ndarray of float32, shape (n, d), or FeatureTable
    labels : sequence of str, length n
        Each one of the tested head's classes.
    seen : ndarray of bool, shape (n,)
        Which rows the tested head was trained on.
    groups, folds, normalize, balanced, seed, device
        As for `bottleneck.heads.search.search`, and as they were there.

    Returns
    -------
    Head
        Equal seeds give equal heads of equal rows in one order.

    Raises
    ------
    HeadError
        If nothing finite comes of it.

    Notes
    -----
    The factor of the scores is the tested head's, times the ratio of how far apart the two heads' scores lie on rows
    that both were trained on, but at most 1: with more rows the penalty of the same C weighs less and scores grow,
    which is no reason to be surer; where they shrink, the new rows speak against the old ones. Nor is it larger than
    the factor that cross-validation on all rows finds: of a dozen images, the tested head may have had classes of one
    size and large factors, with which one image more of a class decides all. Mean log-loss on unseen images of ants and
    bees, digits and solar cells, seven heads each, with 5, 20 and 100 images a class of which a fifth are new: 0.977,
    0.576, 0.422; without the last bound 1.183, 0.579, 0.423; of the tested heads 1.069, 0.601, 0.435
    (``benchmarks/bench_final.py``, features scaled by half of their own variance and half of the mean one).
    """
    place = {name: code for code, name in enumerate(tested.classes)}
    table = InMemoryFeatures(features) if isinstance(features, np.ndarray) else features
    codes = np.array([place[label] for label in labels], np.intp)
    n, d = table.shape
    with one_core_a_product() as cores, as_sentence(family.name):
        task = Problem(
            table=table,
            codes=codes,
            count=len(place),
            folds=divide(codes, groups, folds, seed),
            normalize=normalize,
            balanced=balanced,
            seed=seed,
            arrays=Arrays(device, cores if n * d >= FOR_ONE_CORE else 1),
        )
        if isinstance(tested, LinearHead) and not tested.weight.any():
            fitted = Prior(family).fit(task, params)
            return fitted.head(family.name, tested.classes, task.scaling, tested.fingerprint)
        head, _ = learn(task, family, params, tested.classes)
        carried = tested.inverse_temperature * _ratio(tested, head, table, seen)
        return replace(head, inverse_temperature=min(carried, head.inverse_temperature), fingerprint=tested.fingerprint)


def _ratio(tested: Head, head: Head, table: FeatureTable, seen: NDArray[np.bool_]) -> float:
    """Return how far apart the scores of the tested head lie for one of the new head, on rows that both know."""
    rows = np.flatnonzero(seen)
    some = table.take(rows[:: -(-len(rows) // COMPARED_ROWS)])
    before, now = spread(tested.scores(some)), spread(head.scores(some))
    return min(1.0, before / now) if before and now else 1.0

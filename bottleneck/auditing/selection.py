"""The hyperparameters of the heads of an audit, and the problem that they are trained on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features, InMemoryFeatures, Normalize
from bottleneck.heads.folds import Codes, Folds, stratified
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import Prior, prior_if_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import SINGLE_THREAD_SIZE, linalg_errors_as_head_errors
from bottleneck.heads.threads import single_threaded_blas

_SEARCHED = 5_000  # rows
_ROWS = 16_384  # checked at once


@dataclass(frozen=True)
class Selected:
    """The hyperparameters and the scaling of a head.

    Parameters
    ----------
    params : dict of str to float
        A point of the family's grid.
    normalize : str
        See `bottleneck.heads.features.scalings`.
    """

    params: Params
    normalize: Normalize


def select(
    features: Features,
    labels: Sequence[str],
    *,
    head: str = "logistic",
    groups: Sequence[str | None] | None = None,
    options: HeadOptions | None = None,
) -> Selected:
    """Search hyperparameters and scaling by cross-validation, on about 5,000 rows unless the search is full.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labels : sequence of str, length n
    head : str
        One of `bottleneck.heads.family.NAMES`.
    groups : sequence of str or None, length n
    options : HeadOptions, optional

    Raises
    ------
    HeadError
        See `bottleneck.heads.search.search`.

    Notes
    -----
    C weighs the sum of the losses of all rows. A search on a share of them uses C / share, and the result is converted
    back.
    """
    options = options or HeadOptions()
    codes = checked(features, labels)[1]
    n = len(codes)
    rows = stratified(codes, n if options.search == "full" else _SEARCHED, 2 * options.folds, options.seed)
    share = len(rows) / n
    if options.C and share < 1:
        options = replace(options, C=tuple(C / share for C in options.C))
    some = [labels[row] for row in rows]
    units = None if groups is None else [groups[row] for row in rows]
    found = options.search_head(head, features if share == 1 else features[rows], some, units, "")
    return Selected(
        {name: value * share if name == "C" else value for name, value in found.params.items()}, found.normalize
    )


def checked(features: Features, labels: Sequence[str]) -> tuple[tuple[str, ...], Codes]:
    """Return the classes, sorted, and the class of each row.

    Raises
    ------
    HeadError
        If there are fewer than two classes, or another number of labels than rows, or a feature is NaN or infinite.
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise HeadError(f"expected a row of features for each of {len(labels):,} labels, got {features.shape}")
    for start in range(0, len(features), _ROWS):
        bad = ~np.isfinite(features[start : start + _ROWS]).all(axis=1)
        if bad.any():
            raise HeadError(
                f"expected finite features, found NaN or infinity in row {start + int(bad.argmax())}: extract the "
                f"features of this image again"
            )
    classes, codes = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
    if len(classes) < 2:
        raise HeadError(f"expected images of at least two classes, found {classes.tolist()}")
    return tuple(classes.tolist()), codes


@contextmanager
def problem_on_folds(
    features: Features, codes: Codes, count: int, folds: Folds, selected: Selected, head: str, options: HeadOptions
) -> Iterator[tuple[Problem, Family]]:
    """Yield labelled features and the family of their heads, or the `Prior` if features are constant.

    Raises
    ------
    HeadError
        If features are too large, or equations cannot be solved.
    """
    with single_threaded_blas() as cores, linalg_errors_as_head_errors(head):
        problem = Problem(
            table=InMemoryFeatures(features),
            codes=codes,
            count=count,
            folds=folds,
            normalize=selected.normalize,
            balanced=options.class_weight == "balanced",
            seed=options.seed,
            arrays=Arrays(options.device, cores if features.size >= SINGLE_THREAD_SIZE else 1),
        )
        family = prior_if_constant(options.family(head), problem, quiet=True)
        if not isinstance(family, Prior):
            problem.check_magnitudes()
        yield problem, family

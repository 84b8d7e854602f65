"""Choose C by stratified cross-validation on the training part, then fit on all of it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from bottleneck.errors import HeadError
from bottleneck.heads.family import Codes, Family, Weights, spread
from bottleneck.heads.linear import Features, LinearHead, softmax

_Outcome = tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]

_NEVER = -1e29  # below it are the scores of classes that a fold was not trained on


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Parameters
    ----------
    head : LinearHead
        Fitted on all training images at the best C.
    C : float
    grid : tuple of float, length g
    fold_accuracy : ndarray of float64, shape (g, folds)
    """

    head: LinearHead
    C: float
    grid: tuple[float, ...]
    fold_accuracy: NDArray[np.float64]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the folds at the chosen C.

        What was chosen by it looks a little better than it is; the held-out part says how good it is.
        """
        return float(self.fold_accuracy[self.grid.index(self.C)].mean())


def search(
    features: Features,
    labels: Sequence[str],
    family: Family,
    *,
    groups: Sequence[str | None] | None = None,
    grid: Sequence[float] | None = None,
    folds: int = 5,
    seed: int = 0,
    fingerprint: str = "",
) -> Search:
    """Fit a head.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        Each image once.
    labels : sequence of str, length n
    family : Family
    groups : sequence of str or None, length n
        Images of one group are never on both sides of a fold.
    grid : sequence of float, optional
        Values of C; by default the family's.
    folds : int
        At most; fewer where no class has that many images.
    seed : int
        Of the folds and of the family's own randomness. Equal seeds give equal heads.
    fingerprint : str
        Of the features' spec.

    Raises
    ------
    HeadError
        If there are fewer than two classes, or no class has two images.
    """
    chosen = tuple(sorted(grid if grid is not None else family.grid))
    if not chosen or not all(0 < C < np.inf for C in chosen):
        raise HeadError(f"expected values of C above 0, got {list(chosen)}")
    classes, codes = np.unique(np.array(labels), return_inverse=True)
    if len(classes) < 2:
        raise HeadError(f"expected at least two classes to train on, found {classes.tolist()}")
    parts = _folds(codes, groups, folds, seed)
    with warnings.catch_warnings():
        # Separable classes have no finite optimum as C grows; a solver that stops early has separated them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        outcomes = _cross_validate(features, codes, len(classes), family, chosen, parts, seed)
    right = [(codes[test], scores.argmax(axis=2) == codes[test]) for test, scores, _ in outcomes]
    accuracy = np.array([hits.mean(axis=1) for _, hits in right]).T
    balanced = np.array(
        [np.mean([hits[:, own == code].mean(axis=1) for code in np.unique(own)], axis=0) for own, hits in right]
    ).T
    best = one_standard_error(balanced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path, mean, scale = _fit(features, codes, len(classes), family, chosen[best : best + 1], seed)
    weight, bias = path[0]
    out_of_fold = np.concatenate([scores[best] for _, scores, _ in outcomes])
    sharpness = fit_sharpness(out_of_fold, codes[np.concatenate([test for test, _, _ in outcomes])])
    # The head has seen more rows than those of the folds, and where C is small its weights are larger for it.
    of_folds, of_head = np.mean([sizes[best] for _, _, sizes in outcomes]), _size(weight)
    if of_folds and of_head:
        sharpness *= float(of_folds / of_head)
    head = LinearHead(
        family=family.name,
        classes=tuple(classes.tolist()),
        weight=weight,
        bias=bias,
        mean=mean,
        scale=scale,
        sharpness=sharpness,
        fingerprint=fingerprint,
    )
    return Search(head=head, C=chosen[best], grid=chosen, fold_accuracy=accuracy)


def one_standard_error(fold_accuracy: NDArray[np.float64]) -> int:
    """Return the row of the most regularised C that is within one standard error of the best.

    Accuracies of neighbouring C are often equal up to noise; of those that are, the simplest generalises best. The
    rule is that of Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3. It is used on balanced
    accuracy (mean recall of the classes): by plain accuracy a head that always says the largest class would do.

    Parameters
    ----------
    fold_accuracy : ndarray of float64, shape (g, folds)
        Rows by rising C.
    """
    mean = fold_accuracy.mean(axis=1)
    best = int(mean.argmax())
    folds = fold_accuracy.shape[1]
    error = fold_accuracy[best].std(ddof=1) / np.sqrt(folds) if folds > 1 else 0.0
    return int(np.flatnonzero(mean >= mean[best] - error - 1e-12)[0])


def _size(weight: NDArray[np.float32]) -> float:
    """Return the Frobenius norm of the differences between classes, which are all that decides."""
    return float(np.linalg.norm(weight - weight.mean(axis=0)))


def standardisation(features: Features) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation ``(d,)`` of features ``(n, d)``; where all are equal, 1 for the latter."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1.0
    return mean.astype(np.float32), scale.astype(np.float32)


def fit_sharpness(scores: NDArray[np.float64], codes: Codes) -> float:
    """Return the factor a that makes ``softmax(a * scores)`` most likely, by Newton's method on log a.

    This is temperature scaling, a = 1/T (Guo et al. 2017, "On calibration of modern neural networks"). To the
    n images one is added whose class could be any: n that are all right do not prove that the next cannot be wrong
    (after Platt 1999, "Probabilistic outputs for support vector machines", section 2.2).

    Parameters
    ----------
    scores : ndarray of float64, shape (n, k)
        Of images the head was not trained on.
    codes : ndarray of int, shape (n,)
        Their classes.
    """
    learnt = scores[np.arange(len(codes)), codes] > _NEVER  # a fold that lacks a class says nothing of its images
    scores, codes = scores[learnt], codes[learnt]
    n = len(scores)
    if not n:
        return 1.0
    known = np.where(scores > _NEVER, scores, 0.0)
    target = (n * known[np.arange(n), codes] + known.mean(axis=1)) / (n + 1)
    logarithm = -float(np.log(np.abs(known).mean() + 1e-12))
    for _ in range(50):
        factor = np.exp(logarithm)
        shares = softmax(factor * scores)
        mean = (shares * known).sum(axis=1)
        spread = (shares * known**2).sum(axis=1) - mean**2
        slope = float((mean - target).mean() * factor)
        curvature = float(spread.mean() * factor**2 + slope)
        step = slope / curvature if curvature > 0 else np.sign(slope)
        logarithm = float(np.clip(logarithm - np.clip(step, -1, 1), -15, 15))
        if abs(step) < 1e-8:
            break
    return float(np.exp(logarithm))


def _folds(
    codes: Codes, groups: Sequence[str | None] | None, folds: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return (train, test) rows of each fold. The only image of a class is always trained on."""
    counts = np.bincount(codes)
    units = _units(groups, len(codes))
    units_of_class = [len(set(units[codes == code].tolist())) for code in range(len(counts))]
    rows = np.flatnonzero(np.array(units_of_class)[codes] > 1)
    if not len(rows):
        raise HeadError("expected a class with at least two training images (of two groups), to cross-validate on")
    count = int(np.clip(max(units_of_class), 2, folds))  # smaller classes are missing from some folds' test part
    grouped = len(set(units.tolist())) < len(units)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(count, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class is smaller than the folds: seen to above
        parts = list(splitter.split(rows, codes[rows], units[rows]))
    return [(np.flatnonzero(~np.isin(units, units[rows[test]])), rows[test]) for _, test in parts if len(test)]


def _units(groups: Sequence[str | None] | None, count: int) -> NDArray[np.intp]:
    """Return a number for each row, equal for rows of one group."""
    if groups is None:
        return np.arange(count)
    names = [f"group {group}" if group is not None else f"row {row}" for row, group in enumerate(groups)]
    return np.unique(np.array(names), return_inverse=True)[1]


def _fit(
    features: Features, codes: Codes, count: int, family: Family, grid: Sequence[float], seed: int
) -> tuple[list[Weights], NDArray[np.float32], NDArray[np.float32]]:
    """Standardise by these rows alone, and fit at each C."""
    mean, scale = standardisation(features)
    present = np.unique(codes)
    if len(present) == 1:  # a fold may be left with one class, which then always wins
        nothing = np.zeros((1, features.shape[1]))
        path = [spread(nothing, np.zeros(1), present, count)] * len(grid)
    else:
        path = family.fit_path((features - mean) / scale, codes, count, grid, seed)
    if not all(np.isfinite(weight).all() and np.isfinite(bias).all() for weight, bias in path):
        raise HeadError(f"expected finite weights of the {family.name} head, found NaN or infinity at C {list(grid)}")
    return path, mean, scale


def _cross_validate(
    features: Features,
    codes: Codes,
    count: int,
    family: Family,
    grid: Sequence[float],
    parts: list[tuple[NDArray[np.intp], NDArray[np.intp]]],
    seed: int,
) -> list[_Outcome]:
    """Return for each fold its test rows, their scores ``(g, n_test, k)`` and the sizes ``(g,)`` of the weights."""

    def one(train: NDArray[np.intp], test: NDArray[np.intp]) -> _Outcome:
        path, mean, scale = _fit(features[train], codes[train], count, family, grid, seed)
        standard = (features[test] - mean) / scale
        scores = np.array([standard @ weight.T + bias for weight, bias in path], np.float64)
        return test, scores, np.array([_size(weight) for weight, _ in path])

    # The solvers leave Python for most of their time; a thread each, and each on one core.
    with threadpool_limits(1):
        found: list[_Outcome] = Parallel(n_jobs=-1 if family.threads else 1, prefer="threads")(
            delayed(one)(train, test) for train, test in parts
        )
    return found

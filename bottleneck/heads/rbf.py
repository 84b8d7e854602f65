"""Support vector machines with a Gaussian kernel, trained by scikit-learn's ``SVC`` on precomputed distances."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.family import MASKED, Family, Fitted, Params, Validation
from bottleneck.heads.features import Features, InMemoryFeatures
from bottleneck.heads.kernel import KernelHead, pairwise_scores, squared_distances
from bottleneck.heads.problem import Problem
from bottleneck.heads.threads import ordered_map
from bottleneck.utils.process_settings import ignored_warnings

_C = (0.1, 1.0, 10.0, 100.0)
_FINER_C = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
_GAMMA = (1.0,)  # times 1 / (d * variance), scikit-learn's "scale"
_FINER_GAMMA = (0.1, 0.3, 1.0, 3.0)
_TOLERANCE = 1e-5  # with scikit-learn's 1e-3, rounding of distances changes scores by as much
_MOST_ROWS = 30_000
_COPIES = 5  # peak number of distance matrices, with two SVMs in training


class RbfFamily(Family):
    """SVMs with a Gaussian kernel; the search selects C and gamma.

    The distances are computed once for all C, gamma and folds, from features scaled by all rows.
    """

    name = "svm"
    title = "svm with kernel rbf"
    streams = False

    def working_bytes(self, rows: int) -> int:
        """Return the bytes of the distances, and of the kernels during training."""
        return _COPIES * 8 * rows**2

    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the points of C and gamma, smoothest first."""
        features = _rows_in_memory(problem)
        variance = float(features.var(dtype=np.float64))
        unit = 1 / (features.shape[1] * (variance or 1.0))
        gammas = _FINER_GAMMA if full else _GAMMA
        return tuple({"C": C, "gamma": gamma * unit} for gamma in gammas for C in (_FINER_C if full else _C))

    def cross_validate(self, problem: Problem, points: Sequence[Params]) -> "RbfValidation":
        """Train on each fold at each point, in parallel."""
        squares = _squares(problem)
        known = [np.flatnonzero(rows) for rows in problem.folds.trained.T]
        tested = [np.flatnonzero(problem.folds.tested == fold) for fold in range(len(known))]
        shapes = [(len(points), len(rows), problem.count) for rows in tested]
        scores: list[NDArray[np.float32]] = [np.empty(shape, np.float32) for shape in shapes]

        def fit_one(fold: int, kernel: NDArray[np.float64], other: NDArray[np.float64], number: int) -> None:
            svc = _train(problem, kernel, known[fold], fold, points[number]["C"])
            scores[fold][number] = _scores_of_all_classes(problem, fold, svc(other))

        for fold, rows in enumerate(known):
            apart, across = squares[np.ix_(rows, rows)], squares[np.ix_(tested[fold], rows)]
            for gamma in sorted({point["gamma"] for point in points}):
                kernel, other = np.exp(-gamma * apart), np.exp(-gamma * across)
                numbers = [number for number, point in enumerate(points) if point["gamma"] == gamma]
                list(ordered_map(partial(fit_one, fold, kernel, other), numbers, cpu_count()))
        return RbfValidation(len(points), tested, scores)

    def fit(self, problem: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Train on all rows."""
        whole = problem.on_all_rows()
        rows = np.arange(len(problem.codes))
        svc = _train(whole, np.exp(-point["gamma"] * _squares(problem)), rows, 0, point["C"])
        parts = {
            "vectors": _rows_in_memory(problem)[svc.support],
            "dual": svc.dual,
            "intercept": svc.intercept,
            "sizes": svc.sizes,
            "gamma": point["gamma"],
        }
        return Fitted(form=KernelHead, parts=parts)


@dataclass(frozen=True)
class RbfValidation:
    """The scores of the tested rows of each fold ``(g, b, k)``, see `bottleneck.heads.family.Validation`."""

    points: int
    tested: list[NDArray[np.intp]]
    scores: list[NDArray[np.float32]]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the scores."""
        yield from zip(self.tested, self.scores, strict=True)


@dataclass(frozen=True)
class _TrainedSVC:
    """The parameters of a trained SVC."""

    support: NDArray[np.intp]
    dual: NDArray[np.float64]
    intercept: NDArray[np.float64]
    sizes: NDArray[np.int64]

    def __call__(self, kernel: NDArray[np.float64]) -> NDArray[np.float64]:
        return pairwise_scores(kernel[:, self.support], self.dual, self.intercept, self.sizes)


def _train(problem: Problem, kernel: NDArray[np.float64], rows: NDArray[np.intp], fold: int, C: float) -> Any:
    """Return the SVC trained on the kernel ``(n, n)`` of the given rows."""
    codes = problem.codes[rows]
    if len(np.unique(codes)) == 1:  # `_scores_of_all_classes` masks the others
        empty = np.zeros(0)
        return _TrainedSVC(np.zeros(0, np.intp), np.zeros((0, 0)), empty, np.zeros(1, np.int64))
    from sklearn.svm import SVC

    weights = problem.weights[rows, fold] if problem.is_weighted else None
    # Without a state, which it does not use, it would draw from NumPy's generator, which belongs to the caller.
    svc = SVC(C=C, kernel="precomputed", tol=_TOLERANCE, cache_size=1, random_state=0)
    with ignored_warnings():
        found = svc.fit(kernel, codes, weights)
    # For two classes, scikit-learn flips the sign so that positive is the second class; here it is the first.
    sign = -1 if len(found.classes_) == 2 else 1
    coefficients, intercept = sign * found.dual_coef_, sign * found.intercept_
    return _TrainedSVC(found.support_, coefficients, intercept, found.n_support_.astype(np.int64))


def _scores_of_all_classes(problem: Problem, fold: int, scores: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return scores for all classes from those of the classes in the fold; the others are masked."""
    found = np.full((len(scores), problem.count), np.float32(MASKED))
    found[:, problem.present[fold]] = scores
    return found


def _squares(problem: Problem) -> NDArray[np.float64]:
    features = _rows_in_memory(problem)
    return squared_distances(features, features)


def _rows_in_memory(problem: Problem) -> Features:
    n, d = problem.scaled.shape
    if not isinstance(problem.scaled, InMemoryFeatures) or n > _MOST_ROWS:
        raise HeadError(
            f"the rbf kernel needs the distances between all rows, and {n:,} x {d:,} features are too many: use the "
            f"linear kernel, or softmax"
        )
    return problem.scaled.features

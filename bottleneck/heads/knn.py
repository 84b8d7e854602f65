"""Vote of the nearest neighbours, as scikit-learn's ``KNeighborsClassifier``: a non-parametric baseline."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family, Fitted, Params, Validation
from bottleneck.heads.features import Features, InMemoryFeatures
from bottleneck.heads.neighbours import NeighbourHead, nearest_rows, votes
from bottleneck.heads.objective import relative
from bottleneck.heads.problem import Problem

_CELLS = 4 << 20
_VALUES = (30.0, 20.0, 10.0, 5.0, 3.0, 1.0)  # simplest first
_FINER = (50.0, 30.0, 20.0, 15.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0)


class KnnFamily(Family):
    """Nearest-neighbour heads; the search selects the number of neighbours."""

    name = "knn"
    title = "knn"
    streams = False

    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the numbers of neighbours that are available in every fold."""
        least = int(problem.folds.trained.sum(axis=0).min())
        values = [value for value in (_FINER if full else _VALUES) if value <= least]
        return tuple({"neighbours": value} for value in values)

    def cross_validate(self, problem: Problem, points: Sequence[Params]) -> "KnnValidation":
        """Score the tested rows of each fold for all numbers of neighbours."""
        return KnnValidation(problem, tuple(int(point["neighbours"]) for point in points))

    def fit(self, problem: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Store all rows."""
        parts = {
            "rows": _rows_in_memory(problem),
            "codes": problem.codes.astype(np.int64),
            "neighbours": float(point["neighbours"]),
        }
        return Fitted(form=NeighbourHead, parts=parts)


@dataclass(frozen=True)
class KnnValidation:
    """Vote shares of the neighbours of tested rows, see `bottleneck.heads.family.Validation`."""

    problem: Problem
    numbers: tuple[int, ...]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the vote shares."""
        problem, most = self.problem, max(self.numbers)
        features = _rows_in_memory(problem)
        shifts, gains = relative(problem.scaling, problem.fold_scalings)
        for fold, (shift, gain) in enumerate(zip(shifts, gains, strict=True)):
            known = np.flatnonzero(problem.folds.trained[:, fold])
            tested = np.flatnonzero(problem.folds.tested == fold)
            rows = (features[known] - shift) * gain
            step = max(1, _CELLS // max(len(known), most * problem.count))
            for start in range(0, len(tested), step):
                some = tested[start : start + step]
                nearest = nearest_rows((features[some] - shift) * gain, rows, most)
                shares = votes(problem.codes[known[nearest]], self.numbers, problem.count)
                yield some, shares.astype(np.float32)


def _rows_in_memory(problem: Problem) -> Features:
    if not isinstance(problem.scaled, InMemoryFeatures):
        n, d = problem.scaled.shape
        raise HeadError(
            f"knn stores all rows, and {n:,} x {d:,} features do not fit into memory: use softmax or ridge, which "
            f"stream them"
        )
    return problem.scaled.features


make = KnnFamily

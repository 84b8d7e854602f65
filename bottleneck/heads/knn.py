"""The nearest neighbours' votes, as scikit-learn's ``KNeighborsClassifier``: a baseline that assumes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family, Fitted, Params, Validation
from bottleneck.heads.features import Features, InMemoryFeatures
from bottleneck.heads.neighbours import NeighbourHead, nearest_rows, votes
from bottleneck.heads.problem import Problem
from bottleneck.heads.sums import relative

_CELLS = 4 << 20
_VALUES = (30.0, 20.0, 10.0, 5.0, 3.0, 1.0)  # simplest first
_FINER = (50.0, 30.0, 20.0, 15.0, 10.0, 7.0, 5.0, 4.0, 3.0, 2.0, 1.0)


class KnnFamily(Family):
    """Heads of neighbours, whose number is searched."""

    name = "knn"
    title = "knn"
    streams = False

    def grid(self, task: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the numbers of neighbours that the smallest fold has."""
        least = int(task.folds.trained.sum(axis=0).min())
        values = [value for value in (_FINER if full else _VALUES) if value <= least]
        return tuple({"neighbours": value} for value in values)

    def cross_validate(self, task: Problem, points: Sequence[Params]) -> "KnnValidation":
        """Find the neighbours of the rows of each fold, the most of all points."""
        return KnnValidation(task, tuple(int(point["neighbours"]) for point in points))

    def fit(self, task: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Keep the rows."""
        parts = {"rows": _held(task), "codes": task.codes.astype(np.int64), "neighbours": float(point["neighbours"])}
        return Fitted(form=NeighbourHead, parts=parts)


@dataclass(frozen=True)
class KnnValidation:
    """The votes of the neighbours of tested rows, see `bottleneck.heads.family.Validation`."""

    task: Problem
    numbers: tuple[int, ...]

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield the shares of the votes."""
        task, most = self.task, max(self.numbers)
        features = _held(task)
        shifts, gains = relative(task.scaling, task.fold_scalings)
        for fold, (shift, gain) in enumerate(zip(shifts, gains, strict=True)):
            known = np.flatnonzero(task.folds.trained[:, fold])
            tested = np.flatnonzero(task.folds.tested == fold)
            rows = (features[known] - shift) * gain
            step = max(1, _CELLS // max(len(known), most * task.count))
            for start in range(0, len(tested), step):
                some = tested[start : start + step]
                nearest = nearest_rows((features[some] - shift) * gain, rows, most)
                shares = votes(task.codes[known[nearest]], self.numbers, task.count)
                yield some, shares.astype(np.float32)


def _held(task: Problem) -> Features:
    if not isinstance(task.scaled, InMemoryFeatures):
        n, d = task.scaled.shape
        raise HeadError(
            f"knn keeps all rows, and {n:,} x {d:,} features do not fit into memory: take softmax or ridge, which read "
            f"them again and again"
        )
    return task.scaled.features


make = KnnFamily

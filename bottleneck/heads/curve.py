"""A learning curve: accuracy against the number of training images, to say whether more of them would help."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import Family
from bottleneck.heads.folds import Codes, Folds, divide
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import unless_constant
from bottleneck.heads.search import Search, next_seed
from bottleneck.heads.table import Table
from bottleneck.heads.task import Task
from bottleneck.utils.text import one_line

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)  # of the training rows of each fold
_LEAST = 2  # images of a class


@dataclass(frozen=True)
class Point:
    """A size of the training part, and how well heads do that are trained on so many images.

    Parameters
    ----------
    n : int
        Training images of a fold, the mean over the folds.
    accuracies : tuple of float
        Of each fold.
    """

    n: int
    accuracies: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """Standard deviation over the folds."""
        return float(np.std(self.accuracies, ddof=1))


@dataclass(frozen=True)
class Curve:
    """Points by rising size, all tested on the same folds.

    Parameters
    ----------
    points : tuple of Point
    folds : int
        Of one division; the accuracies are those of one division or of several.
    """

    points: tuple[Point, ...]
    folds: int

    def __repr__(self) -> str:
        last = self.points[-1:]
        return one_line(self, *(f"accuracy {100 * one.accuracy:.1f} % with {one.n:,} training images" for one in last))

    @property
    def gain(self) -> float:
        """What the last step to more images brought."""
        return float(self._gains.mean())

    @property
    def gain_error(self) -> float:
        """Its standard error; folds of several divisions see the same images, and count as those of one."""
        return float(self._gains.std(ddof=1) / np.sqrt(self.folds))

    @property
    def doubling(self) -> float | None:
        """What twice as many images may bring; None where the last gain is not above its standard error.

        The error rate is taken to go on falling as a power of the number of images, as it did in the last step.
        """
        if len(self.points) < 2 or self.gain <= self.gain_error:
            return None
        before, last = self.points[-2:]
        steps = np.log2(last.n / before.n)
        return float((1 - last.accuracy) * (1 - ((1 - last.accuracy) / (1 - before.accuracy)) ** (1 / steps)))

    def advice(self) -> str:
        """Return whether more images would help, and what says so."""
        if len(self.points) < 2:
            return "too few training images for a learning curve"
        before, last = self.points[-2:]
        found = (
            f"from {before.n} to {last.n} training images accuracy changed by {100 * self.gain:+.1f} points "
            f"(standard error {100 * self.gain_error:.1f})"
        )
        if self.doubling is None:
            return f"{found}: more images of this kind would hardly help"
        return f"{found}: twice as many images would bring about {100 * self.doubling:.1f} points"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        points = [{"n": point.n, "accuracy": point.accuracy, "spread": point.spread} for point in self.points]
        steps = {"gain": self.gain, "gain_error": self.gain_error} if len(self.points) > 1 else {}
        return {"points": points, **steps, "doubling": self.doubling, "advice": self.advice()}

    @property
    def _gains(self) -> NDArray[np.float64]:
        before, last = self.points[-2:]
        return np.subtract(last.accuracies, before.accuracies)


def learning_curve(
    table: Table,
    labels: Sequence[str],
    groups: Sequence[str | None] | None,
    found: Search,
    family: Family,
    options: HeadOptions,
) -> Curve:
    """Cross-validate a head on growing parts of the training rows, on the folds and with the parameters of its search.

    The part of a fold is stratified, and each holds the smaller ones. Heads train on at least two images a class.

    Raises
    ------
    HeadError
        If no head comes of it.
    """
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    divisions = len(found.chosen) // found.divided
    task = Task(
        table=table,
        codes=codes,
        count=len(found.head.classes),
        folds=divide(codes, groups, options.folds, options.seed),
        normalize=found.normalize,
        balanced=options.class_weight == "balanced",
        seed=options.seed,
        arrays=Arrays(options.device),
    )
    family = unless_constant(family, task, warn=False)
    tasks = [task]
    for number in range(1, divisions):
        tasks.append(task.divided(divide(codes, groups, options.folds, next_seed(options.seed, number))))
    points: dict[int, Point] = {}
    for share in SHARES:
        thin = [one.divided(thinned(one.folds, codes, share, options.seed)) for one in tasks]
        least = min(int(one.folds.trained.sum(axis=0).min()) for one in thin)
        if least < found.params.get("neighbours", 0):
            continue  # there are not so many
        n = round(np.mean([one.folds.trained.sum(axis=0).mean() for one in thin]))
        points[n] = Point(n, tuple(value for one in thin for value in _accuracies(one, family, found)))
    if not points:
        raise HeadError("expected training images for a learning curve, found too few")
    return Curve(tuple(points.values()), found.divided)


def thinned(folds: Folds, codes: Codes, share: float, seed: int) -> Folds:
    """Return folds that train on a share of the rows of each class, at least two; a larger share holds a smaller."""
    order = np.random.default_rng(seed).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]  # by class, in each at random
    trained = np.zeros_like(folds.trained)
    for fold, known in enumerate(folds.trained.T):
        rows = order[known[order]]
        counts = np.bincount(codes[rows], minlength=codes.max() + 1)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = np.maximum(np.ceil(counts * share - 1e-9), _LEAST)
        trained[rows[place < most[codes[rows]]], fold] = True
    return replace(folds, trained=trained)


def _accuracies(task: Task, family: Family, found: Search) -> list[float]:
    """Return the accuracy of each fold."""
    tested = task.folds.tested
    right, folds = np.zeros(len(task.folds)), len(task.folds)
    for rows, scores in family.cross_validate(task, [found.params]).blocks():
        right += np.bincount(tested[rows], scores[0].argmax(axis=1) == task.codes[rows], folds)
    accuracies: list[float] = (right / np.bincount(tested[tested >= 0], minlength=folds)).tolist()
    return accuracies

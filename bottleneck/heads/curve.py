"""A learning curve: accuracy against the number of training images, to say whether more of them would help."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.family import Family
from bottleneck.heads.features import FeatureTable
from bottleneck.heads.folds import Codes, Folds, divide
from bottleneck.heads.forecast import Forecast, Interval, PowerLaw
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import unless_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import Search, next_seed
from bottleneck.utils.groups import group_codes
from bottleneck.utils.text import one_line

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)  # of the training rows of each fold
FORECAST = (2, 4)  # times the images of the last point
_LEAST = 2  # images of a class
_HARDLY = 0.005  # of accuracy: a gain that is surely smaller is not worth the labels


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
    law : PowerLaw
        Through all points.
    """

    points: tuple[Point, ...]
    folds: int
    law: PowerLaw

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
        """What twice as many images would bring, by the power law; None of a single point."""
        return self.law.doubling()[0] if len(self.points) > 1 else None

    @property
    def doubling_ci95(self) -> Interval | None:
        """The 95 % interval of `doubling`."""
        return self.law.doubling()[1] if len(self.points) > 1 else None

    @property
    def forecast(self) -> tuple[Forecast, ...]:
        """How accurate heads of twice and of four times the images of the last point would be; empty of one point."""
        return tuple(self.law.forecast(times * self.points[-1].n) for times in FORECAST if len(self.points) > 1)

    def advice(self) -> str:
        """Return whether more images would help, and what says so."""
        if self.doubling is None or self.doubling_ci95 is None:
            return "too few training images for a learning curve"
        before, last = self.points[-2:]
        low, high = self.doubling_ci95
        found = (
            f"from {before.n} to {last.n} training images accuracy changed by {100 * self.gain:+.1f} points "
            f"(standard error {100 * self.gain_error:.1f}); twice as many images would bring about "
            f"{_in_points(self.doubling)} points (95 % interval {_in_points(low)} to {_in_points(high)})"
        )
        return f"{found}: more images of this kind would hardly help" if high < _HARDLY else found

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        points = [{"n": point.n, "accuracy": point.accuracy, "spread": point.spread} for point in self.points]
        steps = {"gain": self.gain, "gain_error": self.gain_error} if len(self.points) > 1 else {}
        return {
            "points": points,
            **steps,
            "doubling": self.doubling,
            "doubling_ci95": list(self.doubling_ci95) if self.doubling_ci95 else None,
            "forecast": [one.to_json() for one in self.forecast],
            "advice": self.advice(),
        }

    @property
    def _gains(self) -> NDArray[np.float64]:
        before, last = self.points[-2:]
        return np.subtract(last.accuracies, before.accuracies)


@one_core_a_product()
def learning_curve(
    table: FeatureTable,
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
    task = Problem(
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
    curve: dict[int, tuple[Point, NDArray[np.float64]]] = {}
    for share in SHARES:
        thin = [
            one.divided(thinned(one.folds, codes, share, next_seed(options.seed, number)))
            for number, one in enumerate(tasks)
        ]
        least = min(int(one.folds.trained.sum(axis=0).min()) for one in thin)
        if least >= found.params.get("neighbours", 0):
            point, wrong = _point(thin, family, found)
            curve[point.n] = point, wrong
    if not curve:
        raise HeadError("expected training images for a learning curve, found too few")
    tested = task.folds.tested >= 0  # the same rows in each division
    units = np.unique(group_codes(groups, len(codes))[tested], return_inverse=True)[1]
    law = PowerLaw.fit(list(curve), np.stack([wrong[tested] for _, wrong in curve.values()]), units)
    return Curve(tuple(point for point, _ in curve.values()), found.divided, law)


def thinned(folds: Folds, codes: Codes, share: float, seed: int) -> Folds:
    """Return folds that train on a share of the rows of each class, at least two; a larger share holds a smaller.

    Each fold has a draw of its own, so that the mean over the folds depends less on one.
    """
    trained = np.zeros_like(folds.trained)
    for fold, known in enumerate(folds.trained.T):
        order = np.random.default_rng([seed, fold]).permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]  # by class, in each at random
        rows = order[known[order]]
        counts = np.bincount(codes[rows], minlength=codes.max() + 1)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = np.maximum(np.ceil(counts * share - 1e-9), _LEAST)
        trained[rows[place < most[codes[rows]]], fold] = True
    return replace(folds, trained=trained)


def _point(tasks: Sequence[Problem], family: Family, found: Search) -> tuple[Point, NDArray[np.float64]]:
    """Return a point, by some divisions into folds, and in what part of them each row is wrong."""
    n = round(np.mean([one.folds.trained.sum(axis=0).mean() for one in tasks]))
    accuracies: list[float] = []
    wrong = np.zeros(len(tasks[0].codes))
    for task in tasks:
        right = _right(task, family, found)
        wrong += ~right / len(tasks)
        accuracies += [float(right[task.folds.tested == fold].mean()) for fold in range(len(task.folds))]
    return Point(n, tuple(accuracies)), wrong


def _right(task: Problem, family: Family, found: Search) -> NDArray[np.bool_]:
    """Return whether the head of its fold has each tested row right."""
    right = np.zeros(len(task.codes), np.bool_)
    for rows, scores in family.cross_validate(task, [found.params]).blocks():
        right[rows] = scores[0].argmax(axis=1) == task.codes[rows]
    return right


def _in_points(accuracy: float) -> str:
    """Return a gain in points, without the sign of what rounds to 0."""
    return f"{round(100 * accuracy, 1) + 0.0:.1f}"

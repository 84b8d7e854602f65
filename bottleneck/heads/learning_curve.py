"""Learning curve: accuracy by the number of training images, which shows whether more images would help."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.family import Family
from bottleneck.heads.features import FeatureTable
from bottleneck.heads.folds import Codes, Folds, divide
from bottleneck.heads.forecast import Forecast, Interval, PowerLaw
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import prior_if_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import Search, next_seed
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.utils.groups import group_codes
from bottleneck.utils.text import one_line

SHARES = (0.1, 0.2, 0.4, 0.7, 1.0)  # of the training rows of each fold
FORECAST = (2, 4)  # multiples of the images of the last point
_MIN_PER_CLASS = 2  # images
_NEGLIGIBLE = 0.005  # of accuracy: a smaller gain is not worth the labels


@dataclass(frozen=True)
class Point:
    """Accuracy of heads trained on a number of images.

    Parameters
    ----------
    n : int
        Training images, the mean over the folds.
    accuracies : tuple of float
        Accuracy in each fold.
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
    """Points in increasing order of size, all tested on the same folds.

    Parameters
    ----------
    points : tuple of Point
    folds : int
        Number of folds of one division; the accuracies are those of one or several divisions.
    law : PowerLaw
        Fitted to all points.
    """

    points: tuple[Point, ...]
    folds: int
    law: PowerLaw

    def __repr__(self) -> str:
        last = self.points[-1:]
        return one_line(self, *(f"accuracy {100 * one.accuracy:.1f} % with {one.n:,} training images" for one in last))

    @property
    def gain(self) -> float:
        """Gain in accuracy from the last point but one to the last."""
        return float(self._gains.mean())

    @property
    def gain_error(self) -> float:
        """Standard error of `gain`; several divisions test the same images, so they count as one."""
        return float(self._gains.std(ddof=1) / np.sqrt(self.folds))

    @property
    def doubling(self) -> float | None:
        """Gain predicted for twice as many images; None for a single point."""
        return self.law.doubling()[0] if len(self.points) > 1 else None

    @property
    def doubling_ci95(self) -> Interval | None:
        """The 95 % interval of `doubling`."""
        return self.law.doubling()[1] if len(self.points) > 1 else None

    @property
    def forecast(self) -> tuple[Forecast, ...]:
        """Predicted accuracy with two and four times as many images; empty for a single point."""
        return tuple(self.law.forecast(times * self.points[-1].n) for times in FORECAST if len(self.points) > 1)

    def advice(self) -> str:
        """Return a sentence on whether more images would help, with the numbers behind it."""
        if self.doubling is None or self.doubling_ci95 is None:
            return "too few training images for a learning curve"
        before, last = self.points[-2:]
        low, high = self.doubling_ci95
        found = (
            f"from {before.n} to {last.n} training images accuracy changed by {100 * self.gain:+.1f} points "
            f"(standard error {100 * self.gain_error:.1f}); twice as many images would add about "
            f"{_in_points(self.doubling)} points (95 % interval {_in_points(low)} to {_in_points(high)})"
        )
        return f"{found}: more images of this kind would hardly help" if high < _NEGLIGIBLE else found

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


@single_threaded_blas()
def learning_curve(
    table: FeatureTable,
    labels: Sequence[str],
    groups: Sequence[str | None] | None,
    found: Search,
    family: Family,
    options: HeadOptions,
) -> Curve:
    """Cross-validate a head on growing subsets of the training rows, with the folds and parameters of its search.

    The subsets are stratified and nested, and have at least two images per class.

    Raises
    ------
    HeadError
        If there are too few training images, or a head cannot be fitted.
    """
    codes = np.unique(np.array(labels), return_inverse=True)[1]
    divisions = len(found.chosen) // found.divided
    problem = Problem(
        table=table,
        codes=codes,
        count=len(found.head.classes),
        folds=divide(codes, groups, options.folds, options.seed),
        normalize=found.normalize,
        balanced=options.class_weight == "balanced",
        seed=options.seed,
        arrays=Arrays(options.device),
    )
    family = prior_if_constant(family, problem, quiet=True)
    problems = [problem]
    for number in range(1, divisions):
        problems.append(problem.with_folds(divide(codes, groups, options.folds, next_seed(options.seed, number))))
    curve: dict[int, tuple[Point, NDArray[np.float64]]] = {}
    for share in SHARES:
        thin = [
            one.with_folds(subsampled(one.folds, codes, share, next_seed(options.seed, number)))
            for number, one in enumerate(problems)
        ]
        least = min(int(one.folds.trained.sum(axis=0).min()) for one in thin)
        if least >= found.params.get("neighbours", 0):
            point, wrong = _point(thin, family, found)
            curve[point.n] = point, wrong
    if not curve:
        raise HeadError("expected training images for a learning curve, found too few")
    tested = problem.folds.tested >= 0  # the same rows in each division
    units = np.unique(group_codes(groups, len(codes))[tested], return_inverse=True)[1]
    law = PowerLaw.fit(list(curve), np.stack([wrong[tested] for _, wrong in curve.values()]), units)
    return Curve(tuple(point for point, _ in curve.values()), found.divided, law)


def subsampled(folds: Folds, codes: Codes, share: float, seed: int) -> Folds:
    """Return folds that train on a share of the rows of each class, at least two; larger shares contain smaller ones.

    Each fold draws independently, so that the mean over the folds depends less on a single draw.
    """
    trained = np.zeros_like(folds.trained)
    for fold, known in enumerate(folds.trained.T):
        order = np.random.default_rng([seed, fold]).permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]  # by class, shuffled within each
        rows = order[known[order]]
        counts = np.bincount(codes[rows], minlength=codes.max() + 1)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        most = np.maximum(np.ceil(counts * share - 1e-9), _MIN_PER_CLASS)
        trained[rows[place < most[codes[rows]]], fold] = True
    return replace(folds, trained=trained)


def _point(problems: Sequence[Problem], family: Family, found: Search) -> tuple[Point, NDArray[np.float64]]:
    """Return a point and the fraction of the divisions in which each row is misclassified."""
    n = round(np.mean([one.folds.trained.sum(axis=0).mean() for one in problems]))
    accuracies: list[float] = []
    wrong = np.zeros(len(problems[0].codes))
    for problem in problems:
        right = _correct(problem, family, found)
        wrong += ~right / len(problems)
        accuracies += [float(right[problem.folds.tested == fold].mean()) for fold in range(len(problem.folds))]
    return Point(n, tuple(accuracies)), wrong


def _correct(problem: Problem, family: Family, found: Search) -> NDArray[np.bool_]:
    """Return whether the head of its fold classifies each tested row correctly."""
    right = np.zeros(len(problem.codes), np.bool_)
    for rows, scores in family.cross_validate(problem, [found.params]).blocks():
        right[rows] = scores[0].argmax(axis=1) == problem.codes[rows]
    return right


def _in_points(accuracy: float) -> str:
    """Return a gain in percentage points, without a sign if it rounds to 0."""
    return f"{round(100 * accuracy, 1) + 0.0:.1f}"

"""Select hyperparameters and scaling by cross-validation on the training split, then fit on all of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.calibrated_fit import calibrated
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Normalize, NormalizeOption
from bottleneck.heads.folds import Folds, divide, stratified
from bottleneck.heads.head import Head, softmax
from bottleneck.heads.linear_family import offset_of
from bottleneck.heads.out_of_fold import Division, OutOfFold, cross_calibrated, guesses, performance
from bottleneck.heads.prior import Prior, prior_if_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.selection import DEFAULT, Performance, select
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.utils.text import one_line

_FAST_ROWS = 20_000  # used by a fast search; more if there are too many classes to have each in every fold
_MIN_SORTED, _MAX_SORTED = 1_000_000, 64_000_000  # numbers of a table that is sorted by fold
SINGLE_THREAD_SIZE = 3_000_000  # numbers of a table; below it, more threads gain less than 20 %
_ROWS_IN_ALL, _MOST_REPEATS = 1000, 5  # few rows are divided into folds repeatedly, until this many rows are tested
_NEXT_DIVISION = 1_000_003  # difference between the seeds of consecutive divisions
_AUTO: tuple[Normalize, ...] = ("shrunk", "standard")  # a later one must be significantly better


@dataclass(frozen=True, kw_only=True)
class Search:
    """The result of a search.

    Parameters
    ----------
    head : Head
        Fitted on all training images with the best hyperparameters.
    normalize : str
        The selected scaling of the features; see `bottleneck.heads.features.scalings`.
    params : dict of str to float
        The best point.
    points : tuple of dict, length g
        The points evaluated with this scaling, simplest first.
    scalings : dict of str to float
        The best balanced accuracy with each scaling that was evaluated.
    fold_accuracy : ndarray of float64, shape (g, folds)
        Accuracy in each fold; with fewer than 1,000 rows, in the folds of up to five divisions.
    fold_balanced : ndarray of float64, shape (g, folds)
        Balanced accuracy: the mean recall of the classes.
    losses : ndarray of float64, shape (g,)
        Calibrated log-loss.
    divided : int
        F, the number of folds of one division.
    searched : int
        The number of rows used by the search.
    rows : ndarray of int, shape (m,)
        Tested rows, at most 10,000.
    probabilities : ndarray of float64, shape (m, k)
        Their out-of-fold probabilities, calibrated on the other folds.
    folds : ndarray of int, shape (m,)
        The fold that tests each.
    tested_rows : ndarray of int, shape (t,)
        All tested rows.
    guesses : ndarray of int, shape (divisions, t)
        Their out-of-fold predicted classes, in each division.
    facts : dict
        Further statistics of the points: the leave-one-out accuracy for ridge.
    """

    head: Head
    normalize: Normalize
    params: Params
    points: tuple[Params, ...]
    scalings: dict[str, float]
    fold_accuracy: NDArray[np.float64]
    fold_balanced: NDArray[np.float64]
    losses: NDArray[np.float64]
    divided: int
    searched: int
    rows: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    folds: NDArray[np.intp]
    tested_rows: NDArray[np.intp]
    guesses: NDArray[np.intp]
    facts: dict[str, Any]

    def __repr__(self) -> str:
        return one_line(self, repr(self.head), str(self.params), f"cross-validated {100 * self.accuracy:.1f} %")

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the folds at the best point.

        It is slightly optimistic, because it selected the point; use the held-out split for an unbiased estimate.
        """
        return float(self.chosen.mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean balanced accuracy over the folds at the best point."""
        return float(self.fold_balanced[self.points.index(self.params)].mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the folds at the best point."""
        return float(self.chosen.std(ddof=1)) if len(self.chosen) > 1 else 0.0

    @property
    def chosen(self) -> NDArray[np.float64]:
        """Accuracy in each fold at the best point."""
        row: NDArray[np.float64] = self.fold_accuracy[self.points.index(self.params)]
        return row


def search(
    features: Features | FeatureTable,
    labels: Sequence[str],
    family: Family,
    *,
    groups: Sequence[str | None] | None = None,
    grid: Sequence[float] | None = None,
    folds: int = 5,
    repeats: int | None = None,
    normalize: NormalizeOption = "auto",
    rule: str = DEFAULT,
    balanced: bool = False,
    full: bool = False,
    seed: int = 0,
    device: str = "cpu",
    fingerprint: str = "",
) -> Search:
    """Search the hyperparameters of a family, and fit the best head.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d), or FeatureTable
        One row for each image.
    labels : sequence of str, length n
    family : Family
    groups : sequence of str or None, length n
        Images of the same group are never split between the training and test part of a fold.
    grid : sequence of float, optional
        Values of C; by default those of the family.
    folds : int
        Maximum number of folds; fewer if no class has that many images.
    repeats : int, optional
        Number of divisions into folds; by default up to five for fewer than 1,000 images.
    normalize : str
        See `bottleneck.heads.features.scalings`; ``auto`` is ``shrunk``, unless ``standard`` is significantly better.
    rule : str
        How to select the best point, one of `bottleneck.heads.selection.RULES`.
    balanced : bool
        Whether all classes have the same total weight.
    full : bool
        Whether to search a finer grid on all rows; otherwise on at most about 20,000.
    seed : int
        Seed of the folds and of randomised training. The result is deterministic for a seed and an order of the rows,
        for any number of threads on the same CPU.
    device : str
        See `bottleneck.heads.arrays.Arrays`.
    fingerprint : str
        Fingerprint of the spec of the features.

    Raises
    ------
    HeadError
        If there are fewer than two classes, or no class has two images, or the fit fails.
    """
    classes, codes = np.unique(np.array(labels), return_inverse=True)
    if len(classes) < 2:
        raise HeadError(f"expected at least two classes to train on, found {classes.tolist()}")
    table = InMemoryFeatures(features) if isinstance(features, np.ndarray) else features
    n, d = table.shape
    first, *others = _AUTO if normalize == "auto" else (normalize,)
    seeds = [next_seed(seed, number) for number in range(repeats or n_divisions(n))]
    plan = _SearchPlan([divide(codes, groups, folds, one) for one in seeds], grid, full=full, grouped=any(groups or ()))
    with single_threaded_blas() as cores, linalg_errors_as_head_errors(family.name):
        whole = Problem(
            table=table,
            codes=codes,
            count=len(classes),
            folds=plan.divisions[0],
            normalize=first,
            balanced=balanced,
            seed=seed,
            arrays=Arrays(device, cores if n * d >= SINGLE_THREAD_SIZE else 1),
        )
        problem = _sorted_by_fold(whole if full else _subsampled(whole))
        best = _cross_validated(whole, problem, prior_if_constant(family, whole), plan)
        scalings: dict[str, float] = {first: best.found.best_balanced}
        for other in () if isinstance(best.family, Prior) else others:
            best.release_features()
            with suppress(HeadError, np.linalg.LinAlgError):  # features may be too large for other scalings
                trial = _cross_validated(
                    replace(whole, normalize=other), replace(problem, normalize=other), family, plan
                )
                scalings[other] = trial.found.best_balanced
                best = trial if trial.found.beats(best.found, len(problem.codes)) else best
        return _finished(best, scalings, plan, rule, classes=tuple(classes.tolist()), fingerprint=fingerprint)


@dataclass(frozen=True)
class _SearchPlan:
    """Configuration of a search.

    Parameters
    ----------
    divisions : list of Folds
        Divisions of all rows into folds; several if there are few rows, to reduce variance.
    grid : sequence of float, optional
    full : bool
    grouped : bool
        Whether any image belongs to a group.
    """

    divisions: list[Folds]
    grid: Sequence[float] | None
    full: bool
    grouped: bool


@dataclass(frozen=True)
class _ScalingTrial:
    """Cross-validated performance of all points with one scaling.

    Parameters
    ----------
    whole, problem : Problem
        All rows, and those used by the search.
    family : Family
    points : tuple of dict
    divisions : list of (Problem, Validation)
    found : Performance
    """

    whole: Problem
    problem: Problem
    family: Family
    points: tuple[Params, ...]
    divisions: list[Division]
    found: Performance

    def release_features(self) -> None:
        """Release the scaled features to make room for another scaling; they are computed again when needed."""
        for problem in (self.whole, *(problem for problem, _ in self.divisions)):
            problem.release_features()


def _cross_validated(whole: Problem, problem: Problem, family: Family, plan: _SearchPlan) -> _ScalingTrial:
    """Cross-validate the family at each point of its grid."""
    if not isinstance(family, Prior):
        problem.check_magnitudes()
    points = _points(family, problem, plan.grid, full=plan.full)
    problems = [problem, *(problem.with_folds(folds.of(problem.origin)) for folds in plan.divisions[1:])]
    divisions = list(zip(problems, family.cross_validate_all(problems, points), strict=True))
    return _ScalingTrial(whole, problem, family, points, divisions, performance(divisions, len(points)))


def _finished(
    chosen: _ScalingTrial,
    scalings: dict[str, float],
    plan: _SearchPlan,
    rule: str,
    *,
    classes: tuple[str, ...],
    fingerprint: str,
) -> Search:
    """Select a point, and fit on all rows."""
    problem, family, found = chosen.problem, chosen.family, chosen.found
    best = select(found, rule)
    fitted = family.fit(chosen.whole, chosen.points[best], chosen.divisions[0][1])
    head = fitted.head(family.name, classes, chosen.whole.scaling, fingerprint)
    scored = [OutOfFold.of(*division, slice(best, best + 1)) for division in chosen.divisions]
    rows, folds, tested = (
        scored[0].rows,
        problem.folds.tested[scored[0].rows],
        np.flatnonzero(problem.folds.tested >= 0),
    )
    probabilities = softmax(scored[0].scores[0])
    if not isinstance(family, Prior):
        factor, probabilities = cross_calibrated(problem, scored)
        known = scored[0].known
        offset = offset_of(chosen.divisions[0][1], best)
        head = calibrated(head, problem, rows[known], scored[0].scores[0][known], factor=factor, offset=offset)
    return Search(
        head=head,
        normalize=problem.normalize,
        params=chosen.points[best],
        points=chosen.points,
        scalings=scalings,
        fold_accuracy=found.accuracy,
        fold_balanced=found.balanced,
        losses=found.losses,
        divided=len(problem.folds),
        searched=len(problem.codes),
        rows=problem.origin[rows],
        probabilities=probabilities,
        folds=folds,
        tested_rows=problem.origin[tested],
        guesses=guesses(chosen.divisions, best)[:, tested],
        facts={} if plan.grouped else family.path_facts(problem, chosen.points),
    )


@contextmanager
def linalg_errors_as_head_errors(name: str) -> Iterator[None]:
    """Convert LinAlgError to HeadError."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise HeadError(
            f"the equations of {name} cannot be solved ({error}): use a smaller C, or normalize the features"
        ) from error


def next_seed(seed: int, division: int) -> int:
    """Return the seed of a division into folds."""
    return (seed + _NEXT_DIVISION * division) % 2**32


def n_divisions(rows: int, in_all: int = _ROWS_IN_ALL, most: int = _MOST_REPEATS) -> int:
    """Return the number of divisions into folds, until `in_all` rows are tested."""
    return int(np.clip(-(-in_all // rows), 1, most))


def _points(family: Family, problem: Problem, grid: Sequence[float] | None, *, full: bool) -> tuple[Params, ...]:
    points = family.grid(problem, full=full)
    if grid is None:
        return points
    chosen = sorted({float(C) for C in grid})
    if not chosen or not all(0 < C < np.inf for C in chosen):
        raise HeadError(f"expected values of C above 0, got {list(grid)}")
    if "C" not in points[0]:
        raise HeadError(f"the head {family.name} has no C: omit --C")
    others = dict.fromkeys(tuple((k, v) for k, v in point.items() if k != "C") for point in points)
    return tuple({"C": C, **dict(other)} for other in others for C in chosen)


def _subsampled(problem: Problem) -> Problem:
    """Return a stratified subsample of a large problem, with the same folds."""
    n = len(problem.codes)
    if n <= _FAST_ROWS:
        return problem
    rows = stratified(problem.codes, _FAST_ROWS, 2 * len(problem.folds), problem.seed)
    return replace(
        problem,
        table=InMemoryFeatures(problem.table.take(rows)),
        codes=problem.codes[rows],
        folds=problem.folds.of(rows),
        weight=n / len(rows),
        origin=rows,
    )


def _sorted_by_fold(problem: Problem) -> Problem:
    """Return the problem with its rows sorted by fold, so that passes skip whole blocks of tested rows.

    This copies the features, which pays off for large tables that still fit into memory twice.
    """
    if not isinstance(problem.table, InMemoryFeatures) or not _MIN_SORTED < problem.table.features.size <= _MAX_SORTED:
        return problem
    order = np.argsort(problem.folds.tested, kind="stable")
    folds = problem.folds.of(order)
    cuts = (np.flatnonzero(np.diff(folds.tested)) + 1).tolist()
    return replace(
        problem,
        table=InMemoryFeatures(problem.table.features[order], cuts),
        codes=problem.codes[order],
        folds=folds,
        origin=problem.origin[order],
    )

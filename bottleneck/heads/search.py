"""Choose a family's parameters and the scaling by cross-validation on the training part, then fit on all of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Normalize, NormalizeOption
from bottleneck.heads.folds import Folds, divide
from bottleneck.heads.head import Head, softmax
from bottleneck.heads.learning import calibrated
from bottleneck.heads.linear_family import offset_of
from bottleneck.heads.out_of_fold import Division, OutOfFold, cross_calibrated, guesses, performance
from bottleneck.heads.prior import Prior, unless_constant
from bottleneck.heads.problem import Problem
from bottleneck.heads.selecting import DEFAULT, Performance, select
from bottleneck.utils.text import one_line

_FAST_ROWS = 20_000  # that a fast search looks at; more where classes are very many, for each to be in each fold
_LITTLE, _MUCH = 1_000_000, 64_000_000  # numbers
FOR_ONE_CORE = 3_000_000  # numbers of features; more cores bring less than a fifth
_ROWS_IN_ALL, _MOST_REPEATS = 1000, 5  # that are tested, by dividing few rows into folds several times
_NEXT_DIVISION = 1_000_003  # from the seed of a division to the next one's
_AUTO: tuple[Normalize, ...] = ("shrunk", "standard")  # a later one is taken where it is better by more than chance


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Parameters
    ----------
    head : Head
        Fitted on all training images at the best point.
    normalize : str
        The scaling of the features; see `bottleneck.heads.features.scalings`.
    params : dict of str to float
        The best point.
    points : tuple of dict, length g
        Those that were tried with this scaling, simplest first.
    scalings : dict of str to float
        Those that were tried, with the best balanced accuracy of each.
    fold_accuracy : ndarray of float64, shape (g, folds)
        Of fewer than 1,000 rows the folds of several divisions, up to five.
    fold_balanced : ndarray of float64, shape (g, folds)
        Balanced accuracies: the mean recall of the classes.
    losses : ndarray of float64, shape (g,)
        Calibrated log-loss.
    divided : int
        F, the folds of one division.
    searched : int
        How many rows were searched on.
    rows : ndarray of int, shape (m,)
        Rows that were tested in a fold (at most 10,000 of them), and
    probabilities : ndarray of float64, shape (m, k)
        what the heads of the other folds, calibrated on the other folds, say of them.
    folds : ndarray of int, shape (m,)
        The fold of each.
    tested_rows : ndarray of int, shape (t,)
        All rows that were tested in a fold, and
    guesses : ndarray of int, shape (divisions, t)
        which class each got in each division from the heads of the other folds.
    facts : dict
        What else the family knows of the points: of ridge the accuracy by leaving one row out.
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
        """Mean accuracy over the folds at the chosen point.

        What was chosen by it looks a little better than it is; the held-out part says how good it is.
        """
        return float(self.chosen.mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean balanced accuracy over the folds at the chosen point."""
        return float(self.fold_balanced[self.points.index(self.params)].mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the accuracy over the folds at the chosen point."""
        return float(self.chosen.std(ddof=1)) if len(self.chosen) > 1 else 0.0

    @property
    def chosen(self) -> NDArray[np.float64]:
        """The accuracy in each fold at the chosen point."""
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
    normalize: NormalizeOption = "auto",
    rule: str = DEFAULT,
    balanced: bool = False,
    full: bool = False,
    seed: int = 0,
    device: str = "cpu",
    fingerprint: str = "",
) -> Search:
    """Fit a head.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d), or FeatureTable
        Each image once.
    labels : sequence of str, length n
    family : Family
    groups : sequence of str or None, length n
        Images of one group are never on both sides of a fold.
    grid : sequence of float, optional
        Values of C; by default the family's.
    folds : int
        At most; fewer where no class has that many images.
    normalize : str
        See `bottleneck.heads.features.scalings`; ``auto`` is ``shrunk``, unless ``standard`` is better by more than
        chance.
    rule : str
        Of `bottleneck.heads.selecting.RULES`: which point is chosen.
    balanced : bool
        Whether each class weighs as much, however many images it has.
    full : bool
        Whether a finer grid is searched, and on all rows; otherwise on about 20,000 at most.
    seed : int
        Of the folds and of the family's own randomness. Equal seeds give equal heads of equal rows in one order, on any
        number of cores of one CPU.
    device : str
        See `bottleneck.heads.arrays.Arrays`.
    fingerprint : str
        Of the features' spec.

    Raises
    ------
    HeadError
        If there are fewer than two classes, or no class has two images, or no head comes of it.
    """
    classes, codes = np.unique(np.array(labels), return_inverse=True)
    if len(classes) < 2:
        raise HeadError(f"expected at least two classes to train on, found {classes.tolist()}")
    table = InMemoryFeatures(features) if isinstance(features, np.ndarray) else features
    n, d = table.shape
    first, *others = _AUTO if normalize == "auto" else (normalize,)
    seeds = [next_seed(seed, number) for number in range(_repeats(n))]
    plan = _Plan([divide(codes, groups, folds, one) for one in seeds], grid, full=full, grouped=any(groups or ()))
    with one_core_a_product() as cores, as_sentence(family.name):
        whole = Problem(
            table=table,
            codes=codes,
            count=len(classes),
            folds=plan.divisions[0],
            normalize=first,
            balanced=balanced,
            seed=seed,
            arrays=Arrays(device, cores if n * d >= FOR_ONE_CORE else 1),
        )
        task = _by_fold(whole if full else _fewer(whole))
        best = _tried(whole, task, unless_constant(family, whole), plan)
        scalings: dict[str, float] = {first: best.found.best_balanced}
        for other in () if isinstance(best.family, Prior) else others:
            best.forget()
            with suppress(HeadError, np.linalg.LinAlgError):  # as of features that only the first can scale
                trial = _tried(replace(whole, normalize=other), replace(task, normalize=other), family, plan)
                scalings[other] = trial.found.best_balanced
                best = trial if trial.found.beats(best.found, len(task.codes)) else best
        return _searched(best, scalings, plan, rule, classes=tuple(classes.tolist()), fingerprint=fingerprint)


@dataclass(frozen=True)
class _Plan:
    """What is searched.

    Parameters
    ----------
    divisions : list of Folds
        Of all rows. Few are divided several times, so that luck has less to say.
    grid : sequence of float, optional
    full : bool
    grouped : bool
        Whether any image is of a group.
    """

    divisions: list[Folds]
    grid: Sequence[float] | None
    full: bool
    grouped: bool


@dataclass(frozen=True)
class _Trial:
    """One scaling: the points that were tried with it, and how well heads do at each.

    Parameters
    ----------
    whole, task : Problem
        Of all rows, and of those that were searched on.
    family : Family
    points : tuple of dict
    divisions : list of (Task, Validation)
    found : Performance
    """

    whole: Problem
    task: Problem
    family: Family
    points: tuple[Params, ...]
    divisions: list[Division]
    found: Performance

    def forget(self) -> None:
        """Give up the scaled features, which can be computed again: another scaling needs the room."""
        for task in (self.whole, *(task for task, _ in self.divisions)):
            task.forget()


def _tried(whole: Problem, task: Problem, family: Family, plan: _Plan) -> _Trial:
    """Cross-validate the family at each point with the scaling of two tasks: of all rows, and of those searched on."""
    if not isinstance(family, Prior):
        task.refuse_huge()
    points = _points(family, task, plan.grid, full=plan.full)
    tasks = [task, *(task.divided(folds.of(task.origin)) for folds in plan.divisions[1:])]
    divisions = [(one, family.cross_validate(one, points)) for one in tasks]
    return _Trial(whole, task, family, points, divisions, performance(divisions, len(points)))


def _searched(
    chosen: _Trial, scalings: dict[str, float], plan: _Plan, rule: str, *, classes: tuple[str, ...], fingerprint: str
) -> Search:
    """Choose a point, and fit on all rows."""
    task, family, found = chosen.task, chosen.family, chosen.found
    best = select(found, rule)
    fitted = family.fit(chosen.whole, chosen.points[best], chosen.divisions[0][1])
    head = fitted.head(family.name, classes, chosen.whole.scaling, fingerprint)
    scored = [OutOfFold.of(*division, slice(best, best + 1)) for division in chosen.divisions]
    rows, folds, tested = scored[0].rows, task.folds.tested[scored[0].rows], np.flatnonzero(task.folds.tested >= 0)
    probabilities = softmax(scored[0].scores[0])
    if not isinstance(family, Prior):
        factor, probabilities = cross_calibrated(task, scored)
        known = scored[0].known
        offset = offset_of(chosen.divisions[0][1], best)
        head = calibrated(head, task, rows[known], scored[0].scores[0][known], factor=factor, offset=offset)
    return Search(
        head=head,
        normalize=task.normalize,
        params=chosen.points[best],
        points=chosen.points,
        scalings=scalings,
        fold_accuracy=found.accuracy,
        fold_balanced=found.balanced,
        losses=found.losses,
        divided=len(task.folds),
        searched=len(task.codes),
        rows=task.origin[rows],
        probabilities=probabilities,
        folds=folds,
        tested_rows=task.origin[tested],
        guesses=guesses(chosen.divisions, best)[:, tested],
        facts={} if plan.grouped else family.path_facts(task, chosen.points),
    )


@contextmanager
def as_sentence(name: str) -> Iterator[None]:
    """Say of equations that cannot be solved that they cannot."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise HeadError(
            f"the equations of {name} cannot be solved ({error}): take a smaller C, or normalize the features"
        ) from error


def next_seed(seed: int, division: int) -> int:
    """Return the seed of another division into folds."""
    return (seed + _NEXT_DIVISION * division) % 2**32


def _repeats(rows: int) -> int:
    """Return how many divisions into folds are looked at."""
    return int(np.clip(-(-_ROWS_IN_ALL // rows), 1, _MOST_REPEATS))


def _points(family: Family, task: Problem, grid: Sequence[float] | None, *, full: bool) -> tuple[Params, ...]:
    points = family.grid(task, full=full)
    if grid is None:
        return points
    chosen = sorted({float(C) for C in grid})
    if not chosen or not all(0 < C < np.inf for C in chosen):
        raise HeadError(f"expected values of C above 0, got {list(grid)}")
    if "C" not in points[0]:
        raise HeadError(f"the head {family.name} has no C: leave --C out")
    others = dict.fromkeys(tuple((k, v) for k, v in point.items() if k != "C") for point in points)
    return tuple({"C": C, **dict(other)} for other in others for C in chosen)


def _fewer(task: Problem) -> Problem:
    """Return the task on some rows of each class, if there are very many; their folds are those they had."""
    n = len(task.codes)
    if n <= _FAST_ROWS:
        return task
    order = np.random.default_rng(task.seed).permutation(n)
    order = order[np.argsort(task.codes[order], kind="stable")]
    place = np.empty(n, np.intp)  # of each row among those of its class
    counts = np.bincount(task.codes, minlength=task.count)
    place[order] = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    most = np.maximum(np.floor(counts * (_FAST_ROWS / n)), np.minimum(counts, 2 * len(task.folds)))
    rows = np.flatnonzero(place < most[task.codes])
    return replace(
        task,
        table=InMemoryFeatures(task.table.take(rows)),
        codes=task.codes[rows],
        folds=task.folds.of(rows),
        weight=n / len(rows),
        origin=rows,
    )


def _by_fold(task: Problem) -> Problem:
    """Return the task with its rows in the order of their folds, so that whole blocks of them leave the products.

    It takes a copy of the features, which is worth it where they are many, and still fit beside themselves.
    """
    if not isinstance(task.table, InMemoryFeatures) or not _LITTLE < task.table.features.size <= _MUCH:
        return task
    order = np.argsort(task.folds.tested, kind="stable")
    folds = task.folds.of(order)
    cuts = (np.flatnonzero(np.diff(folds.tested)) + 1).tolist()
    return replace(
        task,
        table=InMemoryFeatures(task.table.features[order], cuts),
        codes=task.codes[order],
        folds=folds,
        origin=task.origin[order],
    )

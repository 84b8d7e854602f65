"""Choose a family's parameters by cross-validation on the training part, then fit on all of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.family import Family, Params, Validation
from bottleneck.heads.folds import divide
from bottleneck.heads.head import Head, softmax
from bottleneck.heads.learning import calibrated
from bottleneck.heads.prior import Prior, known_blocks, unless_constant
from bottleneck.heads.table import Features, Held, Normalize, Table
from bottleneck.heads.task import Task
from bottleneck.utils.text import one_line

_FAST_ROWS = 20_000  # that a fast search looks at; more where classes are very many, for each to be in each fold
_SCORED_ROWS = 10_000  # whose scores are calibrated on
_LITTLE, _MUCH = 1_000_000, 64_000_000  # numbers
_FOR_ONE_CORE = 3_000_000  # numbers of features; more cores bring less than a fifth
_ROWS_IN_ALL, _MOST_REPEATS = 1000, 5  # that are tested, by dividing few rows into folds several times
_NEXT_DIVISION = 1_000_003  # from the seed of a division to the next one's


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search found.

    Parameters
    ----------
    head : Head
        Fitted on all training images at the best point.
    params : dict of str to float
        The best point.
    points : tuple of dict, length g
        Those that were tried, simplest first.
    fold_accuracy : ndarray of float64, shape (g, folds)
        Of fewer than 1,000 rows the folds of several divisions, up to five.
    fold_balanced : ndarray of float64, shape (g, folds)
        Balanced accuracies: the mean recall of the classes. By them the point is chosen.
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
    facts : dict
        What else the family knows of the points: of ridge the accuracy by leaving one row out.
    """

    head: Head
    params: Params
    points: tuple[Params, ...]
    fold_accuracy: NDArray[np.float64]
    fold_balanced: NDArray[np.float64]
    divided: int
    searched: int
    rows: NDArray[np.intp]
    probabilities: NDArray[np.float64]
    folds: NDArray[np.intp]
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
    features: Features | Table,
    labels: Sequence[str],
    family: Family,
    *,
    groups: Sequence[str | None] | None = None,
    grid: Sequence[float] | None = None,
    folds: int = 5,
    normalize: Normalize = "standard",
    balanced: bool = False,
    full: bool = False,
    seed: int = 0,
    device: str = "cpu",
    fingerprint: str = "",
) -> Search:
    """Fit a head.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d), or Table
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
        See `bottleneck.heads.table.scalings`.
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
    table = Held(features) if isinstance(features, np.ndarray) else features
    n, d = table.shape
    with one_core_a_product() as cores, _as_sentence(family.name):
        whole = Task(
            table=table,
            codes=codes,
            count=len(classes),
            folds=divide(codes, groups, folds, seed),
            normalize=normalize,
            balanced=balanced,
            seed=seed,
            arrays=Arrays(device, cores if n * d >= _FOR_ONE_CORE else 1),
        )
        return _search(
            whole, family, groups, grid, folds, full=full, classes=tuple(classes.tolist()), fingerprint=fingerprint
        )


def _search(
    whole: Task,
    family: Family,
    groups: Sequence[str | None] | None,
    grid: Sequence[float] | None,
    folds: int,
    *,
    full: bool,
    classes: tuple[str, ...],
    fingerprint: str,
) -> Search:
    """Search on the task that `search` was asked for."""
    codes, seed = whole.codes, whole.seed
    task = _by_fold(whole if full else _fewer(whole))
    family = unless_constant(family, whole)
    if not isinstance(family, Prior):
        task.refuse_huge()
    points = _points(family, task, grid, full=full)
    validation = family.cross_validate(task, points)
    divisions = [(task, validation)]
    for number in range(1, _repeats(len(codes))):  # few images: folds of another division, so that luck has less to say
        other = task.divided(divide(codes, groups, folds, next_seed(seed, number)).of(task.origin))
        divisions.append((other, family.cross_validate(other, points)))
    tables = [_accuracies(*division, len(points)) for division in divisions]
    accuracy, balanced_accuracy = (np.concatenate(kind, axis=1) for kind in zip(*tables, strict=True))
    best = one_standard_error(balanced_accuracy, repeats=len(tables))
    rows, scores = _scores(task, validation, best)
    fitted = family.fit(whole, points[best], validation)
    head = fitted.head(family.name, classes, whole.scaling, fingerprint)
    probabilities = softmax(scores)
    if not isinstance(family, Prior):
        factor, probabilities = _calibrate(task, rows, scores)
        ratio = float(validation.sizes[best]) / fitted.size if fitted.size else 0.0
        known = ~task.constant_folds[task.folds.tested[rows]]
        head = calibrated(head, task, rows[known], scores[known], factor=factor, ratio=ratio)
    return Search(
        head=head,
        params=points[best],
        points=points,
        fold_accuracy=accuracy,
        fold_balanced=balanced_accuracy,
        divided=len(task.folds),
        searched=len(task.codes),
        rows=task.origin[rows],
        probabilities=probabilities,
        folds=task.folds.tested[rows],
        facts=family.path_facts(task, points) if groups is None or not any(groups) else {},
    )


@contextmanager
def _as_sentence(name: str) -> Iterator[None]:
    """Say of equations that cannot be solved that they cannot."""
    try:
        yield
    except np.linalg.LinAlgError as error:
        raise HeadError(
            f"the equations of {name} cannot be solved ({error}): take a smaller C, or normalize the features"
        ) from error


def one_standard_error(fold_accuracy: NDArray[np.float64], *, repeats: int = 1) -> int:
    """Return the row of the simplest point that is within one standard error of the best.

    Accuracies of neighbouring C are often equal up to noise; of those that are, the most regularised generalises best.
    The rule is that of Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3. It is used on
    balanced accuracy (mean recall of the classes): by plain accuracy a head that always says the largest class would
    do.

    Parameters
    ----------
    fold_accuracy : ndarray of float64, shape (g, folds)
        Rows from the simplest point on.
    repeats : int
        How many divisions the folds are of. They see the same images again, so the error is that of one division.
    """
    mean, folds = fold_accuracy.mean(axis=1), fold_accuracy.shape[1]
    best = int(mean.argmax())
    error = fold_accuracy[best].std(ddof=1) / np.sqrt(folds / repeats) if folds > 1 else 0.0
    return int(np.flatnonzero(mean >= mean[best] - error - 1e-12)[0])


def next_seed(seed: int, division: int) -> int:
    """Return the seed of another division into folds."""
    return (seed + _NEXT_DIVISION * division) % 2**32


def _repeats(rows: int) -> int:
    """Return how many divisions into folds are looked at."""
    return int(np.clip(-(-_ROWS_IN_ALL // rows), 1, _MOST_REPEATS))


def _points(family: Family, task: Task, grid: Sequence[float] | None, *, full: bool) -> tuple[Params, ...]:
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


def _fewer(task: Task) -> Task:
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
        table=Held(task.table.take(rows)),
        codes=task.codes[rows],
        folds=task.folds.of(rows),
        weight=n / len(rows),
        origin=rows,
    )


def _by_fold(task: Task) -> Task:
    """Return the task with its rows in the order of their folds, so that whole blocks of them leave the products.

    It takes a copy of the features, which is worth it where they are many, and still fit beside themselves.
    """
    if not isinstance(task.table, Held) or not _LITTLE < task.table.features.size <= _MUCH:
        return task
    order = np.argsort(task.folds.tested, kind="stable")
    folds = task.folds.of(order)
    cuts = (np.flatnonzero(np.diff(folds.tested)) + 1).tolist()
    return replace(
        task,
        table=Held(task.table.features[order], cuts),
        codes=task.codes[order],
        folds=folds,
        origin=task.origin[order],
    )


def _accuracies(task: Task, validation: Validation, points: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the accuracy, and the mean recall of the classes that a fold tests, ``(g, F)``."""
    folds, count = len(task.folds), task.count
    right_of, rows_of = np.zeros((points, folds * count)), np.zeros(folds * count)
    for rows, scores in known_blocks(task, validation):
        cell = task.folds.tested[rows] * count + task.codes[rows]
        rows_of += np.bincount(cell, minlength=folds * count)
        right = scores.argmax(axis=2) == task.codes[rows]
        for point in range(points):
            right_of[point] += np.bincount(cell, right[point], folds * count)
    hits, tested = right_of.reshape(points, folds, count), rows_of.reshape(folds, count)
    recall = hits / np.maximum(tested, 1)
    return hits.sum(axis=2) / tested.sum(axis=1), recall.sum(axis=2) / (tested > 0).sum(axis=1)


def _scores(task: Task, validation: Validation, best: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return some tested rows and their scores ``(m, k)`` at the best point."""
    tested = np.flatnonzero(task.folds.tested >= 0)
    wanted = np.zeros(len(task.codes), bool)
    wanted[tested[:: -(-len(tested) // _SCORED_ROWS)]] = True
    found = [(rows[wanted[rows]], scores[best][wanted[rows]]) for rows, scores in known_blocks(task, validation)]
    rows = np.concatenate([rows for rows, _ in found])
    order = np.argsort(rows)
    return rows[order], np.concatenate([scores for _, scores in found]).astype(np.float64)[order]


def _calibrate(task: Task, rows: NDArray[np.intp], scores: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the factor of the scores, and the probabilities of each row by the factor of the other folds.

    Scores of constant folds are logarithms of probabilities already.
    """
    codes, fold = task.codes[rows], task.folds.tested[rows]
    weights = 1 / np.bincount(codes, minlength=task.count)[codes] if task.balanced else np.ones(len(codes))
    known = ~task.constant_folds[fold]
    probabilities = softmax(scores)
    for number in np.flatnonzero(~task.constant_folds):
        own, others = fold == number, known & (fold != number)
        others = others if others.any() else known
        factor = calibrate(scores[others], codes[others], weights=weights[others])
        probabilities[own] = softmax(factor * scores[own])
    return calibrate(scores[known], codes[known], weights=weights[known]), probabilities

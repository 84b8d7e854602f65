"""A head of one point: its probabilities are fitted on the folds, where there are any."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.family import Family, Fitted, Params
from bottleneck.heads.head import Head
from bottleneck.heads.task import Task
from bottleneck.utils.arguments import Arguments


def learn(task: Task, some: Family, point: Params, classes: Sequence[str]) -> tuple[Head, bool]:
    """Return the head of all rows, and whether it was calibrated on the folds of a task, which may test none."""
    is_calibrated = bool((task.folds.tested >= 0).any())
    fitted, factor = _calibrated(task, some, point) if is_calibrated else (some.fit(task, point), 1.0)
    head = fitted.form(
        family=some.name,
        classes=tuple(classes),
        mean=task.scaling.mean,
        scale=task.scaling.scale,
        unit=task.scaling.unit,
        sharpness=factor,
        **fitted.parts,
    )
    return head, is_calibrated


def _calibrated(task: Task, some: Family, point: Params) -> tuple[Fitted, float]:
    """Return the head of all rows, and the factor that heads of the folds ask for."""
    validation = some.cross_validate(task, [point])
    scores = np.zeros((len(task.codes), task.count))
    for rows, found in validation.blocks():
        scores[rows] = found[0]
    tested = task.folds.tested >= 0
    weights = task.whole().weights[tested, 0].astype(np.float64)
    factor = calibrate(scores[tested], task.codes[tested], weights=weights)
    fitted = some.fit(task, point, validation)
    # The head has seen more rows than those of the folds, see `bottleneck.heads.search.search`.
    of_folds = float(validation.sizes[0])
    ratio = of_folds / fitted.size if of_folds and fitted.size else 1.0
    return fitted, factor * ratio


def positive(name: str, value: Any) -> float:
    """Return a number above 0, as float.

    Raises
    ------
    HeadError
        If it is none.
    """
    return Arguments(HeadError).number(name, value, above=0)


def variance(features: NDArray[np.float32], weights: NDArray[np.float64] | None) -> float:
    """Return the variance of all numbers in features ``(n, d)`` whose rows count so often."""
    if weights is None:
        return float(features.var(dtype=np.float64))
    rows = features.astype(np.float64)
    middle = np.average(rows.mean(axis=1), weights=weights)
    return float(np.average(np.square(rows - middle).mean(axis=1), weights=weights))

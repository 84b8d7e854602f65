"""Multinomial logistic regression with an L2 penalty on the weights, as scikit-learn's ``LogisticRegression``."""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bottleneck.errors import BottleneckWarning
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.losses import LogisticLoss, SoftmaxLoss
from bottleneck.heads.problem import Problem
from bottleneck.heads.solver import Solution, solve
from bottleneck.heads.sums import Material, SolverProblems, relative

_SEARCH, _EXACT = 1e-3, 1e-6  # parts of the objective that may be too much


class LogisticFamily(LinearFamily):
    """Logistic heads; of two classes the log-odds ``w x + b`` are parted as ``(-w / 2, w / 2)``."""

    name = "logistic"

    def paths(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`."""
        folds, count = len(task.folds), task.count
        loss = LogisticLoss() if count == 2 else SoftmaxLoss(count)
        lacking = np.where(task.present, 0, -1e30).astype(np.float32)
        material = of_task(task, None if count == 2 else lacking)
        offset = None if task.by_rows else task.centre  # a bias without penalty makes up for it
        if offset is not None:
            material = replace(material, table=task.centred)
        problems = SolverProblems(fold=np.arange(folds), output=np.ones(folds, int))
        begin = None if start is None else start[0].copy()
        if begin is not None and offset is not None:
            begin[..., -1] += begin[..., :-1] @ offset
        if begin is not None and count == 2:
            begin = begin[:, 1:] - begin[:, :1]
        tolerance = _EXACT if exact else _SEARCH
        found = solve(task.arrays, material, loss, problems, Cs, tolerance=tolerance, start=begin)
        if exact:
            warn_unless_ended(self.name, found)
        theta = found.theta
        if offset is not None:
            theta[..., -1] -= theta[..., :-1] @ offset
        if count == 2:
            return np.concatenate([-theta / 2, theta / 2], axis=2)
        bias = theta[..., -1]  # of which only differences count: those of the classes that are there have the mean 0
        bias -= (bias * task.present).sum(axis=2, keepdims=True) / np.maximum(task.present.sum(axis=1), 1)[:, None]
        return theta


def of_task(task: Problem, barred: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None) -> Material:
    """Return what the solver works on; a fold of one class has nothing to learn."""
    shift, gain = relative(task.scaling, task.fold_scalings) if task.by_rows else (None, None)
    weights = task.weights * (task.present.sum(axis=1) > 1)
    return Material(table=task.scaled, codes=task.codes, weights=weights, shift=shift, gain=gain, barred=barred)


def warn_unless_ended(name: str, found: Solution) -> None:
    """Warn of a head that is kept, and is not the best there is."""
    if not found.ended.all():
        warnings.warn(
            f"{name} was not solved to the end: its penalty is too weak for these features. Take a smaller C, or "
            f"normalize the features",
            BottleneckWarning,
            stacklevel=2,
        )


make = LogisticFamily

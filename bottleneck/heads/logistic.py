"""Multinomial logistic regression with an L2 penalty on the weights, as scikit-learn's ``LogisticRegression``."""

import warnings
from collections.abc import Sequence

import numpy as np

from bottleneck.errors import BottleneckWarning
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.losses import Logistic, Softmax
from bottleneck.heads.solver import Material, Problems, Solution, relative, solve
from bottleneck.heads.task import Task

_SEARCH, _EXACT = 3e-5, 1e-7  # tolerances; the first leaves less than 1e-3 of the objective


class LogisticFamily(LinearFamily):
    """Logistic heads; of two classes the log-odds ``w x + b`` are parted as ``(-w / 2, w / 2)``."""

    name = "logistic"

    def paths(self, task: Task, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`."""
        folds, count = len(task.folds), task.count
        loss = Logistic() if count == 2 else Softmax(count)
        lacking = np.where(task.present, 0, -1e30).astype(np.float32)
        material = of_task(task, None if count == 2 else lacking)
        each = np.array([(C, fold, 1) for C in Cs for fold in range(folds)])
        problems = Problems(C=each[:, 0], fold=each[:, 1].astype(int), output=each[:, 2].astype(int))
        begin = None if start is None else start.reshape(len(problems), count, -1)
        if begin is not None and count == 2:
            begin = begin[:, 1:] - begin[:, :1]
        found = solve(task.arrays, material, loss, problems, tolerance=_EXACT if exact else _SEARCH, start=begin)
        if exact:
            warn_unless_ended(self.name, found)
        theta = found.theta
        if count == 2:
            theta = np.concatenate([-theta / 2, theta / 2], axis=1)
        return theta.reshape(len(Cs), folds, count, -1)


def of_task(task: Task, barred: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None) -> Material:
    """Return what the solver works on; a fold of one class has nothing to learn."""
    shift, gain = relative(task.scaling, task.fold_scalings) if task.normalize == "standard" else (None, None)
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

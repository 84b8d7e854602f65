"""Support vector machines: linear with squared hinge loss, one class against the rest, or with a Gaussian kernel."""

import math
from collections.abc import Sequence

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads import newton
from bottleneck.heads.family import Family
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.logistic import of_task, warn_unless_ended
from bottleneck.heads.losses import SquaredHinge
from bottleneck.heads.solver import Problems, solve
from bottleneck.heads.table import Held
from bottleneck.heads.task import Task

_SEARCH, _EXACT = 1e-5, 1e-7
_PASSES = 32  # after which few rows are left inside the margin, and `newton` is quicker
_EASY = 1e-3  # a C that is seldom hard

KERNELS = ("linear", "rbf")


class SvmFamily(LinearFamily):
    """Linear SVMs as scikit-learn's ``LinearSVC``, LIBLINEAR's primal problem: the bias is penalised as a weight is."""

    name = "svm"
    values = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def paths(self, task: Task, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; each class of each fold is a problem of its own."""
        folds, outputs = len(task.folds), [1] if task.count == 2 else list(range(task.count))
        few = isinstance(task.scaled, Held) and len(task.codes) <= newton.MOST_ROWS
        climb = _easier(min(Cs)) if few else []
        each = np.array([(C, fold, output) for C in [*climb, *Cs] for fold in range(folds) for output in outputs])
        problems = Problems(C=each[:, 0], fold=each[:, 1].astype(int), output=each[:, 2].astype(int))
        begin = None
        if start is not None:
            begin = np.repeat(start[:1, :, outputs], len(climb) + len(Cs), axis=0).reshape(len(problems), 1, -1)
        tolerance = _EXACT if exact else _SEARCH
        material, passes = of_task(task), {"most": _PASSES} if few else {}
        found = solve(task.arrays, material, SquaredHinge(), problems, tolerance=tolerance, start=begin, **passes)
        if few and not found.ended.all():
            newton.finish(material, problems, found, tolerance=tolerance)
        if exact:
            warn_unless_ended(self.name, found)
        theta = found.theta.reshape(len(climb) + len(Cs), folds, len(outputs), -1)[len(climb) :]
        return np.concatenate([-theta, theta], axis=2) if task.count == 2 else theta


def _easier(C: float) -> list[float]:
    """Return rising values below C, from which to climb to it: Newton's method needs to begin near."""
    steps = math.ceil(math.log10(C / _EASY) - 1e-9)
    return [C / 10**step for step in range(steps, 0, -1)]


def make(kernel: str = "linear") -> Family:
    """Return the family of SVMs with a kernel.

    Raises
    ------
    HeadError
        If there is no such kernel.
    """
    if kernel not in KERNELS:
        raise HeadError(f"expected a kernel of {', '.join(KERNELS)}, got {kernel!r}")
    if kernel == "linear":
        return SvmFamily()
    from bottleneck.heads.rbf import RbfFamily

    return RbfFamily()

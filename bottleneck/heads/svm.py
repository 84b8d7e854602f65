"""Support vector machines: linear with squared hinge loss, one class against the rest, or with a Gaussian kernel."""

from collections.abc import Sequence

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.logistic import of_task, warn_unless_ended
from bottleneck.heads.losses import SquaredHingeLoss
from bottleneck.heads.problem import Problem
from bottleneck.heads.solver import solve
from bottleneck.heads.sums import SolverProblems

_SEARCH, _EXACT = 1e-3, 1e-6  # parts of the objective that may be too much

KERNELS = ("linear", "rbf")


class SvmFamily(LinearFamily):
    """Linear SVMs as scikit-learn's ``LinearSVC``, LIBLINEAR's primal problem: the bias is penalised as a weight is.

    Where C is large, few rows lie inside the margin, by little more than float32 can tell: from C = 100 on the
    objective may be a few thousandths above the smallest.
    """

    name = "svm"
    values = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def paths(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; each class of each fold is a problem of its own."""
        folds, outputs = len(task.folds), [1] if task.count == 2 else list(range(task.count))
        problems = SolverProblems(fold=np.repeat(np.arange(folds), len(outputs)), output=np.tile(outputs, folds))
        begin = None if start is None else start[0][:, outputs].reshape(len(problems), 1, -1)
        tolerance = _EXACT if exact else _SEARCH
        found = solve(task.arrays, of_task(task), SquaredHingeLoss(), problems, Cs, tolerance=tolerance, start=begin)
        if exact:
            warn_unless_ended(self.name, found)
        theta = found.theta.reshape(len(Cs), folds, len(outputs), -1)
        return np.concatenate([-theta, theta], axis=2) if task.count == 2 else theta


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

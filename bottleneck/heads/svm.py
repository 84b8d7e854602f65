"""Support vector machines: one-vs-rest linear SVMs with squared hinge loss, or SVMs with a Gaussian kernel."""

from collections.abc import Sequence

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.logistic import training_data, warn_unless_converged
from bottleneck.heads.losses import SquaredHingeLoss
from bottleneck.heads.objective import SolverProblems
from bottleneck.heads.problem import Problem
from bottleneck.heads.solver import solve

_SEARCH, _EXACT = 1e-3, 1e-6  # relative tolerances of the objective

KERNELS = ("linear", "rbf")


class SvmFamily(LinearFamily):
    """Linear SVMs as scikit-learn's ``LinearSVC``, LIBLINEAR's primal problem: the bias is penalised like a weight.

    With large C, few rows are inside the margin, at distances close to the precision of float32: for C of 100 or more,
    the objective may exceed its minimum by a few thousandths.
    """

    name = "svm"
    joins = True
    values = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)

    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; each class of each fold is a separate problem."""
        folds, outputs = len(problem.folds), [1] if problem.count == 2 else list(range(problem.count))
        problems = SolverProblems(fold=np.repeat(np.arange(folds), len(outputs)), output=np.tile(outputs, folds))
        begin = None if start is None else start[0][:, outputs].reshape(len(problems), 1, -1)
        tolerance = _EXACT if exact else _SEARCH
        found = solve(
            problem.arrays, training_data(problem), SquaredHingeLoss(), problems, Cs, tolerance=tolerance, start=begin
        )
        if exact:
            warn_unless_converged(self.name, found)
        theta = found.theta.reshape(len(Cs), folds, len(outputs), -1)
        return np.concatenate([-theta, theta], axis=2) if problem.count == 2 else theta


def make(kernel: str = "linear") -> Family:
    """Return the family of SVMs with a kernel.

    Raises
    ------
    HeadError
        If the kernel is unknown.
    """
    if kernel not in KERNELS:
        raise HeadError(f"expected a kernel of {', '.join(KERNELS)}, got {kernel!r}")
    if kernel == "linear":
        return SvmFamily()
    from bottleneck.heads.rbf import RbfFamily

    return RbfFamily()

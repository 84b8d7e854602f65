"""Multinomial logistic regression with an L2 penalty on the weights, as scikit-learn's ``LogisticRegression``."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.losses import LogisticLoss, SoftmaxLoss
from bottleneck.heads.objective import SolverProblems, TrainingData, relative
from bottleneck.heads.problem import Problem
from bottleneck.heads.solver import Solution, solve
from bottleneck.utils.warn import warn

_SEARCH, _EXACT = 1e-3, 1e-6  # relative tolerances of the objective


class LogisticFamily(LinearFamily):
    """Logistic heads; for two classes the log odds ``w x + b`` are split into ``(-w / 2, w / 2)``."""

    name = "logistic"
    joins = True

    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`."""
        folds, count = len(problem.folds), problem.count
        loss = LogisticLoss() if count == 2 else SoftmaxLoss(count)
        mask = np.where(problem.present, 0, -1e30).astype(np.float32)
        data = training_data(problem, None if count == 2 else mask)
        offset = None if problem.scaled_by_rows else problem.centre  # the unpenalised bias compensates for it
        if offset is not None:
            data = replace(data, table=problem.centred)
        problems = SolverProblems(fold=np.arange(folds), output=np.ones(folds, int))
        begin = None if start is None else start[0].copy()
        if begin is not None and offset is not None:
            begin[..., -1] += begin[..., :-1] @ offset
        if begin is not None and count == 2:
            begin = begin[:, 1:] - begin[:, :1]
        tolerance = _EXACT if exact else _SEARCH
        found = solve(problem.arrays, data, loss, problems, Cs, tolerance=tolerance, start=begin)
        if exact:
            warn_unless_converged(self.name, found)
        theta = found.theta
        if offset is not None:
            theta[..., -1] -= theta[..., :-1] @ offset
        if count == 2:
            return np.concatenate([-theta / 2, theta / 2], axis=2)
        bias = theta[..., -1]  # defined up to a constant: centre it over the classes that are present
        bias -= (bias * problem.present).sum(axis=2, keepdims=True) / np.maximum(problem.present.sum(axis=1), 1)[
            :, None
        ]
        return theta


def training_data(
    problem: Problem, mask: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None = None
) -> TrainingData:
    """Return the data for the solver; a fold with a single class gets zero weights."""
    shift, gain = relative(problem.scaling, problem.fold_scalings) if problem.scaled_by_rows else (None, None)
    weights = problem.weights * (problem.present.sum(axis=1) > 1)
    return TrainingData(table=problem.scaled, codes=problem.codes, weights=weights, shift=shift, gain=gain, mask=mask)


def warn_unless_converged(name: str, found: Solution) -> None:
    """Warn if the solver did not converge for the final head."""
    if not found.ended.all():
        warn(
            f"{name} did not converge: its penalty is too weak for these features. Use a smaller C, or normalize the "
            f"features"
        )


make = LogisticFamily

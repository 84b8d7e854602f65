"""Nearest class mean, as scikit-learn's ``NearestCentroid``: a baseline."""

from collections.abc import Sequence

import numpy as np

from bottleneck.heads.family import Params
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.objective import relative
from bottleneck.heads.problem import Problem

_CELLS = 4 << 20


class CentroidFamily(LinearFamily):
    """Nearest-centroid heads with class means m; the score is ``m x - |m|^2 / 2``.

    That is ``-|x - m|^2 / 2`` without ``|x|^2 / 2``, which is the same for all classes.
    """

    name = "centroid"

    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return a single point: there are no hyperparameters."""
        return ({},)

    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: object = None) -> Theta:
        """Return weights, see `LinearFamily.paths`."""
        d, folds = problem.scaled.shape[1], len(problem.folds)
        sums, counts = np.zeros((folds, problem.count, d)), np.zeros((folds, problem.count, 1))
        sample_weight = problem.sample_weight[:, None].astype(np.float32)
        for rows, features in problem.scaled.blocks(max(64, _CELLS // d)):
            member = (problem.codes[rows][:, None] == np.arange(problem.count)) * sample_weight[rows]
            for fold in range(folds):
                own = member * problem.folds.trained[rows, fold][:, None]
                sums[fold] += own.T @ features
                counts[fold] += own.sum(axis=0)[:, None]
        means = sums / np.where(counts, counts, 1)
        if problem.scaled_by_rows:
            shift, gain = relative(problem.scaling, problem.fold_scalings)
            means = (means - shift[:, None]) * gain[:, None]
        bias = -np.square(means).sum(axis=2, keepdims=True) / 2
        return np.repeat(np.concatenate([means, bias], axis=2)[None].astype(np.float32), len(Cs), axis=0)


make = CentroidFamily

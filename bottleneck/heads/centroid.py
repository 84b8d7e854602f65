"""The nearest class mean, as scikit-learn's ``NearestCentroid``: the simplest head there is, a baseline."""

from collections.abc import Sequence

import numpy as np

from bottleneck.heads.family import Params
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.problem import Problem
from bottleneck.heads.sums import relative

_CELLS = 4 << 20


class CentroidFamily(LinearFamily):
    """Heads of class means m: ``-|x - m|^2 / 2`` without its part that all classes have is ``m x - |m|^2 / 2``."""

    name = "centroid"

    def grid(self, task: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return one point: there is nothing to choose."""
        return ({},)

    def paths(self, task: Problem, Cs: Sequence[float], *, exact: bool, start: object = None) -> Theta:
        """Return weights, see `LinearFamily.paths`."""
        d, folds = task.scaled.shape[1], len(task.folds)
        sums, counts = np.zeros((folds, task.count, d)), np.zeros((folds, task.count, 1))
        often = task.often[:, None].astype(np.float32)
        for rows, features in task.scaled.blocks(max(64, _CELLS // d)):
            member = (task.codes[rows][:, None] == np.arange(task.count)) * often[rows]
            for fold in range(folds):
                own = member * task.folds.trained[rows, fold][:, None]
                sums[fold] += own.T @ features
                counts[fold] += own.sum(axis=0)[:, None]
        means = sums / np.where(counts, counts, 1)
        if task.by_rows:
            shift, gain = relative(task.scaling, task.fold_scalings)
            means = (means - shift[:, None]) * gain[:, None]
        bias = -np.square(means).sum(axis=2, keepdims=True) / 2
        return np.repeat(np.concatenate([means, bias], axis=2)[None].astype(np.float32), len(Cs), axis=0)


make = CentroidFamily

"""Losses of many problems and their derivatives, summed over the rows in one pass over the features.

A problem is ``|W|^2 / 2 + C * sum of w_i * loss(x_i, y_i)``. The cost is dominated by the products of the features with
the weights and with the errors. For all problems at once these are two large matrix products, which run at full speed,
and the features are read only once. Products are float32, sums over rows float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Scaling
from bottleneck.heads.losses import Loss, Losses
from bottleneck.heads.threads import ordered_map

_CELLS, _NUMBERS = 1 << 20, 8 << 20  # scores, and numbers of features, of a block
_FEWEST_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class SolverProblems:
    """The problems to solve at each C.

    Parameters
    ----------
    fold : ndarray of int, shape (p,)
        A column of `weights` and a row of the scalings.
    output : ndarray of int, shape (p,)
        For a loss of a single score, the positive class.
    """

    fold: NDArray[np.intp]
    output: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.fold)

    def __getitem__(self, rows: "NDArray[np.intp] | slice") -> "SolverProblems":
        return SolverProblems(fold=self.fold[rows], output=self.output[rows])


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The data shared by all problems.

    Parameters
    ----------
    table : FeatureTable
        Features, with the scaling of all rows.
    codes : ndarray of int, shape (n,)
        The class of each row.
    weights : ndarray of float32, shape (n, F)
        Weight of each row in each fold; 0 in the fold that tests it.
    shift, gain : ndarray of float32, shape (F, d), or None
        Additional scaling of the scaled features in each fold: ``(x - shift) * gain``.
    mask : ndarray of float32, shape (F, outputs), or None
        Added to the scores; very negative for classes that are absent from a fold.
    """

    table: FeatureTable
    codes: NDArray[np.intp]
    weights: NDArray[np.float32]
    shift: NDArray[np.float32] | None = None
    gain: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None


def signs(codes: NDArray[np.intp], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1 if a row ``(n,)`` belongs to a class ``(p,)``, else -1, ``(n, p)``."""
    found: NDArray[np.float32] = np.where(codes[:, None] == classes, np.float32(1), np.float32(-1))
    return found


def relative(whole: Scaling, folds: list[Scaling]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `shift` and `gain` of `TrainingData`: the scalings of folds relative to that of all rows.

    A feature that is constant in a fold keeps the scale of all rows.
    """
    shift = np.array([(one.mean - whole.mean) / whole.scale for one in folds], np.float32)
    gain = np.array([np.where(one.constant, 1, whole.scale / one.scale) for one in folds], np.float32)
    return shift, gain


@dataclass(frozen=True, kw_only=True)
class Sums:
    """The result of a pass: sums over the rows for each problem.

    Parameters
    ----------
    loss : float64, shape (p,)
    slope : float32, shape (p, outputs, d + 1)
        Derivative of the loss with respect to the weights, the bias last.
    curvature : float32, shape (p, outputs)
        Second derivative with respect to each score.
    """

    loss: Array
    slope: Array
    curvature: Array

    def of(self, rows: Array) -> "Sums":
        """Return the sums of some problems."""
        return Sums(**{name: value[rows] for name, value in vars(self).items()})

    def put(self, rows: Array, other: "Sums") -> None:
        """Replace the sums of some problems."""
        for name, value in vars(other).items():
            getattr(self, name)[rows] = value


class Pass:
    """A pass over the features, for some problems.

    Parameters
    ----------
    arrays : Arrays
    data : TrainingData
    loss : Loss
    problems : SolverProblems
    """

    def __init__(self, arrays: Arrays, data: TrainingData, loss: Loss, problems: SolverProblems) -> None:
        self.arrays, self.data, self.loss, self.problems = arrays, data, loss, problems
        put, fold = arrays.put, problems.fold
        self._shift = None if data.shift is None else put(data.shift[fold])[:, None]
        self._gain = None if data.gain is None else put(data.gain[fold])[:, None]
        self._mask = None if data.mask is None else put(data.mask[fold])

    def of(self, rows: NDArray[np.intp]) -> "Pass":
        """Return a pass for some problems."""
        return Pass(self.arrays, self.data, self.loss, self.problems[rows])

    def __call__(self, theta: Array) -> Sums:
        """Return the sums at `theta`, float32 ``(p, outputs, d + 1)``."""
        d = theta.shape[2] - 1
        weight, bias = theta[..., :d], theta[..., d]
        if self._gain is not None:
            weight = weight * self._gain
            bias = bias - (weight * self._shift).sum(axis=2)
        if self._mask is not None:
            bias = bias + self._mask
        loss, exact, curvature = self._sums(weight, bias)
        slope = self.arrays.single(exact)
        if self._gain is not None:
            slope[..., :d] -= slope[..., d:] * self._shift
            slope[..., :d] *= self._gain
        return Sums(loss=loss, slope=slope, curvature=curvature)

    def _sums(self, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
        """Return loss, slope (float64) and curvature for the features of the table."""
        arrays, (p, outputs, d) = self.arrays, weight.shape
        loss, slope = arrays.zeros(p, exact=True), arrays.zeros(p, outputs, d + 1, exact=True)
        curvature = arrays.zeros(p, outputs)
        table = self.data.table
        cores = arrays.cores if isinstance(table, InMemoryFeatures) else 1  # a streamed block is valid until the next
        blocks = table.blocks(self._block(p * outputs, d))
        for found in ordered_map(lambda block: self._of_block(weight, bias, *block), blocks, cores):
            if found is None:
                continue
            some, losses, products = found
            loss[some] += losses.total
            slope[some, :, :d] += products
            slope[some, :, d] += losses.slope.sum(axis=0)
            curvature[some] += losses.curvature
        return loss, slope, curvature

    def _of_block(
        self, weight: Array, bias: Array, rows: "slice | NDArray[np.intp]", features: Features
    ) -> tuple[Any, Losses, Array] | None:
        """Return the problems that train on some rows, their losses, and the slope times the features."""
        arrays, (p, outputs, d) = self.arrays, weight.shape
        block, weights = arrays.put(features), self.data.weights[rows][:, self.problems.fold]
        own = np.flatnonzero(weights.any(axis=0))  # the others test these rows
        if not len(own):
            return None
        some = slice(None) if len(own) == p else arrays.put(own)
        scores = (block @ weight[some].reshape(-1, d).T).reshape(len(features), len(own), outputs)
        scores += bias[some]
        target, weights = self._target(rows, own), arrays.put(np.ascontiguousarray(weights[:, own]))
        losses = self.loss(arrays, scores, target, weights)
        products = (losses.slope.reshape(len(features), -1).T @ block).reshape(len(own), outputs, d)
        return some, losses, products

    def _block(self, columns: int, d: int) -> int:
        return max(_FEWEST_ROWS, min(_CELLS // columns, _NUMBERS // d))

    def _target(self, rows: "slice | NDArray[np.intp]", own: NDArray[np.intp]) -> Array:
        codes = self.data.codes[rows]
        return self.arrays.put(codes if self.loss.outputs > 1 else signs(codes, self.problems.output[own]))

"""What is summed over the rows: the losses of many problems and their derivatives, by one pass over the features.

A problem is ``|W|^2 / 2 + C * sum of w_i * loss(x_i, y_i)``. What costs time is the products of the features with the
weights and with the errors; of all problems at once they are two products of large matrices, which a processor does at
its full speed, and the features are read once for all of them. Products are float32, sums over rows float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.cores import in_order
from bottleneck.heads.features import Features, FeatureTable, InMemoryFeatures, Scaling
from bottleneck.heads.losses import Loss, Losses

_CELLS, _NUMBERS = 1 << 20, 8 << 20  # scores, and features, of a block
_FEWEST_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class SolverProblems:
    """What is solved at each C.

    Parameters
    ----------
    fold : ndarray of int, shape (p,)
        A column of `weights` and a row of the scalings.
    output : ndarray of int, shape (p,)
        Where the loss has one score, the class that is told from all others.
    """

    fold: NDArray[np.intp]
    output: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.fold)

    def __getitem__(self, rows: "NDArray[np.intp] | slice") -> "SolverProblems":
        return SolverProblems(fold=self.fold[rows], output=self.output[rows])


@dataclass(frozen=True, kw_only=True)
class Material:
    """What all problems share.

    Parameters
    ----------
    table : FeatureTable
        Features, scaled by all rows.
    codes : ndarray of int, shape (n,)
        The class of each row.
    weights : ndarray of float32, shape (n, F)
        Of each row in each fold; 0 in that in which it is tested.
    shift, gain : ndarray of float32, shape (F, d), or None
        A fold's own scaling of the scaled features: ``(x - shift) * gain``.
    barred : ndarray of float32, shape (F, outputs), or None
        Added to the scores; very negative for classes that a fold has not.
    """

    table: FeatureTable
    codes: NDArray[np.intp]
    weights: NDArray[np.float32]
    shift: NDArray[np.float32] | None = None
    gain: NDArray[np.float32] | None = None
    barred: NDArray[np.float32] | None = None


def signs(codes: NDArray[np.intp], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1 where a row ``(n,)`` is of a class ``(p,)``, else -1, ``(n, p)``."""
    found: NDArray[np.float32] = np.where(codes[:, None] == classes, np.float32(1), np.float32(-1))
    return found


def relative(whole: Scaling, folds: list[Scaling]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `shift` and `gain` of `Material`: the scalings of folds, of features that are scaled by all rows.

    What is constant in a fold has no scale there, and keeps that of all rows.
    """
    shift = np.array([(one.mean - whole.mean) / whole.scale for one in folds], np.float32)
    gain = np.array([np.where(one.constant, 1, whole.scale / one.scale) for one in folds], np.float32)
    return shift, gain


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What a pass finds at some weights: sums over the rows, of each problem.

    Parameters
    ----------
    loss : float64, shape (p,)
    slope : float32, shape (p, outputs, d + 1)
        The derivative of the loss by the weights, the bias last.
    curvature : float32, shape (p, outputs)
        Its second derivative by each score.
    """

    loss: Array
    slope: Array
    curvature: Array

    def of(self, rows: Array) -> "Sums":
        """Return those of some of the problems."""
        return Sums(**{name: value[rows] for name, value in vars(self).items()})

    def put(self, rows: Array, other: "Sums") -> None:
        """Write down those of some of the problems."""
        for name, value in vars(other).items():
            getattr(self, name)[rows] = value


class Pass:
    """A pass over the features, for some problems.

    Parameters
    ----------
    arrays : Arrays
    material : Material
    loss : Loss
    problems : SolverProblems
    """

    def __init__(self, arrays: Arrays, material: Material, loss: Loss, problems: SolverProblems) -> None:
        self.arrays, self.material, self.loss, self.problems = arrays, material, loss, problems
        put, fold = arrays.put, problems.fold
        self._shift = None if material.shift is None else put(material.shift[fold])[:, None]
        self._gain = None if material.gain is None else put(material.gain[fold])[:, None]
        self._barred = None if material.barred is None else put(material.barred[fold])

    def of(self, rows: NDArray[np.intp]) -> "Pass":
        """Return a pass for some of the problems."""
        return Pass(self.arrays, self.material, self.loss, self.problems[rows])

    def __call__(self, theta: Array) -> Sums:
        """Return the sums at `theta`, float32 ``(p, outputs, d + 1)``."""
        d = theta.shape[2] - 1
        weight, bias = theta[..., :d], theta[..., d]
        if self._gain is not None:
            weight = weight * self._gain
            bias = bias - (weight * self._shift).sum(axis=2)
        if self._barred is not None:
            bias = bias + self._barred
        loss, exact, curvature = self._sums(weight, bias)
        slope = self.arrays.single(exact)
        if self._gain is not None:
            slope[..., :d] -= slope[..., d:] * self._shift
            slope[..., :d] *= self._gain
        return Sums(loss=loss, slope=slope, curvature=curvature)

    def _sums(self, weight: Array, bias: Array) -> tuple[Array, Array, Array]:
        """Return the sums for features as the table gives them, and their slope in float64."""
        arrays, (p, outputs, d) = self.arrays, weight.shape
        loss, slope = arrays.zeros(p, exact=True), arrays.zeros(p, outputs, d + 1, exact=True)
        curvature = arrays.zeros(p, outputs)
        table = self.material.table
        cores = arrays.cores if isinstance(table, InMemoryFeatures) else 1  # of others a block holds until the next
        blocks = table.blocks(self._block(p * outputs, d))
        for found in in_order(lambda block: self._of_block(weight, bias, *block), blocks, cores):
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
        """Return which problems are trained on some rows, their losses, and these's slope times the features."""
        arrays, (p, outputs, d) = self.arrays, weight.shape
        block, weights = arrays.put(features), self.material.weights[rows][:, self.problems.fold]
        own = np.flatnonzero(weights.any(axis=0))  # in the others these rows are tested
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
        codes = self.material.codes[rows]
        return self.arrays.put(codes if self.loss.outputs > 1 else signs(codes, self.problems.output[own]))

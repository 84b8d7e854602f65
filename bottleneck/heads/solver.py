"""All problems of a search at once: each C, each fold and, where they are apart, each class.

A problem is ``|W|^2 / 2 + C * sum of w_i * loss(x_i, y_i)``. What costs time is the products of the features with the
weights and with the errors; of all problems at once they are two products of large matrices, which a processor does
at its full speed, and the features are read once for all of them.

Each problem goes its own way by L-BFGS (Nocedal and Wright 2006, "Numerical Optimization", algorithm 7.4), with the
large directions of the features known beforehand (see `bottleneck.heads.precondition`), its own step and its own end;
problems that have ended leave the products. Products are float32, sums over rows of the loss float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.losses import Loss
from bottleneck.heads.precondition import Preconditioner, Spectrum, spectrum
from bottleneck.heads.table import Scaling, Table

_CELLS = 4 << 20  # scores of a block
_MEMORY = 8  # steps that L-BFGS remembers
_ITERATIONS = 500
_FULL_STEP_FALLS = 1e-4  # the part of the expected decrease that a step must bring
_ROUNDING = 2e-7  # of a sum of float32 losses, relative
_SHRINK = 0.4
_SHORTEST = 1e-4
_NEAR = 1e-5  # what may be left to gain where rounding forbids any further step
_WORKING_BYTES = 1 << 30  # of all that is kept of the problems that are solved at once


@dataclass(frozen=True, kw_only=True)
class Problems:
    """What is solved.

    Parameters
    ----------
    C : ndarray of float64, shape (p,)
    fold : ndarray of int, shape (p,)
        A column of `weights` and a row of the scalings.
    output : ndarray of int, shape (p,)
        Where the loss has one score, the class that is told from all others.
    """

    C: NDArray[np.float64]
    fold: NDArray[np.intp]
    output: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.C)

    def __getitem__(self, rows: "NDArray[np.intp] | slice") -> "Problems":
        return Problems(C=self.C[rows], fold=self.fold[rows], output=self.output[rows])


@dataclass(frozen=True, kw_only=True)
class Material:
    """What all problems share.

    Parameters
    ----------
    table : Table
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

    table: Table
    codes: NDArray[np.intp]
    weights: NDArray[np.float32]
    shift: NDArray[np.float32] | None = None
    gain: NDArray[np.float32] | None = None
    barred: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Weights of each problem, for features as its fold scales them.

    Parameters
    ----------
    theta : ndarray of float32, shape (p, outputs, d + 1)
        The bias last.
    objective : ndarray of float64, shape (p,)
    iterations : ndarray of int, shape (p,)
        Passes over the features.
    ended : ndarray of bool, shape (p,)
        Whether the tolerance was reached, as nearly as rounding lets it be.
    """

    theta: NDArray[np.float32]
    objective: NDArray[np.float64]
    iterations: NDArray[np.intp]
    ended: NDArray[np.bool_]


def signs(codes: NDArray[np.intp], classes: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return 1 where a row ``(n,)`` is of a class ``(p,)``, else -1, ``(n, p)``."""
    found: NDArray[np.float32] = np.where(codes[:, None] == classes, np.float32(1), np.float32(-1))
    return found


def relative(whole: Scaling, folds: list[Scaling]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `shift` and `gain` of `Material`: the scalings of folds, of features that are scaled by all rows."""
    shift = np.array([(one.mean - whole.mean) / whole.scale for one in folds], np.float32)
    gain = np.array([whole.scale / one.scale for one in folds], np.float32)
    return shift, gain


def solve(
    arrays: Arrays,
    material: Material,
    loss: Loss,
    problems: Problems,
    *,
    tolerance: float,
    start: NDArray[np.float32] | None = None,
    most: int = _ITERATIONS,
) -> Solution:
    """Solve all problems.

    Parameters
    ----------
    arrays : Arrays
        Where it is computed.
    material : Material
    loss : Loss
    problems : Problems
    tolerance : float
        A problem has ended when what is left to gain, by its own estimate (half the gradient times the step), is less
        than this part of its objective.
    start : ndarray of float32, shape (p, outputs, d + 1), optional
        Where the problems begin; by default at 0.
    most : int
        Passes over the features that a problem may take.

    Notes
    -----
    Problems that would not fit into a gigabyte together are solved one part after the other.
    """
    d = material.table.shape[1]
    directions = spectrum(arrays, material.table)
    theta = np.zeros((len(problems), loss.outputs, d + 1), np.float32) if start is None else start.copy()
    objective, iterations = np.zeros(len(problems)), np.full(len(problems), most)
    ended = np.zeros(len(problems), bool)
    found = Solution(theta=theta, objective=objective, iterations=iterations, ended=ended)
    each = 4 * loss.outputs * (d + 1) * (3 * _MEMORY + 8)
    for part in _parts(len(problems), max(1, _WORKING_BYTES // each)):
        own = Solution(**{name: value[part] for name, value in vars(found).items()})
        _solve(_Pass(arrays, material, loss, problems[part]), directions, own, tolerance, most)
    return found


def _parts(count: int, most: int) -> Iterator[slice]:
    step = math.ceil(count / math.ceil(count / most))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


class _Pass:
    """The objectives of some problems and their gradients, by one pass over the features."""

    def __init__(self, arrays: Arrays, material: Material, loss: Loss, problems: Problems) -> None:
        self.arrays, self.material, self.loss, self.problems = arrays, material, loss, problems
        self._ready()

    def _ready(self) -> None:
        put, fold = self.arrays.put, self.problems.fold
        self.C = put(self.problems.C.astype(np.float32))
        shift, gain = self.material.shift, self.material.gain
        self._shift = None if shift is None else put(shift[fold])[:, None]
        self._gain = None if gain is None else put(gain[fold])[:, None]
        self._barred = None if self.material.barred is None else put(self.material.barred[fold])

    def keep(self, rows: NDArray[np.intp]) -> None:
        """Go on with some of the problems."""
        self.problems = self.problems[rows]
        self._ready()

    def __call__(self, theta: Array) -> tuple[Array, Array]:
        """Return objectives ``(p,)``, float64, and gradients ``(p, outputs, d + 1)`` at `theta`."""
        arrays, (p, outputs, width) = self.arrays, theta.shape
        d = width - 1
        weight, bias = theta[..., :d], theta[..., d]
        if self._gain is not None:
            weight = weight * self._gain
            bias = bias - (weight * self._shift).sum(axis=2)
        if self._barred is not None:
            bias = bias + self._barred
        flat = weight.reshape(-1, d)
        total, slope = arrays.zeros(p, exact=True), arrays.zeros(p * outputs, d, exact=True)
        slope_of_bias = arrays.zeros(p, outputs, exact=True)
        for rows, features in self.material.table.blocks(max(64, _CELLS // (p * outputs))):
            block = arrays.put(features)
            scores = (block @ flat.T).reshape(len(features), p, outputs)
            scores += bias
            loss, error = self.loss(arrays, scores, self._target(rows), self._weights(rows))
            total += loss
            slope += error.reshape(len(features), -1).T @ block
            slope_of_bias += error.sum(axis=0)
        gradient = arrays.zeros(p, outputs, width)
        gradient[..., :d] = slope.reshape(p, outputs, d)
        gradient[..., d] = slope_of_bias
        if self._gain is not None:
            gradient[..., :d] -= gradient[..., d:] * self._shift
            gradient[..., :d] *= self._gain
        gradient *= self.C[:, None, None]
        gradient[..., :d] += theta[..., :d]
        gradient[..., d] += self.loss.bias_penalty * theta[..., d]
        exact = arrays.xp.float64
        size = arrays.xp.square(theta[..., :d]).sum(axis=(1, 2), dtype=exact)
        size = size + self.loss.bias_penalty * arrays.xp.square(theta[..., d]).sum(axis=1, dtype=exact)
        return self.C * total + size / 2, gradient

    def _target(self, rows: "slice | NDArray[np.intp]") -> Array:
        codes = self.material.codes[rows]
        return self.arrays.put(codes if self.loss.outputs > 1 else signs(codes, self.problems.output))

    def _weights(self, rows: "slice | NDArray[np.intp]") -> Array:
        return self.arrays.put(np.ascontiguousarray(self.material.weights[rows][:, self.problems.fold]))


def _solve(pass_by: _Pass, directions: Spectrum, found: Solution, tolerance: float, most: int) -> None:
    """Solve, from what is found so far and into it."""
    arrays = pass_by.arrays
    rows_of = pass_by.material.weights.sum(axis=0)[pass_by.problems.fold]
    strength = (pass_by.problems.C * np.maximum(rows_of, 1e-6) * pass_by.loss.curvature).astype(np.float32)
    lbfgs = _Lbfgs(arrays, Preconditioner(directions, arrays.put(strength), pass_by.loss.bias_penalty))
    left = np.arange(len(found.theta))  # the problems that have not ended
    point = arrays.put(found.theta)
    value, gradient = pass_by(point)
    step = arrays.zeros(len(left)) + 1
    direction = lbfgs.direction(gradient)
    for iteration in range(most):
        expected = -_dot(arrays, gradient, direction)
        near = arrays.get(expected / 2 <= max(tolerance, _NEAR) * value)
        ended = arrays.get((expected / 2 <= tolerance * value) | (step < _SHORTEST))
        if ended.any() and (ended.all() or ended.mean() > 0.1 or iteration == most - 1):
            out, stay = np.flatnonzero(ended), np.flatnonzero(~ended)
            found.theta[left[out]], found.objective[left[out]] = arrays.get(point)[out], arrays.get(value)[out]
            found.iterations[left[out]], found.ended[left[out]] = iteration + 1, near[out]
            if not len(stay):
                return
            left, rows = left[stay], arrays.put(stay)
            pass_by.keep(stay)
            lbfgs.keep(rows)
            point, value, gradient, direction = point[rows], value[rows], gradient[rows], direction[rows]
            step, expected = step[rows], expected[rows]
        trial = point + step[:, None, None] * direction
        new_value, new_gradient = pass_by(trial)
        fell = new_value <= value - _FULL_STEP_FALLS * step * expected + _ROUNDING * value
        moved = fell[:, None, None]
        xp = arrays.xp
        new_point, new_gradient = xp.where(moved, trial, point), xp.where(moved, new_gradient, gradient)
        value = xp.where(fell, new_value, value)
        lbfgs.remember(new_point - point, new_gradient - gradient)
        point, gradient = new_point, new_gradient
        direction = lbfgs.direction(gradient)
        step = xp.where(fell, 1 + 0 * step, step * _SHRINK)
    found.theta[left], found.objective[left] = arrays.get(point), arrays.get(value)


class _Lbfgs:
    """The steps that many problems have made, and the directions that follow from them."""

    def __init__(self, arrays: Arrays, preconditioner: Preconditioner) -> None:
        self._arrays, self._precondition = arrays, preconditioner
        self._steps: list[tuple[Array, Array, Array, Array]] = []
        self._size: Array = None

    def remember(self, step: Array, change: Array) -> None:
        """Take a step ``(p, outputs, d + 1)`` and the change of the gradient; steps of 0 teach nothing."""
        xp = self._arrays.xp
        turned = self._precondition(change)
        along, size = _dot(self._arrays, step, change), _dot(self._arrays, change, turned)
        useful = along > 1e-10 * size
        inverse = xp.where(useful, 1 / xp.where(useful, along, 1 + 0 * along), 0 * along)
        ratio = xp.where(useful, along / xp.where(size > 0, size, 1 + 0 * size), 0 * along)
        before = self._size if self._size is not None else 1 + 0 * ratio
        self._size = xp.where(ratio > 0, ratio, before)
        self._steps = [*self._steps[-_MEMORY + 1 :], (step, change, turned, inverse)]

    def direction(self, gradient: Array) -> Array:
        """Return the negative of the estimated inverse second derivative times the gradient."""
        rest, turned, parts = gradient, self._precondition(gradient), []
        for step, change, turned_change, inverse in reversed(self._steps):
            part = (inverse * _dot(self._arrays, step, rest))[:, None, None]
            rest = rest - part * change
            turned = turned - part * turned_change
            parts.append(part)
        if self._size is not None:
            turned = turned * self._size[:, None, None]
        for (step, change, _, inverse), part in zip(self._steps, reversed(parts), strict=True):
            turned = turned + (part - (inverse * _dot(self._arrays, change, turned))[:, None, None]) * step
        return -turned

    def keep(self, rows: Array) -> None:
        """Go on with some of the problems."""
        self._precondition.keep(rows)
        self._steps = [(a[rows], b[rows], c[rows], d[rows]) for a, b, c, d in self._steps]
        self._size = None if self._size is None else self._size[rows]


def _dot(arrays: Arrays, a: Array, b: Array) -> Array:
    return arrays.xp.einsum("pkd,pkd->p", a, b)

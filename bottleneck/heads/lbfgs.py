"""L-BFGS directions of many problems at once.

Nocedal and Wright 2006, "Numerical Optimization", algorithm 7.4. The two loops over the steps are written as two
triangular systems in the products of steps and gradient changes (Byrd, Nocedal and Schnabel 1994, "Representations of
quasi-Newton matrices and their use in limited memory methods"), so that the history of a problem is read in four
matrix products, independent of its length.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays

_ROUNDING = 1e-7  # of the cosine between a step and its gradient change


class StepHistory:
    """The last steps of some problems, with the gradient change along each.

    Parameters
    ----------
    arrays : Arrays
    problems : int
    width : int
        D, the number of weights of a problem.
    steps : int
        m, the length of the history.
    """

    def __init__(self, arrays: Arrays, problems: int, width: int, steps: int) -> None:
        self._arrays = arrays
        self.steps, self.changes = (arrays.zeros(problems, steps, width) for _ in range(2))
        self.products = arrays.zeros(problems, steps, steps, exact=True)  # of step i with change j
        self.taken = np.zeros(problems, np.intp)

    def append(self, rows: NDArray[np.intp], step: Array, change: Array) -> None:
        """Append a step and its gradient change for each of some problems.

        A step without positive curvature beyond rounding is skipped.
        """
        arrays, xp, width = self._arrays, self._arrays.xp, self.steps.shape[2]
        step, change = step.reshape(len(rows), width), change.reshape(len(rows), width)
        least = _ROUNDING * (_dots(xp, change, change) * _dots(xp, step, step)) ** 0.5
        useful = np.flatnonzero(arrays.get(_dots(xp, step, change) > least))
        if not len(useful):
            return
        rows, step, change = rows[useful], step[arrays.put(useful)], change[arrays.put(useful)]
        own, slot = arrays.put(rows), arrays.put(self.taken[rows] % self.steps.shape[1])
        self.steps[own, slot], self.changes[own, slot] = step, change
        for row in rows.tolist():
            place = self.taken[row] % self.steps.shape[1]
            self.products[row, place] = self.changes[row] @ self.steps[row, place]
            self.products[row, :, place] = self.steps[row] @ self.changes[row, place]
        self.taken[rows] += 1

    def clear(self, rows: NDArray[np.intp]) -> None:
        """Clear the history of some problems."""
        if len(rows):
            own, self.taken[rows] = self._arrays.put(rows), 0
            for kept in (self.steps, self.changes, self.products):
                kept[own] = 0

    def rescale(self, factor: float, penalty: Array) -> None:
        """Adapt the history to `factor` times C: gradient changes scale with it, except the penalty ``(D,)``."""
        self.changes *= factor
        self.changes += (1 - factor) * penalty * self.steps
        self.products = self._arrays.double(self.steps @ self.changes.swapaxes(1, 2))

    def direction(self, gradient: Array, precondition: Callable[[Array], Array]) -> Array:
        """Return minus the estimated inverse Hessian times the gradient ``(p, D)``."""
        arrays, xp = self._arrays, self._arrays.xp
        if not self.taken.any():
            return -precondition(gradient)
        count = min(self.steps.shape[1], int(self.taken.max()))
        steps, changes = self.steps[:, :count], self.changes[:, :count]
        first = np.where(self.taken > count, self.taken % count, 0)
        order = arrays.put((first[:, None] + np.arange(count)) % count)  # the oldest first
        problem = arrays.put(np.arange(len(first)))[:, None]
        known = self.products[problem[:, :, None], order[:, :, None], order[:, None]]
        size = xp.diagonal(known, 0, 1, 2)
        useful = size > 0
        upper = xp.triu(known * useful[:, None] * useful[:, :, None])
        upper = upper + xp.where(useful, 0 * size, 1 + 0 * size)[:, None] * arrays.put(np.eye(count))
        along = xp.where(useful, _products(steps, gradient)[problem, order], 0 * size)
        first_loop = xp.linalg.solve(upper, along[..., None])[..., 0]
        parts = xp.zeros_like(along)
        parts[problem, order] = first_loop
        rest = gradient - _combined(arrays, parts, changes)
        turned = precondition(rest) * self._scale(precondition)
        against = xp.where(useful, size * first_loop - _products(changes, turned)[problem, order], 0 * size)
        parts[problem, order] = xp.linalg.solve(upper.swapaxes(1, 2), against[..., None])[..., 0]
        return -(turned + _combined(arrays, parts, steps))

    def _scale(self, precondition: Callable[[Array], Array]) -> Array:
        """Return the factor ``(p, 1)`` that makes the preconditioner exact along the last gradient change."""
        xp, rows = self._arrays.xp, self._arrays.range(len(self.taken))
        slot = self._arrays.put((self.taken - 1) % self.steps.shape[1])
        last, along = self.changes[rows, slot], self._arrays.single(self.products[rows, slot, slot])
        turned = _dots(xp, last, precondition(last))
        useful = (along > 0) & (turned > 0)
        return xp.where(useful, along / xp.where(useful, turned, 1 + 0 * turned), 1 + 0 * turned)[:, None]


def _dots(xp: Any, a: Array, b: Array) -> Array:
    return xp.einsum("pd,pd->p", a, b)


def _products(many: Array, one: Array) -> Array:
    """Return the products ``(p, m)`` of ``(p, m, D)`` and ``(p, D)``."""
    return (many @ one[..., None])[..., 0]


def _combined(arrays: Arrays, parts: Array, many: Array) -> Array:
    """Return the linear combination ``(p, D)`` of ``(p, m, D)`` with coefficients ``(p, m)``."""
    return (arrays.single(parts)[:, None] @ many)[:, 0]

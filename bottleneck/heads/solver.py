"""Solve all problems of a search at once: folds, one-vs-rest classes and, with warm starts, increasing values of C.

Each problem is solved by L-BFGS with a preconditioner (see `bottleneck.heads.precondition`), with its own step size and
stopping criterion; problems that have converged leave the matrix products. The problems of each C start from the
solution and the L-BFGS history of the previous C: the loss part of a gradient change is proportional to C.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.lbfgs import StepHistory
from bottleneck.heads.losses import Loss
from bottleneck.heads.objective import Pass, SolverProblems, Sums, TrainingData
from bottleneck.heads.precondition import Preconditioner, Spectrum, spectrum

_HISTORY, _MIN_HISTORY = 32, 8  # steps of the L-BFGS history
_ITERATIONS = 500
_FALL = 1e-4  # fraction of the expected decrease that a step must achieve
_ROUNDING = 2e-7  # relative error of a sum of float32 losses
_MIN_STEP = 1e-4
_NEARLY = 1e-5  # accepted relative excess of the objective when rounding prevents further steps
_OPTIMISM = 1e-2  # times the tolerance: the estimate of L-BFGS is usually too small
_C_FACTOR, _WAYPOINT_TOLERANCE = 10.0, 3e-2  # largest factor between consecutive C; tolerance at intermediate C
_WORKING_BYTES = 1 << 30  # of the state of all problems that are solved at once


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Weights of each problem at each C, for features scaled by its fold.

    Parameters
    ----------
    theta : ndarray of float32, shape (g, p, outputs, d + 1)
        The bias last.
    objective : ndarray of float64, shape (g, p)
    iterations : ndarray of int, shape (g, p)
        Passes over the features.
    ended : ndarray of bool, shape (g, p)
        Whether the tolerance was reached, up to rounding.
    """

    theta: NDArray[np.float32]
    objective: NDArray[np.float64]
    iterations: NDArray[np.intp]
    ended: NDArray[np.bool_]


def solve(
    arrays: Arrays,
    data: TrainingData,
    loss: Loss,
    problems: SolverProblems,
    Cs: Sequence[float],
    *,
    tolerance: float,
    start: NDArray[np.float32] | None = None,
    most: int = _ITERATIONS,
    history: int = _HISTORY,
    working_bytes: int = _WORKING_BYTES,
    preconditioner: type[Preconditioner] = Preconditioner,
) -> Solution:
    """Solve all problems at each C.

    Parameters
    ----------
    arrays : Arrays
    data : TrainingData
    loss : Loss
    problems : SolverProblems
    Cs : sequence of float, length g
    tolerance : float
        Relative excess of the objective over its minimum at which a problem has converged. This is guaranteed if half
        the squared gradient is smaller, since the penalty makes the objective strongly convex (Boyd and Vandenberghe
        2004, "Convex Optimization", section 9.1.2); it is assumed if L-BFGS expects to gain less than a hundredth of
        it.
    start : ndarray of float32, shape (p, outputs, d + 1), optional
        Starting point for the smallest C; 0 by default, with intermediate solutions at smaller C.
    most : int
        Maximum number of passes over the features for a problem at one C.
    history : int
        Maximum length of the L-BFGS history.
    working_bytes : int
        Memory for the state of all problems that are solved at once.
    preconditioner : type
        Class of the preconditioner.

    Notes
    -----
    Problems whose state exceeds `working_bytes` are solved in several parts. If that is not enough, the history has
    eight steps.
    """
    shape = (len(Cs), len(problems), loss.outputs, data.table.shape[1] + 1)
    found = Solution(
        theta=np.zeros(shape, np.float32),
        objective=np.zeros(shape[:2]),
        iterations=np.full(shape[:2], most),
        ended=np.zeros(shape[:2], bool),
    )
    directions = spectrum(arrays, data.table, bias=loss.bias_penalty > 0)
    path = _path(Cs, _first(data, directions) if start is None else math.inf)
    vector = 4 * math.prod(shape[2:])
    steps = int(np.clip(working_bytes // (4 * vector * len(problems)), _MIN_HISTORY, history))
    for part in _parts(len(problems), max(1, working_bytes // (4 * vector * steps))):
        own = Solution(**{name: value[:, part] for name, value in vars(found).items()})
        point = arrays.put((own.theta[0] if start is None else start[part]).copy())
        state = _SolverState(Pass(arrays, data, loss, problems[part]), directions, point, steps, preconditioner)
        for C, number in path:
            state.minimize(C, _WAYPOINT_TOLERANCE if number is None else tolerance, most)
            if number is not None:
                state.store(own, number)
    return found


def _path(Cs: Sequence[float], first: float) -> list[tuple[float, int | None]]:
    """Return increasing values of C with their index, and intermediate values with None, starting after `first`."""
    path: list[tuple[float, int | None]] = []
    before = first
    for number in np.argsort(Cs, kind="stable").tolist():
        C = float(Cs[number])
        waypoints = math.ceil(math.log(C / before, _C_FACTOR) - 1e-9) - 1 if before < C else 0
        path += [(C / _C_FACTOR**waypoint, None) for waypoint in range(waypoints, 0, -1)]
        path.append((C, number))
        before = C
    return path


def _first(data: TrainingData, directions: Spectrum) -> float:
    """Return a C at which the penalty dominates in all directions, so that few steps from 0 are enough."""
    rows = max(1.0, float(data.weights.sum(axis=0).max(initial=0)))
    return 1 / (rows * max(directions.largest, 1e-6))


def _parts(count: int, most: int) -> Iterator[slice]:
    step = math.ceil(count / math.ceil(count / most))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


class _SolverState:
    """Current weights and L-BFGS history of some problems.

    Parameters
    ----------
    objective : Pass
    directions : Spectrum
    point : float32, shape (p, outputs, d + 1)
    steps : int
        Length of the history.
    preconditioner : type
    """

    def __init__(
        self,
        objective: Pass,
        directions: Spectrum,
        point: Array,
        steps: int,
        preconditioner: type[Preconditioner],
    ) -> None:
        p, outputs, width = point.shape
        self._arrays, self._pass, self._directions, self._C = objective.arrays, objective, directions, 0.0
        penalty = np.ones((outputs, width), np.float32)
        penalty[:, -1] = objective.loss.bias_penalty
        self._penalty = self._arrays.put(penalty)
        self._preconditioner = preconditioner
        self._history = StepHistory(self._arrays, p, outputs * width, steps)
        self._point, self._sums = point, objective(point)
        self._iterations, self._converged = np.zeros(p, np.intp), np.zeros(p, bool)

    def store(self, found: Solution, number: int) -> None:
        """Store the current weights in a solution."""
        get = self._arrays.get
        found.theta[number], found.objective[number] = get(self._point), get(self._objective(self._sums, self._point))
        found.iterations[number], found.ended[number] = self._iterations, self._converged

    def minimize(self, C: float, tolerance: float, most: int) -> None:
        """Minimize the objectives at another C."""
        if self._C:
            self._history.rescale(C / self._C, self._penalty.reshape(-1))
        self._C, self._step = C, self._arrays.zeros(len(self._point)) + 1
        self._iterations[:] = most
        active, objective = np.arange(len(self._point)), self._pass
        for passes in range(most + 1):
            gradient = self._gradient(self._sums, self._point)
            self._restart()
            direction, expected, ended = self._descend(gradient, tolerance)
            self._iterations[active[ended[active]]] = passes
            if ended[active].any():
                active = active[~ended[active]]
                objective = self._pass.of(active)
            if not len(active) or passes == most:
                return
            self._line_search(objective, active, gradient, direction, expected)

    def _restart(self) -> None:
        """Clear the history of problems whose steps have become too short."""
        stuck = np.flatnonzero(self._arrays.get(self._step < _MIN_STEP) & (self._history.taken > 0))
        self._history.clear(stuck)
        self._step[self._arrays.put(stuck)] = 1

    def _objective(self, sums: Sums, point: Array) -> Array:
        size = (self._arrays.double(point) ** 2 * self._penalty).sum(axis=(1, 2))
        return self._C * sums.loss + size / 2

    def _gradient(self, sums: Sums, point: Array) -> Array:
        return self._C * sums.slope + self._penalty * point

    def _descend(self, gradient: Array, tolerance: float) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return descent directions ``(p, outputs, d + 1)``, the expected decrease, and which problems have ended."""
        shape, value = gradient.shape, self._objective(self._sums, self._point)
        precondition = self._preconditioner(
            self._directions, self._C * self._sums.curvature, self._pass.loss.bias_penalty
        )
        flat = gradient.reshape(len(gradient), -1)
        direction = self._history.direction(flat, lambda some: precondition(some.reshape(shape)).reshape(some.shape))
        expected = -self._arrays.xp.einsum("pd,pd->p", flat, direction)
        surely = precondition.bound(gradient) <= tolerance * value
        reached = surely | (expected / 2 <= _OPTIMISM * tolerance * value)
        self._converged = self._arrays.get(reached | (expected / 2 <= _NEARLY * value))
        return direction.reshape(shape), expected, self._arrays.get(reached | (self._step < _MIN_STEP))

    def _line_search(
        self, objective: Pass, active: NDArray[np.intp], gradient: Array, direction: Array, expected: Array
    ) -> None:
        """Take a step with the active problems; those without sufficient decrease shorten their next step."""
        xp, own = self._arrays.xp, self._arrays.put(active)
        before, step, expected = self._objective(self._sums.of(own), self._point[own]), self._step[own], expected[own]
        moved = step[:, None, None] * direction[own]
        trial = self._point[own] + moved
        sums = objective(trial)
        rise = self._objective(sums, trial) - before + step * expected  # above the linear prediction
        fell = rise <= (1 - _FALL) * step * expected + _ROUNDING * before
        shorter = step * xp.clip(step * expected / (2 * xp.clip(rise, 1e-30, None)), 0.1, 0.5)
        self._step[own] = self._arrays.single(xp.where(fell, 1 + 0 * step, shorter))
        down = np.flatnonzero(self._arrays.get(fell))
        rows, down = active[down], self._arrays.put(down)
        self._history.append(rows, moved[down], self._gradient(sums, trial)[down] - gradient[self._arrays.put(rows)])
        rows = self._arrays.put(rows)
        self._point[rows] = trial[down]
        self._sums.put(rows, sums.of(down))

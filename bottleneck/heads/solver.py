"""All problems of a search: folds and, where they are apart, classes at once, from the smallest C to the largest.

Each problem goes its own way by L-BFGS with the large directions of the features known beforehand (see
`bottleneck.heads.precondition`), its own step and its own end; problems that have ended leave the products. The
problems of a C begin where those of the C before it have ended, and what these have learnt of the features is still
true for them: the part of a gradient's change that is the loss's grows as C does.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.lbfgs import StepHistory
from bottleneck.heads.losses import Loss
from bottleneck.heads.precondition import Preconditioner, Spectrum, spectrum
from bottleneck.heads.sums import Material, Pass, SolverProblems, Sums

_MEMORY, _LEAST_MEMORY = 32, 8  # steps that are remembered
_ITERATIONS = 500
_FALL = 1e-4  # the part of the expected decrease that a step must bring
_ROUNDING = 2e-7  # of a sum of float32 losses, relative
_SHORTEST = 1e-4
_NEAR = 1e-5  # what may be left to gain where rounding forbids any further step
_OPTIMISM = 1e-2  # of a tolerance: L-BFGS's own estimate of what is left is mostly too small
_STONE, _STONE_TOLERANCE = 10.0, 3e-2  # the largest factor from one C to the next; of a C that was not asked for
_WORKING_BYTES = 1 << 30  # of all that is kept of the problems that are solved at once


@dataclass(frozen=True, kw_only=True)
class Solution:
    """Weights of each problem at each C, for features as its fold scales them.

    Parameters
    ----------
    theta : ndarray of float32, shape (g, p, outputs, d + 1)
        The bias last.
    objective : ndarray of float64, shape (g, p)
    iterations : ndarray of int, shape (g, p)
        Passes over the features.
    ended : ndarray of bool, shape (g, p)
        Whether the tolerance was reached, as nearly as rounding lets it be.
    """

    theta: NDArray[np.float32]
    objective: NDArray[np.float64]
    iterations: NDArray[np.intp]
    ended: NDArray[np.bool_]


def solve(
    arrays: Arrays,
    material: Material,
    loss: Loss,
    problems: SolverProblems,
    Cs: Sequence[float],
    *,
    tolerance: float,
    start: NDArray[np.float32] | None = None,
    most: int = _ITERATIONS,
) -> Solution:
    """Solve all problems at each C.

    Parameters
    ----------
    arrays : Arrays
        Where it is computed.
    material : Material
    loss : Loss
    problems : SolverProblems
    Cs : sequence of float, length g
    tolerance : float
        A problem has ended when its objective is at most by this part above the smallest there is. That is so where
        half the square of the gradient is less (the penalty makes the objective strongly convex; Boyd and
        Vandenberghe 2004, "Convex Optimization", section 9.1.2), and taken to be so where L-BFGS expects to gain less
        than a hundredth of it.
    start : ndarray of float32, shape (p, outputs, d + 1), optional
        Where the smallest C begins; by default at 0, by way of smaller ones.
    most : int
        Passes over the features that a problem may take at a C.

    Notes
    -----
    Problems that would not fit into a gigabyte together are solved one part after the other; one that would not fit
    alone remembers eight steps.
    """
    shape = (len(Cs), len(problems), loss.outputs, material.table.shape[1] + 1)
    found = Solution(
        theta=np.zeros(shape, np.float32),
        objective=np.zeros(shape[:2]),
        iterations=np.full(shape[:2], most),
        ended=np.zeros(shape[:2], bool),
    )
    directions = spectrum(arrays, material.table, bias=loss.bias_penalty > 0)
    path = _path(Cs, _first(material, directions) if start is None else math.inf)
    vector = 4 * math.prod(shape[2:])
    steps = int(np.clip(_WORKING_BYTES // (4 * vector * len(problems)), _LEAST_MEMORY, _MEMORY))
    for part in _parts(len(problems), max(1, _WORKING_BYTES // (4 * vector * steps))):
        own = Solution(**{name: value[:, part] for name, value in vars(found).items()})
        point = arrays.put((own.theta[0] if start is None else start[part]).copy())
        walk = _SolverState(Pass(arrays, material, loss, problems[part]), directions, point, steps)
        for C, number in path:
            walk.to(C, _STONE_TOLERANCE if number is None else tolerance, most)
            if number is not None:
                walk.write(own, number)
    return found


def _path(Cs: Sequence[float], first: float) -> list[tuple[float, int | None]]:
    """Return rising values of C with their numbers; between distant ones, and from `first` on, some of no number."""
    path: list[tuple[float, int | None]] = []
    before = first
    for number in np.argsort(Cs, kind="stable").tolist():
        C = float(Cs[number])
        stones = math.ceil(math.log(C / before, _STONE) - 1e-9) - 1 if before < C else 0
        path += [(C / _STONE**stone, None) for stone in range(stones, 0, -1)]
        path.append((C, number))
        before = C
    return path


def _first(material: Material, directions: Spectrum) -> float:
    """Return a C at which the penalty rules in all directions, so that it is reached from 0 in a few steps."""
    rows = max(1.0, float(material.weights.sum(axis=0).max(initial=0)))
    return 1 / (rows * max(directions.largest, 1e-6))


def _parts(count: int, most: int) -> Iterator[slice]:
    step = math.ceil(count / math.ceil(count / most))
    for start in range(0, count, step):
        yield slice(start, min(count, start + step))


class _SolverState:
    """Where some problems are, and what they remember of the way.

    Parameters
    ----------
    ask : Pass
    directions : Spectrum
    point : float32, shape (p, outputs, d + 1)
    steps : int
        How many are remembered.
    """

    def __init__(self, ask: Pass, directions: Spectrum, point: Array, steps: int) -> None:
        p, outputs, width = point.shape
        self._arrays, self._ask, self._directions, self._C = ask.arrays, ask, directions, 0.0
        penalty = np.ones((outputs, width), np.float32)
        penalty[:, -1] = ask.loss.bias_penalty
        self._penalty = self._arrays.put(penalty)
        self._memory = StepHistory(self._arrays, p, outputs * width, steps)
        self._point, self._sums = point, ask(point)
        self._iterations, self._near = np.zeros(p, np.intp), np.zeros(p, bool)

    def write(self, found: Solution, number: int) -> None:
        """Write down where the problems are."""
        get = self._arrays.get
        found.theta[number], found.objective[number] = get(self._point), get(self._objective(self._sums, self._point))
        found.iterations[number], found.ended[number] = self._iterations, self._near

    def to(self, C: float, tolerance: float, most: int) -> None:
        """Go on to the smallest objectives at another C."""
        if self._C:
            self._memory.reweigh(C / self._C, self._penalty.reshape(-1))
        self._C, self._step = C, self._arrays.zeros(len(self._point)) + 1
        self._iterations[:] = most
        left, ask = np.arange(len(self._point)), self._ask
        for passes in range(most + 1):
            gradient = self._gradient(self._sums, self._point)
            self._begin_again()
            direction, expected, ended = self._look(gradient, tolerance)
            self._iterations[left[ended[left]]] = passes
            if ended[left].any():
                left = left[~ended[left]]
                ask = self._ask.of(left)
            if not len(left) or passes == most:
                return
            self._go(ask, left, gradient, direction, expected)

    def _begin_again(self) -> None:
        """Let those whose steps have become too short forget where they thought that down was."""
        stuck = np.flatnonzero(self._arrays.get(self._step < _SHORTEST) & (self._memory.taken > 0))
        self._memory.forget(stuck)
        self._step[self._arrays.put(stuck)] = 1

    def _objective(self, sums: Sums, point: Array) -> Array:
        size = (self._arrays.double(point) ** 2 * self._penalty).sum(axis=(1, 2))
        return self._C * sums.loss + size / 2

    def _gradient(self, sums: Sums, point: Array) -> Array:
        return self._C * sums.slope + self._penalty * point

    def _look(self, gradient: Array, tolerance: float) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return directions ``(p, outputs, d + 1)``, by how much the slope promises to fall, and who has ended."""
        shape, value = gradient.shape, self._objective(self._sums, self._point)
        precondition = Preconditioner(self._directions, self._C * self._sums.curvature, self._ask.loss.bias_penalty)
        flat = gradient.reshape(len(gradient), -1)
        direction = self._memory.direction(flat, lambda some: precondition(some.reshape(shape)).reshape(some.shape))
        expected = -self._arrays.xp.einsum("pd,pd->p", flat, direction)
        surely = precondition.bound(gradient) <= tolerance * value
        reached = surely | (expected / 2 <= _OPTIMISM * tolerance * value)
        self._near = self._arrays.get(reached | (expected / 2 <= _NEAR * value))
        return direction.reshape(shape), expected, self._arrays.get(reached | (self._step < _SHORTEST))

    def _go(self, ask: Pass, left: NDArray[np.intp], gradient: Array, direction: Array, expected: Array) -> None:
        """Let those that are left make a step; whoever does not get down makes a shorter one the next time."""
        xp, own = self._arrays.xp, self._arrays.put(left)
        before, step, expected = self._objective(self._sums.of(own), self._point[own]), self._step[own], expected[own]
        moved = step[:, None, None] * direction[own]
        trial = self._point[own] + moved
        sums = ask(trial)
        rise = self._objective(sums, trial) - before + step * expected  # above what the slope promises
        fell = rise <= (1 - _FALL) * step * expected + _ROUNDING * before
        shorter = step * xp.clip(step * expected / (2 * xp.clip(rise, 1e-30, None)), 0.1, 0.5)
        self._step[own] = self._arrays.single(xp.where(fell, 1 + 0 * step, shorter))
        down = np.flatnonzero(self._arrays.get(fell))
        rows, down = left[down], self._arrays.put(down)
        self._memory.remember(rows, moved[down], self._gradient(sums, trial)[down] - gradient[self._arrays.put(rows)])
        rows = self._arrays.put(rows)
        self._point[rows] = trial[down]
        self._sums.put(rows, sums.of(down))

"""The rest of the way for support vector machines that take L-BFGS long: Newton's method on the support vectors.

Where C is large few rows lie inside the margin, and the objective is a parabola as long as they stay the same. Its
minimum is the solution of one linear system of their size (Mangasarian 2002, "A finite Newton method for
classification"; Keerthi and DeCoste 2005, "A modified finite Newton method for fast solution of large scale linear
SVMs"); after some such steps they do stay the same, and the minimum is exact.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from bottleneck.heads.solver import Material, Problems, Solution, signs

MOST_ROWS = 8000  # whose products take 256 MB
_STEPS = 50
_HALVINGS = 20
_NEAR = 1e-4  # of the objective, that may be left where rounding forbids any further step

Exact = NDArray[np.float64]


def finish(material: Material, problems: Problems, found: Solution, *, tolerance: float) -> None:
    """Solve the problems that have not ended, of `bottleneck.heads.losses.SquaredHinge`, into `found`.

    Each begins where the same problem with the next smaller C has ended: rows leave the margin as C grows.

    Parameters
    ----------
    material : Material
        Its table is in memory, of at most `MOST_ROWS` rows.
    problems : Problems
    found : Solution
    tolerance : float
        A problem has ended when less than this part of its objective is left to gain.
    """
    cores = os.cpu_count() or 1
    for fold in np.unique(problems.fold[~found.ended]).tolist():
        known, features = _rows(material, fold)
        products = features @ features.T
        products += 1  # the bias is a weight of a feature that is 1
        path = partial(_follow, material, problems, found, fold, known, features, products, tolerance)
        own = problems.output[(problems.fold == fold) & ~found.ended]
        with threadpool_limits(1), ThreadPoolExecutor(cores) as pool:
            list(pool.map(path, np.unique(own).tolist()))


def _rows(material: Material, fold: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the rows that a fold is trained on, and their features as it scales them."""
    known = np.flatnonzero(material.weights[:, fold])
    features = material.table.take(known)
    if material.shift is not None and material.gain is not None:
        features = (features - material.shift[fold]) * material.gain[fold]
    return known, features


def _follow(
    material: Material,
    problems: Problems,
    found: Solution,
    fold: int,
    known: NDArray[np.intp],
    features: NDArray[np.float32],
    products: NDArray[np.float32],
    tolerance: float,
    output: int,
) -> None:
    """Solve the problems of one fold and one class that have not ended, by rising C."""
    sign = signs(material.codes[known], np.array([output]))[:, 0].astype(np.float64)
    weights = material.weights[known, fold].astype(np.float64)
    own = np.flatnonzero((problems.fold == fold) & (problems.output == output))
    start = np.zeros(features.shape[1] + 1)  # there all rows are inside the margin
    for row in own[np.argsort(problems.C[own])]:
        if not found.ended[row]:
            machine = _Machine(features, products, sign, problems.C[row] * weights)
            found.theta[row, 0], found.objective[row], found.ended[row] = machine.solved(start, tolerance)
        start = found.theta[row, 0].astype(np.float64)


@dataclass
class _Machine:
    """One problem: ``|w|^2 / 2 + sum of c_i max(0, 1 - y_i f_i)^2`` with ``f = X w``, the bias among the weights."""

    features: NDArray[np.float32]  # (n, d)
    products: NDArray[np.float32]  # (n, n)
    sign: Exact  # y, (n,)
    strength: Exact  # c, (n,)

    def solved(self, start: Exact, tolerance: float) -> tuple[Exact, float, bool]:
        """Return the weights ``(d + 1,)``, the bias last, the objective, and whether it is the least there is."""
        scores: Exact = (self.features @ start[:-1].astype(np.float32)).astype(np.float64) + start[-1]
        kept, shares = 1.0, np.zeros(len(scores))  # the weights are kept * start + sum of shares_i x_i
        size = float(start @ start)
        value, ended = self._value(scores, size), False
        for _ in range(_STEPS):
            inside = np.flatnonzero(self.sign * scores < 1)
            share = self._minimum(inside)
            aim = (self.products[:, inside] @ share.astype(np.float32)).astype(np.float64)
            along, other = float(share @ scores[inside]), float(share @ aim[inside])
            left = self._left(inside, scores - aim, size - 2 * along + other)
            part = self._part(scores, aim, size, along, other, value)
            ended = left <= (tolerance if part else _NEAR) * value
            if ended or not part:
                break
            kept *= 1 - part
            shares *= 1 - part
            shares[inside] += part * share
            scores += part * (aim - scores)
            size = (1 - part) ** 2 * size + 2 * part * (1 - part) * along + part**2 * other
            value = self._value(scores, size)
        weight = kept * start
        weight[:-1] += shares.astype(np.float32) @ self.features
        weight[-1] += shares.sum()
        return weight, value, ended

    def _minimum(self, inside: NDArray[np.intp]) -> Exact:
        """Return a with ``w = sum of a_i x_i``, the minimum if the rows `inside` the margin were to stay there."""
        system = self.products[np.ix_(inside, inside)].astype(np.float64)
        system[np.diag_indices(len(inside))] += 1 / (2 * self.strength[inside])
        return np.asarray(np.linalg.solve(system, self.sign[inside]), np.float64)

    def _left(self, inside: NDArray[np.intp], away: Exact, distance: float) -> float:
        """Return by how much the objective would fall to the minimum, if the same rows were to stay inside."""
        return max(0.0, distance / 2 + float(self.strength[inside] @ np.square(away[inside])))

    def _value(self, scores: Exact, size: float) -> float:
        return float(self.strength @ np.square(np.maximum(0, 1 - self.sign * scores))) + size / 2

    def _part(self, scores: Exact, aim: Exact, size: float, along: float, other: float, value: float) -> float:
        """Return how much of the way to the aim makes the objective smaller: all, a half, ..., or 0 for none."""
        part = 1.0
        for _ in range(_HALVINGS):
            there = (1 - part) ** 2 * size + 2 * part * (1 - part) * along + part**2 * other
            if self._value(scores + part * (aim - scores), there) < value:
                return part
            part /= 2
        return 0.0

"""Directions in which features of images differ: most at all, and most relative to differences within a class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.neighbours import unit_rows

_DISCRIMINANTS = 32
_ROWS = 2000  # from which principal directions are computed
_PASSES = 4
_NEGLIGIBLE = 1e-6  # part of the largest variance

Features = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True)
class Discriminant:
    """A linear map to the directions in which rows differ most, relative to their differences within a class.

    Parameters
    ----------
    centre : ndarray of float32, shape (r,)
    directions : ndarray of float32, shape (r, q)
        q is 0 if there is no class with two different rows.

    Notes
    -----
    Differences within a class have the covariance S, shrunk towards a multiple of the identity (Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", 2004). The directions are the first
    principal directions after a multiplication by the inverse square root of S, as in linear discriminant analysis;
    unlike there, q is not limited by the number of classes, because the direction of a new class is unknown.
    """

    centre: NDArray[np.float32]
    directions: Features

    @property
    def count(self) -> int:
        """The number of directions."""
        return int(self.directions.shape[1])

    def __call__(self, rows: Features) -> Features:
        """Return rows ``(n, r)`` in these directions, ``(n, q)``, of length 1."""
        return unit_rows(((rows - self.centre) @ self.directions).astype(np.float32, copy=False))

    @classmethod
    def none(cls, dim: int) -> "Discriminant":
        """Return a map without directions."""
        return cls(np.zeros(dim, np.float32), np.zeros((dim, 0), np.float32))

    @classmethod
    def of(cls, rows: Features, codes: NDArray[np.intp], most: int = _DISCRIMINANTS) -> "Discriminant":
        """Fit the directions to rows ``(n, r)`` of classes ``(n,)``."""
        exact = rows.astype(np.float64)
        within = _shrunk_covariance(exact - _class_means(exact, codes))
        if within is None:
            return cls.none(rows.shape[1])
        variances, axes = np.linalg.eigh(within)
        whitening = axes / np.sqrt(variances)
        centre = exact.mean(axis=0)
        white = (exact - centre) @ whitening
        _, principal = np.linalg.eigh(white.T @ white)
        directions = whitening @ principal[:, ::-1][:, :most]
        return cls(centre.astype(np.float32), directions.astype(np.float32))


def principal_directions(rows: Features, count: int) -> Features:
    """Return the first directions ``(d, r)``, orthonormal, of the second moments of rows ``(n, d)``.

    There are at most `count`, and fewer if the rows span fewer dimensions; but at least one. They are computed from at
    most 2,000 evenly spaced rows, by orthogonal iteration from a fixed random start (Halko, Martinsson and Tropp,
    "Finding structure with randomness", 2011).
    """
    some = rows[:: -(-len(rows) // _ROWS)]
    count = min(count, *some.shape)
    basis = np.random.default_rng(0).standard_normal((some.shape[1], count)).astype(np.float32)
    for _ in range(_PASSES):
        basis = np.linalg.qr(some.T @ (some @ basis))[0]
    inside = (some @ basis).astype(np.float64)
    variances, axes = np.linalg.eigh(inside.T @ inside)
    kept = variances > _NEGLIGIBLE * variances[-1]
    kept[-1] = True
    directions: Features = (basis @ axes[:, kept][:, ::-1]).astype(np.float32)
    return directions


def _class_means(rows: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the mean of the class of each row, ``(n, r)``."""
    counts = np.bincount(codes)
    sums = np.zeros((len(counts), rows.shape[1]))
    np.add.at(sums, codes, rows)
    means: NDArray[np.float64] = (sums / np.maximum(counts, 1)[:, None])[codes]
    return means


def _shrunk_covariance(rows: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the shrunk covariance of rows with mean 0; None if they do not vary."""
    n, dim = rows.shape
    covariance = rows.T @ rows / n
    scale = np.trace(covariance) / dim
    if not scale > np.finfo(np.float32).tiny:
        return None
    difference = np.square(covariance - scale * np.eye(dim)).sum()
    error = (np.square(np.square(rows).sum(axis=1)).sum() / n - np.square(covariance).sum()) / n
    share = min(1.0, max(0.0, error / difference)) if difference > 0 else 1.0
    share = max(share, _NEGLIGIBLE)  # a singular covariance would give infinite directions
    shrunk: NDArray[np.float64] = (1 - share) * covariance + share * scale * np.eye(dim)
    return shrunk

"""Flatten features: scale their leading principal components down, so that details decide how similar images are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.neighbours import unit_rows
from bottleneck.heads.threads import ordered_map, single_threaded_blas

_SAMPLE = 1000  # rows from which the components are computed
_MOST = 128  # components
_SHARE = 4  # at most a quarter of all components
_LEAST = 1e-6  # variance of a component, relative to the first
_BLOCK = 4096  # rows
Features = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True)
class Flattening:
    """A linear map that gives the leading principal components of features the variance of the last of them.

    Parameters
    ----------
    centre : ndarray of float32, shape (d,)
    components : ndarray of float32, shape (d, r)
        Of length 1.
    reduction : ndarray of float32, shape (r,)
        The share of each component that is removed, from 0 to 1.

    Notes
    -----
    The leading components of a set of images are what many of them share, such as the class or the background. Without
    them, the cosine similarity of different images is close to 0, and that of edited copies remains high. This is
    whitening that keeps the small components, whose variance is mostly noise, as they are (A. Kessy, A. Lewin and K.
    Strimmer 2018, "Optimal whitening and decorrelation", The American Statistician 72, 309-314). r is at most 128, and
    a quarter of the rank: with more, the components of a small set are the images themselves.
    """

    centre: NDArray[np.float32]
    components: Features
    reduction: NDArray[np.float32]

    @classmethod
    def of(cls, *parts: Features) -> "Flattening":
        """Compute the components of up to 1,000 evenly spaced rows of one or more arrays ``(n, d)``.

        All images that are compared must be among the rows from which these are drawn: the components of a small set
        fit its own images better than others, which would seem to be more similar than they are.
        """
        d = parts[0].shape[1]
        rows = _spread_rows(parts).astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        centre = rows.sum(axis=0) / max(1, len(rows))
        rows -= centre
        wide = len(rows) < d
        with single_threaded_blas():
            variances, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
            variances, vectors = variances[::-1], vectors[:, ::-1]
            rank = int((variances > _LEAST * variances[:1]).sum())
            r = min(_MOST, rank // _SHARE)
            variances, vectors = variances[:r], vectors[:, :r]
            components = rows.T @ (vectors / np.sqrt(variances)) if wide else vectors
        reduction = 1 - np.sqrt(variances[-1:] / variances)
        return cls(centre.astype(np.float32), components.astype(np.float32), reduction.astype(np.float32))

    def unit_rows(self, features: Features) -> Features:
        """Return flattened features ``(n, d)`` of length 1; 0 for a row at the centre, or with NaN or infinity."""
        found = np.empty(features.shape, np.float32)

        def flatten(start: int) -> None:
            rows = self._directions(features[start : start + _BLOCK])
            rows -= (rows @ self.components * self.reduction) @ self.components.T
            found[start : start + _BLOCK] = unit_rows(rows)

        with single_threaded_blas() as cores:
            for _ in ordered_map(flatten, range(0, len(features), _BLOCK), cores):
                pass
        return found

    def _directions(self, features: Features) -> Features:
        """Return the features minus the centre, each row divided by its largest number, so that squares are finite."""
        finite = np.isfinite(features).all(axis=1, keepdims=True)
        rows: Features = np.where(finite, features, self.centre)
        rows = rows * np.float32(0.5) - self.centre * np.float32(0.5)  # halves cannot overflow
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
        size = np.abs(self.centre).max(initial=0)
        rows[largest[:, 0] <= _LEAST * size] = 0  # rounding is no direction
        rows /= np.where(largest, largest, 1)
        return rows


def _spread_rows(parts: Sequence[Features]) -> Features:
    ends = np.cumsum([len(part) for part in parts])
    places = spread(int(ends[-1]), _SAMPLE)
    starts = (0, *ends[:-1].tolist())
    own = [places[(places >= start) & (places < end)] - start for start, end in zip(starts, ends, strict=True)]
    return np.concatenate([part[rows] for part, rows in zip(parts, own, strict=True)])


def spread(count: int, most: int) -> NDArray[np.intp]:
    """Return up to `most` of `count` rows, evenly spaced."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.intp)

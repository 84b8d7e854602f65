"""Nearest-neighbour heads, which store their training rows."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.features import Features
from bottleneck.heads.head import Head

_CELLS = 4 << 20  # distances, or votes, in memory at once


@dataclass(frozen=True, kw_only=True, repr=False)
class NeighbourHead(Head):
    """A classifier by vote of the nearest training rows.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Scaled training rows.
    codes : ndarray of int64, shape (n,)
        Their classes.
    neighbours : float
        Number of neighbours, a whole number.
    **common
        See `Head`.
    """

    rows: NDArray[np.float32]
    codes: NDArray[np.int64]
    neighbours: float

    form: ClassVar[str] = "neighbours"
    tensors: ClassVar[tuple[str, ...]] = ("rows", "codes", "mean", "scale")
    kinds: ClassVar[dict[str, str]] = {"codes": "int64"}
    numbers: ClassVar[tuple[str, ...]] = ("neighbours",)

    def shapes(self, count: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Return the expected shapes of the tensors."""
        n = len(self.codes)
        if not 1 <= self.neighbours <= n or self.neighbours % 1:
            raise HeadError(f"expected a number of neighbours from 1 to {n}, got {self.neighbours}")
        if ((self.codes < 0) | (self.codes >= count)).any():
            raise HeadError(f"expected classes from 0 to {count - 1}")
        return {"rows": (n, dim), "codes": (n,)}

    def decide(self, scaled: Features) -> NDArray[np.float64]:
        """Return the vote share of each class ``(n, k)`` for scaled features."""
        shares = np.empty((len(scaled), len(self.classes)))
        step = max(1, _CELLS // max(len(self.rows), int(self.neighbours) * len(self.classes)))
        for start in range(0, len(scaled), step):
            part = slice(start, start + step)
            nearest = nearest_rows(scaled[part], self.rows, int(self.neighbours))
            shares[part] = votes(self.codes[nearest], (int(self.neighbours),), len(self.classes))[0]
        return shares


def nearest_rows(features: Features, rows: Features, count: int) -> NDArray[np.intp]:
    """Return the `count` nearest of ``(m, d)`` rows for each of ``(n, d)`` features, nearest first, ``(n, count)``.

    Euclidean distances are computed relative to the mean of the rows, which avoids cancellation.
    """
    middle = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    features, rows = features - middle, rows - middle
    closeness = features @ rows.T
    closeness -= np.square(rows).sum(axis=1) / 2
    count = min(count, len(rows))
    few = np.sort(np.argpartition(-closeness, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(closeness, few, 1), axis=1, kind="stable")
    return np.take_along_axis(few, order, 1)


def votes(codes: NDArray[np.int64], numbers: tuple[int, ...], count: int) -> NDArray[np.float64]:
    """Return the vote shares ``(g, n, k)`` for g numbers of neighbours, from the sorted neighbours ``(n, m)``."""
    cast = np.cumsum(codes[:, :, None] == np.arange(count), axis=1)
    return np.stack([cast[:, min(number, codes.shape[1]) - 1] / min(number, codes.shape[1]) for number in numbers])

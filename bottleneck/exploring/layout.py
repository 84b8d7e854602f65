"""Where each image lies on a map, and the order of the images along a curve that visits near ones together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BITS = 16  # of each coordinate along the curve

Points = NDArray[np.float32]  # (n, 2)


@dataclass(frozen=True)
class Layout:
    """The positions of n images on one map.

    Parameters
    ----------
    points : ndarray of float32, shape (n, 2)
        Between 0 and 1; both axes have the same scale.
    order : ndarray of uint32, shape (n,)
        The rows along a Hilbert curve.
    """

    points: Points
    order: NDArray[np.uint32]

    @classmethod
    def of(cls, points: NDArray[np.floating]) -> "Layout":
        """Return the layout of points ``(n, 2)`` of any scale."""
        scaled = fitted(points)
        return cls(scaled, np.argsort(hilbert(scaled), kind="stable").astype(np.uint32))

    def to_bytes(self) -> bytes:
        """Return x and y as float32 and the order as uint32, little-endian."""
        points, order = self.points.T.astype("<f4"), self.order.astype("<u4")
        return b"".join([points.tobytes(), order.tobytes()])


def fitted(points: NDArray[np.floating]) -> Points:
    """Return points scaled into the unit square and centred there; the aspect ratio is kept."""
    if not len(points):
        return np.zeros((0, 2), np.float32)
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    size = float((high - low).max()) or 1.0
    scaled: Points = (0.5 + (points - (low + high) / 2) / size).clip(0, 1).astype(np.float32)
    return scaled


def hilbert(points: Points) -> NDArray[np.uint64]:
    """Return the place of points in the unit square, ``(n,)``, along a Hilbert curve of 65,536 x 65,536 cells.

    Notes
    -----
    The usual conversion, from the highest bit to the lowest: a quadrant decides two bits of the place, and the square
    is then turned so that the curve in that quadrant begins where it has to.
    """
    cells = (points.astype(np.float64) * ((1 << _BITS) - 1)).astype(np.int64)
    x, y = cells[:, 0].copy(), cells[:, 1].copy()
    place = np.zeros(len(points), np.uint64)
    side = 1 << (_BITS - 1)
    while side:
        right, upper = (x & side) > 0, (y & side) > 0
        place += np.uint64(side * side) * ((3 * right) ^ upper).astype(np.uint64)
        mirrored = ~upper & right
        x, y = np.where(mirrored, side - 1 - x, x), np.where(mirrored, side - 1 - y, y)
        x, y = np.where(upper, x, y), np.where(upper, y, x)
        side >>= 1
    return place

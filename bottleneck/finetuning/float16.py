"""Whether float16 holds activations, or loses a part of what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NOISE = 0.01  # of its spread: how far rounding may change a channel. Rounding normal numbers changes it by some 1e-3
_EXACT = 2.0**-10  # of its size: twice what rounding changes a number by, unless it is too small for float16
_CONSTANT = 1e-6  # of its size: a channel that spreads less is constant, but for the rounding of float32
_ROWS = 16  # of a batch that are looked at; all are looked at for numbers that are too large

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """How the activations of a sample of the images are spread, channel by channel.

    Which end of the shape the channels are at depends on the network, so both are looked at.

    Parameters
    ----------
    shape : tuple of int
        Of the activations of one image.
    means, spreads : tuple of ndarray of float64
        Of each slice along each of these axes.
    wide : bool
        Whether float16 loses a part of the sample, so that all is stored as float32.
    """

    shape: tuple[int, ...]
    means: tuple[Floats, ...] = ()
    spreads: tuple[Floats, ...] = ()
    wide: bool = False

    @classmethod
    def of(cls, values: NDArray[np.float32], shape: Sequence[int]) -> "Measured":
        """Measure the activations ``(n, size)`` of a sample; of none float16 is taken to hold them."""
        shape = tuple(shape)
        if not len(values) or not np.isfinite(values).all():
            return cls(shape)
        moments = [_moments(values, shape, axis) for axis in _axes(shape)]
        means = tuple(mean for mean, _ in moments)
        spreads = tuple(np.sqrt(np.maximum(square - mean**2, 0)) for mean, square in moments)
        found = cls(shape, means, spreads)
        return cls(shape, means, spreads, wide=found._loses(values, _rounded(values)))

    @property
    def width(self) -> int:
        """Bytes that a number takes."""
        return 4 if self.wide else 2

    def stored(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return activations ``(n, size)`` as they are to be stored: float16 where that holds them, else float32."""
        if self.wide:
            return values
        halves = _rounded(values)
        some = slice(None, None, max(1, len(values) // _ROWS))
        if not np.isfinite(halves).all() or self._loses(values[some], halves[some]):
            return values
        return halves

    def _loses(self, values: NDArray[np.float32], halves: NDArray[np.float16]) -> bool:
        if not np.isfinite(halves).all():
            return bool(np.isfinite(values).all())
        errors = values - halves
        for axis, mean, spread in zip(_axes(self.shape), self.means, self.spreads, strict=False):
            own, square = _moments(values, self.shape, axis)
            size = np.sqrt(square)
            away = np.sqrt(np.maximum(square - 2 * mean * own + mean**2, 0))
            spread = np.maximum(spread, away)
            most = np.where(spread > _CONSTANT * size, _NOISE * spread, _EXACT * size)
            if (np.sqrt(_moments(errors, self.shape, axis)[1]) > most).any():
                return True
        return False


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return where channels may be: before the positions, or behind them."""
    return (0,) if len(shape) < 2 else (0, len(shape) - 1)


def _moments(values: NDArray[np.float32], shape: tuple[int, ...], axis: int) -> tuple[Floats, Floats]:
    """Return the mean, and the mean square, of each slice of ``(n, size)`` along an axis of the shape."""
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    parts = values.reshape(len(values), before, shape[axis], after)
    count = len(values) * before * after
    total = np.einsum("nbka->k", parts, dtype=np.float64)
    squares = np.einsum("nbka,nbka->k", parts, parts, dtype=np.float64)
    return total / count, squares / count

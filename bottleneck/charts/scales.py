"""Scales: from numbers to positions, linear or logarithmic, with ticks at round numbers."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from bottleneck.charts.numbers import percent, plain, power_of_ten

_LARGEST, _SMALLEST = 1e100, 1e-100  # numbers beyond cannot be drawn; differences of them would overflow
_PADDING = 0.04  # of a logarithmic axis, at both ends
_DECADES = 2.2  # a longer logarithmic axis has its ticks at powers of ten
_SAME = 1e-9  # a smaller relative range counts as one number


def is_drawable(value: float | None, *, log: bool = False) -> bool:
    """Return whether a number has a place on an axis."""
    if value is None or not abs(value) < _LARGEST:  # also NaN
        return False
    return value > _SMALLEST if log else True


@dataclass(frozen=True)
class Scale:
    """A function from numbers to positions.

    Parameters
    ----------
    low, high : float
        The numbers at both ends; low < high.
    start, end : float
        Their positions.
    log : bool
        Whether equal ratios have equal distances.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a number; one beyond an end is placed at that end."""
        low, high, value = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return round numbers from low to high, at most about so many."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)

    def texts(self, ticks: list[float], *, as_percent: bool = False) -> list[str]:
        """Return the ticks as text, all with the same number of decimals on a linear axis."""
        if self.log and not as_percent:
            return [power_of_ten(tick) if tick < 1e-3 else plain(tick) for tick in ticks]
        factor = 100 if as_percent else 1
        alone = 1.0 if ticks and ticks[0] == round(ticks[0]) else (self.high - self.low) / 2
        step = min((b - a for a, b in pairwise(ticks)), default=alone)
        decimals = min(12, max(0, -math.floor(math.log10(step * factor) + _SAME)))
        write: Callable[[float, int], str] = percent if as_percent else plain
        return [write(tick, decimals) for tick in ticks]


def scale_of(
    values: Iterable[float | None],
    start: float,
    end: float,
    *,
    log: bool = False,
    is_round: bool = False,
    within: tuple[float, float] = (-_LARGEST, _LARGEST),
) -> Scale:
    """Return the scale of an axis that shows all values that can be drawn.

    Parameters
    ----------
    values : iterable of float or None
    start, end : float
        Positions of the ends.
    log : bool
    is_round : bool
        Whether a linear axis ends at round numbers.
    within : (float, float)
        The axis does not extend beyond these numbers. Values outside are placed at its ends.
    """
    usable = [
        min(max(value, within[0]), within[1]) for value in values if value is not None and is_drawable(value, log=log)
    ]
    low, high = (min(usable), max(usable)) if usable else (1.0, 10.0) if log else (0.0, 1.0)
    if log:
        low, high = (low / 2, high * 2) if high / low < 1 + _SAME else (low, high)
        padding = (high / low) ** _PADDING
        return Scale(low / padding, high * padding, start, end, log=True)
    if high - low <= _SAME * max(abs(low), abs(high)):
        room = 0.05 * abs(high) or 0.5
        low, high = max(low - room, within[0]), min(high + room, within[1])
    if is_round:
        step = _step(high - low, 5)
        low = max(math.floor(low / step + _SAME) * step, within[0])
        high = min(math.ceil(high / step - _SAME) * step, within[1])
    return Scale(low, high, start, end)


def _step(span: float, most: int) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten that divides a span into at most so many steps."""
    least = span / max(most, 1)
    power = 10.0 ** math.floor(math.log10(least))
    return next(times * power for times in (1, 2, 5, 10, 20) if times * power >= least * (1 - _SAME))


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    step = _step(high - low, most)
    first, last = math.ceil(low / step - _SAME), math.floor(high / step + _SAME)
    return [round(place * step, 12) if abs(step) > 1e-9 else place * step for place in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low) - _SAME), math.floor(math.log10(high) + _SAME)
    if math.log10(high / low) > _DECADES:
        every = math.ceil((last - first + 1) / max(most, 1))
        return [10.0**exponent for exponent in range(first, last + 1, every)]
    ticks = [times * 10.0**exponent for exponent in range(first - 1, last + 1) for times in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick * (1 + _SAME) and tick <= high * (1 + _SAME)]
    return inside if len(inside) > 1 else _linear_ticks(low, high, most)

"""Option types for finite numbers in a range."""

import math
from typing import Any

import click

LARGEST = 1e30  # leaves room for products in float32
_LARGEST_WHOLE = 2**63 - 1


class RealNumber(click.FloatRange):
    """A finite number in a range, whose default upper bound is that of float32.

    `click.FloatRange` accepts ``nan``, because no comparison with a bound rejects it.
    """

    def __init__(self, min: float | None = None, max: float = LARGEST, **bounds: bool) -> None:
        super().__init__(min, max, **bounds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            finite = math.isfinite(float(value))
        except (ValueError, OverflowError):
            finite = True  # reported below
        if not finite:
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        """Omit the default upper bound from the help."""
        if self.max != LARGEST:
            return super()._describe_range()
        return f"x{'>' if self.min_open else '>='}{self.min}"


class WholeNumber(click.IntRange):
    """A whole number in a range, whose default upper bound is that of 64 bits."""

    def __init__(self, min: int | None = None, max: int = _LARGEST_WHOLE) -> None:
        super().__init__(min, max)

    def _describe_range(self) -> str:
        """Omit the default upper bound from the help."""
        return super()._describe_range() if self.max != _LARGEST_WHOLE else f"x>={self.min}"

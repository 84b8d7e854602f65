"""The types of options that are numbers: finite, and in a range."""

import math
from typing import Any

import click

LARGEST = 1e30  # float32 has it, and products of it with what is usual
_LARGEST_WHOLE = 2**63 - 1


class RealNumber(click.FloatRange):
    """A finite number in a range; above, as far as float32 goes where nothing else is said.

    click's own takes ``nan``, which every comparison with a bound lets through.
    """

    def __init__(self, min: float | None = None, max: float = LARGEST, **bounds: bool) -> None:
        super().__init__(min, max, **bounds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        try:
            finite = math.isfinite(float(value))
        except (ValueError, OverflowError):
            finite = True  # what it is instead is said below
        if not finite:
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return super().convert(value, param, ctx)

    def _describe_range(self) -> str:
        """Leave out of the help a bound that is only there to be finite."""
        if self.max != LARGEST:
            return super()._describe_range()
        return f"x{'>' if self.min_open else '>='}{self.min}"


class WholeNumber(click.IntRange):
    """A whole number in a range; above, as far as 64 bits go where nothing else is said."""

    def __init__(self, min: int | None = None, max: int = _LARGEST_WHOLE) -> None:
        super().__init__(min, max)

    def _describe_range(self) -> str:
        """Leave out of the help a bound that is only there to be finite."""
        return super()._describe_range() if self.max != _LARGEST_WHOLE else f"x>={self.min}"

"""Check the arguments of public functions, and convert them to plain Python values."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NoReturn, TypeVar

from bottleneck.errors import BottleneckError

T = TypeVar("T")
_MOST = 1e30  # float32 can represent it, and its products with usual values


class Arguments:
    """Converts arguments to plain Python values, or raises an error that says what is wrong with them.

    Scalars of NumPy and pandas, and arrays without dimensions, are accepted like Python's own. True is not a number,
    3.0 is an integer, and NaN is refused.

    Parameters
    ----------
    error : type
        The error to raise.

    Examples
    --------
    >>> from bottleneck.errors import HeadError
    >>> Arguments(HeadError).whole("folds", 5.0, least=2)
    5
    """

    def __init__(self, error: type[BottleneckError]) -> None:
        self._error = error

    def whole(self, name: str, value: Any, *, least: int | None = 0, most: int | None = None) -> int:
        """Return an integer between two bounds, inclusive."""
        bounds = "" if least is None else f"{least} or more" if most is None else f"from {least} to {most}"
        number = _number(value)
        if number is None or number != number // 1:
            self._refuse(name, f"an integer{', ' if bounds else ''}{bounds}", value)
        if (least is not None and number < least) or (most is not None and number > most):
            self._refuse(name, bounds, value)
        return int(number)

    def number(
        self, name: str, value: Any, *, above: float | None = None, least: float = 0.0, below: float = float("inf")
    ) -> float:
        """Return a finite number of at least `least`, or above `above`, and below `below`; never above 1e30."""
        bounds = f"above {above:g}" if above is not None else f"{least:g} or more"
        if below < float("inf"):
            bounds = f"between {above:g} and {below:g}" if above is not None else f"from {least:g} to below {below:g}"
        number = _number(value)
        if number is None:
            self._refuse(name, f"{bounds}, and finite" if _is_number(value) else f"a number, {bounds}", value)
        if not (number >= least if above is None else number > above) or not number < below:
            self._refuse(name, bounds, value)
        if number > _MOST:
            self._refuse(name, f"at most {_MOST:g}", value)
        return float(number)

    def flag(self, name: str, value: Any) -> bool:
        """Return True or False; 0 and 1 are accepted."""
        found = plain(value)
        if not isinstance(found, int) or found not in (0, 1):
            self._refuse(name, "True or False", value)
        return bool(found)

    def text(self, name: str, value: Any) -> str:
        """Return a text."""
        found = plain(value)
        if not isinstance(found, str):
            self._refuse(name, "a string", value)
        return str(found)

    def path(self, name: str, value: Any) -> str:
        """Return a path as text."""
        found = plain(value)
        if not isinstance(found, str | os.PathLike) or not isinstance(text := os.fspath(found), str):
            self._refuse(name, "a path", value)
        return str(text)

    def numbers(self, name: str, value: Any, *, above: float = 0.0) -> tuple[float, ...]:
        """Return one number or several as a tuple."""
        return self._several(name, value, lambda one: self.number(name, one, above=above))

    def texts(self, name: str, value: Any) -> tuple[str, ...]:
        """Return one text or several as a tuple."""
        return self._several(name, value, lambda one: self.text(name, one))

    def paths(self, name: str, value: Any) -> tuple[str, ...]:
        """Return one path or several as a tuple of texts."""
        return self._several(name, value, lambda one: self.path(name, one))

    def optional(self, check: Callable[..., T], name: str, value: Any, **bounds: Any) -> T | None:
        """Return None, or the result of another check."""
        return None if value is None else check(name, value, **bounds)

    def _several(self, name: str, value: Any, check: Callable[[Any], T]) -> tuple[T, ...]:
        found = plain(value)
        if isinstance(found, str | bytes) or not isinstance(found, Iterable):
            return (check(found),)
        if isinstance(found, Mapping) or getattr(found, "ndim", 1) != 1:
            self._refuse(name, "one value or a list of them", value)
        return tuple(check(one) for one in found)

    def _refuse(self, name: str, wanted: str, value: Any) -> NoReturn:
        raise self._error(f"expected {name} to be {wanted}, got {abbreviated(value)}")


def abbreviated(value: Any, most: int = 60) -> str:
    """Return the repr of a value for a message: one line, abbreviated."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plain(value: Any) -> Any:
    """Convert a NumPy scalar, or an array or tensor without dimensions, to a Python value."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    return value


def _number(value: Any) -> Any:
    """Return a finite number; None for anything else."""
    found = plain(value)
    if not _is_number(found):
        return None
    try:
        return found if math.isfinite(float(found)) else None
    except OverflowError:  # an integer of more than 300 digits
        return None


def _is_number(value: Any) -> bool:
    found = plain(value)
    return isinstance(found, Real) and not isinstance(found, bool)

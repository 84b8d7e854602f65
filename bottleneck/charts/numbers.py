"""Numbers as short text, for axes, marks and tables."""

import math

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LARGEST_SHARE = 100.0
_LARGE, _SMALL = 1e7, 1e-3  # outside, a number is written as a power of ten


def percent(value: float, decimals: int = 1) -> str:
    """Return a share as a percentage: ``95.1%``."""
    if abs(value) > _LARGEST_SHARE:
        return f"{plain(100 * value)}%"
    return _signed(f"{100 * value:.{decimals}f}%")


def written(value: float, as_percent: bool) -> str:
    """Return a number as text; as a percentage if it is a share."""
    return percent(value) if as_percent else plain(value)


def plain(value: float, decimals: int | None = None) -> str:
    """Return a number with thousands separators; very large and very small ones as powers of ten.

    Parameters
    ----------
    value : float
    decimals : int, optional
        By default as many as three significant digits need.
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞" if value < 0 else "–"
    if not _SMALL <= abs(value) < _LARGE:
        return power_of_ten(value)
    if decimals is None:
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return _signed(text.rstrip("0").rstrip(".") if "." in text else text)
    return _signed(f"{value:,.{decimals}f}")


def power_of_ten(value: float) -> str:
    """Return a number other than 0 as ``3×10⁻⁵``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    digits = mantissa.removesuffix(".0")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return _signed(power if digits == "1" else f"{digits}×{power}")


def _signed(text: str) -> str:
    return text.replace("-", "−")

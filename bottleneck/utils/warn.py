"""Warn the caller of this package."""

import sys
import warnings

from bottleneck.errors import BottleneckWarning

_INSIDE = (__name__.partition(".")[0], "contextlib")  # the latter where a context manager decorates a function


def warn(message: str) -> None:
    """Issue a `BottleneckWarning` that points to the line outside of this package that called it, at any depth."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, BottleneckWarning, stacklevel=level)

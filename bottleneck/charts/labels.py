"""Text in charts: its approximate width, names that are too long, and names that are written from right to left."""

import unicodedata

from bottleneck.charts.markup import ISOLATES
from bottleneck.errors import printable

SIZE = 13.0  # of text, in the units of a chart
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[] "), frozenset("mwMW@%")
_BOLD = 1.1  # times as wide


def width_of(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """Return the approximate width of a text, in the units of `size`: that of a wide font, as metrics are unknown."""
    return size * sum(_ems(char) for char in text) * (_BOLD if bold else 1)


def shortened(text: str, most: float, size: float = SIZE) -> str:
    """Return a printable text of at most a width, without its middle if it is too long."""
    text = printable(text)
    if width_of(text, size) <= most:
        return text
    room = most - width_of("…", size)
    head, tail = _fitting(text, room * 0.6, size), _fitting(text[::-1], room * 0.4, size)[::-1]
    while tail and unicodedata.combining(tail[0]):
        tail = tail[1:]
    return f"{head}…{tail}"


def isolated(name: str) -> str:
    """Return a printable name that can be put into a sentence, whatever the direction of its script."""
    name = printable(name)
    if name.isascii() or not any(unicodedata.bidirectional(char) in _RIGHT_TO_LEFT for char in name):
        return name
    return name.join(ISOLATES)


def _ems(char: str) -> float:
    if char.isascii():
        return 0.39 if char in _NARROW else 0.96 if char in _WIDE else 0.71 if char.isupper() else 0.64
    if unicodedata.combining(char):
        return 0
    return 1.05 if unicodedata.east_asian_width(char) in "WF" else 0.66


def _fitting(text: str, room: float, size: float) -> str:
    """Return the beginning of a text that fits."""
    for count, char in enumerate(text):
        room -= size * _ems(char)
        if room < 0:
            return text[:count]
    return text

"""Charts of one row for each thing: intervals (a forest plot), and bars."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bottleneck.charts.drawing import SMALL, WIDTH, drawing, label, nothing, rule
from bottleneck.charts.labels import isolated, width_of
from bottleneck.charts.markup import Markup, element
from bottleneck.charts.numbers import percent, plain
from bottleneck.charts.scales import Scale, is_drawable, scale_of
from bottleneck.charts.theme import colour, marker

Tone = Literal["strong", "plain", "muted"]

_ROW = 42.0  # height of a row: its text, and its interval below
_BASE, _BELOW = 16.0, 27.0  # heights of the text and of the interval in a row
_MARGIN = 10.0
_AXIS = 40.0
_INK: dict[Tone, str] = {"strong": colour(0), "plain": colour(0), "muted": colour(5)}
_CIRCLE, _DIAMOND = 0, 3  # series, of which the shapes are used


@dataclass(frozen=True, kw_only=True)
class ChartRow:
    """A row of a chart.

    Parameters
    ----------
    label : str
    estimate : float or None
    low, high : float or None
        The interval around the estimate.
    note : str
        A few words that follow the label.
    tone : str
        ``strong`` for the rows that matter most, ``muted`` for those that matter least.
    """

    label: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""
    tone: Tone = "plain"


def interval_chart(
    rows: Sequence[ChartRow],
    *,
    title: str,
    x_label: str,
    description: str | None = None,
    percent_x: bool = True,
    reference: float | None = None,
    width: float = WIDTH,
) -> Markup:
    """Return a forest plot: an estimate with its interval in each row.

    Parameters
    ----------
    rows : sequence of ChartRow
    title, x_label : str
    description : str, optional
        What the chart shows, in words; by default the first and the last row.
    percent_x : bool
        Whether numbers are shares, from 0 to 1, which are written as percentages.
    reference : float, optional
        A number that is marked in all rows, for example the best estimate.
    width : float
        Width in CSS pixels.

    Returns
    -------
    Markup
        An SVG element.
    """
    if not any(is_drawable(row.estimate) for row in rows):
        return nothing(title, width)
    values = [value for row in rows for value in (row.estimate, row.low, row.high)]
    within = (0.0, 1.0) if percent_x else (-1e100, 1e100)
    scale = scale_of([*values, reference], _MARGIN, width - _MARGIN, is_round=True, within=within)
    body = _body(rows, width, percent_x, lambda row, y: _interval(row, y, scale, percent_x))
    bottom = _ROW * len(rows) + 6
    lines = _axis(scale, bottom, x_label, width, percent_x)
    if reference is not None and is_drawable(reference):
        x = scale(reference)
        heights = [place * _ROW + _BELOW for place in range(len(rows))]
        lines += [rule(x, y - 9, x, y + 9, faint=False) for y in heights]
    words = description or _words(rows, percent_x)
    return drawing([*lines, *body], width=width, height=bottom + _AXIS, title=title, description=words)


def _body(
    rows: Iterable[ChartRow], width: float, as_percent: bool, shape: Callable[[ChartRow, float], list[Markup]]
) -> list[Markup]:
    """Return the text of each row, with its shape below."""
    parts = []
    for place, row in enumerate(rows):
        y = place * _ROW + _BASE
        value, bold = _value(row, as_percent), row.tone == "strong"
        wide = width_of(value, bold=bold)
        room = width - wide - 16
        note = width_of(row.note, SMALL) + 10 if row.note else 0.0
        parts.append(label(row.label, 0, y, bold=bold, most=max(room - note, room / 2)))
        parts.append(label(value, width, y, anchor="end", bold=bold))
        if row.note:
            parts.append(label(row.note, width - wide - 12, y, anchor="end", size=SMALL, quiet=True, most=room / 2))
        parts += shape(row, place * _ROW + _BELOW)
    return parts


def _interval(row: ChartRow, y: float, scale: Scale, as_percent: bool) -> list[Markup]:
    if row.estimate is None or not is_drawable(row.estimate):
        return []
    parts, ink = _grid(scale, y), _INK[row.tone]
    if row.low is not None and row.high is not None and is_drawable(row.low) and is_drawable(row.high):
        path = f"M{scale(row.low):.1f} {y:.1f}H{scale(row.high):.1f}"
        thick = 3 if row.tone == "strong" else 1.8
        parts.append(element("path", d=path, style=f"fill:none;stroke:{ink};stroke-width:{thick};stroke-linecap:round"))
    tooltip = element("title", f"{isolated(row.label)}: {_value(row, as_percent)}")
    shape = _DIAMOND if row.tone == "strong" else _CIRCLE
    return [*parts, marker(shape, scale(row.estimate), y, 5, tooltip, ink=ink)]


def _grid(scale: Scale, y: float) -> list[Markup]:
    """Return the grid of one row, which leaves out the text above."""
    return [rule(scale(tick), y - 7, scale(tick), y + 7) for tick in scale.ticks(6)]


def _axis(scale: Scale, bottom: float, name: str, width: float, as_percent: bool) -> list[Markup]:
    ticks = scale.ticks(6)
    parts = [rule(scale.start, bottom, scale.end, bottom, faint=False)]
    for tick, text in zip(ticks, scale.texts(ticks, as_percent=as_percent), strict=True):
        x, half = scale(tick), width_of(text, SMALL) / 2
        parts.append(rule(x, bottom, x, bottom + 4, faint=False))
        middle = min(max(x, half), width - half)
        parts.append(label(text, middle, bottom + 16, anchor="middle", size=SMALL, quiet=True))
    return [*parts, label(name, width, bottom + 34, anchor="end", size=SMALL, quiet=True, most=width)]


def _value(row: ChartRow, as_percent: bool) -> str:
    """Return ``95.1% (92.3 to 97.0)``."""
    if row.estimate is None or not is_drawable(row.estimate):
        return "–"
    write = percent if as_percent else plain
    if row.low is None or row.high is None or not (is_drawable(row.low) and is_drawable(row.high)):
        return write(row.estimate)
    return f"{write(row.estimate)} ({write(row.low).removesuffix('%')} to {write(row.high).removesuffix('%')})"


def _words(rows: Sequence[ChartRow], as_percent: bool) -> str:
    ends = [rows[0], rows[-1]] if len(rows) > 1 else rows
    return f"{len(rows)} rows, from " + " to ".join(f"{isolated(row.label)}: {_value(row, as_percent)}" for row in ends)

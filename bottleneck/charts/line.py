"""Line charts: series over a number, with bands of uncertainty and marked points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from bottleneck.charts.axes import Axes, AxisOptions, axes_of
from bottleneck.charts.drawing import FORECAST, SMALL, WIDTH, drawing, label, legend, nothing, rule, stroke
from bottleneck.charts.labels import isolated, width_of
from bottleneck.charts.markup import Markup, element, number
from bottleneck.charts.numbers import written
from bottleneck.charts.scales import is_drawable
from bottleneck.charts.theme import colour, marker

_MOST = 400  # points of a line; with more, only those are kept that can be told apart
_MARKED = 40  # points of a series with marks and tooltips, at most


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Parameters
    ----------
    name : str
    x, y : sequence of float or None
        In increasing order of x. A point that is None, NaN or infinite interrupts the line.
    low, high : sequence of float or None, optional
        The band around the line.
    forecast : bool
        Whether it was not measured; it is dashed, has outlines as marks, and the same colour as the series before it.
    """

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    forecast: bool = False


@dataclass(frozen=True)
class MarkedPoint:
    """A point of a chart that a text explains.

    Parameters
    ----------
    x, y : float
    text : str
    """

    x: float
    y: float
    text: str


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    description: str | None = None,
    log_x: bool = False,
    percent_x: bool = False,
    percent_y: bool = True,
    whole_x: bool = False,
    whole_y: bool = False,
    marks: Sequence[MarkedPoint] = (),
    diagonal: bool = False,
    width: float = WIDTH,
    height: float = 250.0,
) -> Markup:
    """Return a line chart.

    Parameters
    ----------
    series : sequence of Series
    title, x_label, y_label : str
    description : str, optional
        What the chart shows, in words; by default the first and the last point of each series.
    log_x : bool
        Whether the horizontal axis is logarithmic; points at 0 or below are left out.
    percent_x, percent_y : bool
        Whether numbers are shares, from 0 to 1, which are written as percentages.
    whole_x, whole_y : bool
        Whether an axis covers all shares, from 0 to 1.
    marks : sequence of MarkedPoint
    diagonal : bool
        Whether the line of equal x and y is drawn, which makes sense if both axes are whole.
    width, height : float
        Size in CSS pixels.

    Returns
    -------
    Markup
        An SVG element.
    """
    lines = [_Drawn.of(one, log_x) for one in series]
    if not any(line.points for line in lines):
        return nothing(title, width)
    styles = _styles(series)
    entries = [(one.name, style, one.forecast) for one, style in zip(series, styles, strict=True)]
    head, top = legend(entries, width) if len(series) > 1 else ([], 0.0)
    axes = axes_of(
        [x for line in lines for x, *_ in line.points] + [mark.x for mark in marks],
        [y for line in lines for point in line.points for y in point[1:]] + [mark.y for mark in marks],
        AxisOptions(name=x_label, log=log_x, as_percent=percent_x, whole=whole_x),
        AxisOptions(name=y_label, as_percent=percent_y, whole=whole_y),
        width=width,
        top=top,
        height=height,
    )
    parts = [*head, *axes.parts]
    if diagonal:
        parts.append(rule(axes.x(0), axes.y(0), axes.x(1), axes.y(1), faint=False, dashed=True))
    for line, place in zip(lines, styles, strict=True):
        parts += line.band(axes, place)
    for line, place in zip(lines, styles, strict=True):
        parts += line.markup(axes, place, _Texts(x_label, percent_x, percent_y, named=len(series) > 1))
    parts += [
        part
        for mark in marks
        if is_drawable(mark.x, log=log_x)
        for part in _marked(mark, axes, width - width_of(y_label, SMALL) - 24)
    ]
    words = description or "; ".join(line.words(percent_x, percent_y) for line in lines if line.points)
    return drawing(parts, width=width, height=top + height, title=title, description=words)


def _styles(series: Sequence[Series]) -> list[int]:
    """Return the style of each series; a forecast has that of the series before it."""
    places = list[int]()
    for one in series:
        places.append(places[-1] if one.forecast and places else len({*places}))
    return places


@dataclass(frozen=True)
class _Texts:
    x_label: str
    percent_x: bool
    percent_y: bool
    named: bool

    def of(self, name: str, x: float, y: float, low: float, high: float) -> str:
        value = written(y, self.percent_y)
        if low != high:
            value += f" ({written(low, self.percent_y)} to {written(high, self.percent_y)})"
        return f"{f'{isolated(name)}, ' if self.named else ''}{self.x_label} {written(x, self.percent_x)}: {value}"


@dataclass(frozen=True)
class _Drawn:
    """A series without the points that cannot be drawn, in pieces without gaps."""

    name: str
    pieces: list[list[tuple[float, float, float, float]]]  # x, y, low, high
    banded: bool
    forecast: bool

    @classmethod
    def of(cls, series: Series, log_x: bool) -> "_Drawn":
        pieces = groupby(_points(series, log_x), lambda point: point is not None)
        known = [_thinned([point for point in piece if point]) for is_known, piece in pieces if is_known]
        return cls(series.name, known, series.low is not None, series.forecast)

    @property
    def points(self) -> list[tuple[float, float, float, float]]:
        return [point for piece in self.pieces for point in piece]

    def band(self, axes: Axes, place: int) -> Iterator[Markup]:
        for piece in self.pieces if self.banded else ():
            upper = [f"{number(axes.x(x))} {number(axes.y(high))}" for x, _, _, high in piece]
            lower = [f"{number(axes.x(x))} {number(axes.y(low))}" for x, _, low, _ in reversed(piece)]
            yield element("path", d=f"M{'L'.join(upper + lower)}Z", style=f"fill:{colour(place)};fill-opacity:.16")

    def markup(self, axes: Axes, place: int, texts: _Texts) -> Iterator[Markup]:
        dashes = FORECAST if self.forecast else None
        for piece in self.pieces:
            path = "L".join(f"{number(axes.x(x))} {number(axes.y(y))}" for x, y, *_ in piece)
            yield stroke(f"M{path}", place, element("title", self.name), dashes=dashes)
        if len(self.points) <= _MARKED:
            for point in self.points:
                tooltip = element("title", texts.of(self.name, *point))
                yield marker(place, axes.x(point[0]), axes.y(point[1]), 3.4, tooltip, filled=not self.forecast)

    def words(self, percent_x: bool, percent_y: bool) -> str:
        (x, y, *_), (last_x, last_y, *_) = self.points[0], self.points[-1]
        words = f"{isolated(self.name)}: {written(y, percent_y)} at {written(x, percent_x)}"
        return (
            words if len(self.points) == 1 else f"{words}, {written(last_y, percent_y)} at {written(last_x, percent_x)}"
        )


def _points(series: Series, log_x: bool) -> Iterator[tuple[float, float, float, float] | None]:
    lows = series.y if series.low is None else series.low
    highs = series.y if series.high is None else series.high
    for x, y, low, high in zip(series.x, series.y, lows, highs, strict=True):
        if x is None or y is None or not is_drawable(x, log=log_x) or not is_drawable(y):
            yield None
        else:
            low = low if low is not None and is_drawable(low) else y
            high = high if high is not None and is_drawable(high) else y
            yield float(x), float(y), float(low), float(high)


def _thinned(points: list[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
    """Return so many points as can be told apart: of each group of neighbours the lowest and the highest, in order."""
    if len(points) <= _MOST:
        return points
    size = -(-len(points) // (_MOST // 2))
    kept = {0, len(points) - 1}
    for start in range(0, len(points), size):
        group = range(start, min(start + size, len(points)))
        kept |= {min(group, key=lambda i: points[i][1]), max(group, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _marked(mark: MarkedPoint, axes: Axes, most: float) -> list[Markup]:
    """Return a ring around a point, and its text beside it, or above the axes if it is too long."""
    x, y = axes.x(mark.x), axes.y(mark.y)
    ring = element("circle", element("title", mark.text), cx=x, cy=y, r=7, fill="none", stroke="currentColor")
    is_right = x > (axes.x.start + axes.x.end) / 2
    room = x - axes.x.start if is_right else axes.x.end - x
    if width_of(mark.text, SMALL) > room - 14:
        line = element(
            "path", d=f"M{x:.1f} {y - 7:.1f}V{axes.y.end - 8:.1f}", stroke="currentColor", stroke_opacity="0.5"
        )
        return [ring, line, label(mark.text, axes.x.end, axes.y.end - 14, anchor="end", size=SMALL, most=most)]
    above = y > axes.y.end + 24
    shift = -14 if above else 20
    side = -4 if is_right else 4
    return [ring, label(mark.text, x + side, y + shift, anchor="end" if is_right else None, size=SMALL, most=room)]

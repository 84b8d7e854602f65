"""Scatter plots of labelled points, with a line through those that no other point beats."""

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck.charts.axes import Axes, AxisOptions, axes_of
from bottleneck.charts.drawing import SMALL, WIDTH, drawing, label, nothing, stroke
from bottleneck.charts.labels import isolated, shortened, width_of
from bottleneck.charts.markup import Markup, element
from bottleneck.charts.numbers import plain, written
from bottleneck.charts.scales import is_drawable
from bottleneck.charts.theme import GROUND, colour, marker

_LABEL = 150.0  # largest width of a label
_MOST = 2000  # points
_CROWD = 6  # points; with more, only those of the front have labels
_OTHER = 5  # series whose colour points have that are not on the front; they are rings
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class ScatterPoint:
    """A point of a scatter plot.

    Parameters
    ----------
    label : str
    x, y : float or None
    on_front : bool
        Whether the line goes through it; it is also drawn stronger.
    """

    label: str
    x: float | None
    y: float | None
    on_front: bool = False


def scatter_chart(
    points: Sequence[ScatterPoint],
    *,
    title: str,
    x_label: str,
    y_label: str,
    description: str | None = None,
    log_x: bool = False,
    percent_y: bool = True,
    width: float = WIDTH,
    height: float = 270.0,
) -> Markup:
    """Return a scatter plot; labels that have no room are tooltips only.

    Parameters
    ----------
    points : sequence of ScatterPoint
        At most the first 2,000 are drawn.
    title, x_label, y_label : str
    description : str, optional
        What the chart shows, in words; by default the points of the front.
    log_x : bool
        Whether the horizontal axis is logarithmic; points at 0 or below are left out.
    percent_y : bool
        Whether heights are shares, from 0 to 1, which are written as percentages.
    width, height : float
        Size in CSS pixels.

    Returns
    -------
    Markup
        An SVG element.
    """
    known = [
        (point, float(point.x), float(point.y))
        for point in points
        if point.x is not None and point.y is not None and is_drawable(point.x, log=log_x) and is_drawable(point.y)
    ][:_MOST]
    if not known:
        return nothing(title, width)
    axes = axes_of(
        [x for _, x, _ in known],
        [y for _, _, y in known],
        AxisOptions(name=x_label, log=log_x),
        AxisOptions(name=y_label, as_percent=percent_y),
        width=width,
        top=0,
        height=height,
    )
    front = sorted((x, y) for point, x, y in known if point.on_front)
    places = [(point, axes.x(x), axes.y(y)) for point, x, y in known]
    texts = [f"{isolated(one.label)}: {written(y, percent_y)}, {x_label} {plain(x)}" for one, x, y in known]
    marks = [
        marker(0, x, y, 4.5, element("title", text), filled=one.on_front, ink=None if one.on_front else colour(_OTHER))
        for (one, x, y), text in zip(places, texts, strict=True)
    ]
    words = description or "on the front: " + "; ".join(
        text for (one, *_), text in zip(known, texts, strict=True) if one.on_front
    )
    parts = [*axes.parts, *_staircase(front, axes), *marks, *_labels(places, width)]
    return drawing(parts, width=width, height=height, title=title, description=words)


def _staircase(front: list[tuple[float, float]], axes: Axes) -> list[Markup]:
    """Return the line that separates what is reached from what is not: each point holds until the next one."""
    if not front:
        return []
    (x, y), *others = front
    path = f"M{axes.x(x):.1f} {axes.y(y):.1f}" + "".join(f"H{axes.x(x):.1f}V{axes.y(y):.1f}" for x, y in others)
    return [stroke(f"{path}H{axes.x.end:.1f}", 0, dashes="4 3", width=1.2)]


def _labels(places: Sequence[tuple[ScatterPoint, float, float]], width: float) -> list[Markup]:
    """Return the labels that have room, the highest first; of many points only the front has labels."""
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for _, x, y in places]
    parts = []
    named = [one for one in places if one[0].on_front or len(places) <= _CROWD]
    for point, x, y in sorted(named, key=lambda one: (not one[0].on_front, one[2])):
        length = width_of(shortened(point.label, _LABEL, SMALL), SMALL)
        for left, base in ((x + 8, y + 4), (x - 8 - length, y + 4), (x - length / 2, y - 9), (x - length / 2, y + 18)):
            box = (left, base - 10, left + length, base + 3)
            if left < 0 or left + length > width or any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            text = label(point.label, left, base, size=SMALL, most=_LABEL)
            parts.append(element("g", text, style=f"paint-order:stroke;stroke:{GROUND};stroke-width:3"))
            break
    return parts


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

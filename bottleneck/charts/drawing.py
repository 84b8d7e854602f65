"""The frame of every chart: the SVG element with its name and description, text, lines, and a legend."""

from collections.abc import Iterable, Sequence

from bottleneck.charts.labels import SIZE, shortened, width_of
from bottleneck.charts.markup import Markup, element
from bottleneck.charts.theme import FAINT, QUIET, colour, dash, marker
from bottleneck.errors import printable

WIDTH = 440.0  # of a chart, which leaves text readable on a telephone
SMALL = 12.0  # size of the text of ticks and notes
LEGEND_ROW = 20.0
FORECAST = "3 4"  # dashes of a line that was not measured
_SAMPLE = 26.0  # width of the line in a legend


def drawing(
    parts: Iterable[object], *, width: float, height: float, title: str, description: str, interactive: bool = False
) -> Markup:
    """Return an SVG element that fills its container up to its natural width.

    Parameters
    ----------
    parts : iterable of Markup
    width, height : float
        Size in CSS pixels.
    title : str
        Name of the chart, for screen readers.
    description : str
        What the chart shows, in words.
    interactive : bool
        Whether it has links, which an image must not have.
    """
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        role="group" if interactive else "img",
        aria_label=title,
        style=f"display:block;width:100%;max-width:{width:.0f}px;height:auto;direction:ltr;color:inherit;"
        f"font-family:inherit;font-size:{SIZE:.0f}px;fill:currentColor",
    )


def nothing(title: str, width: float = WIDTH) -> Markup:
    """Return a chart that says that it has no data."""
    words = label("no data to show", width / 2, 34, anchor="middle", quiet=True)
    return drawing([words], width=width, height=60, title=title, description="There is no data to show.")


def label(
    text: object,
    x: float,
    y: float,
    *,
    anchor: str | None = None,
    size: float | None = None,
    quiet: bool = False,
    bold: bool = False,
    most: float | None = None,
) -> Markup:
    """Return a text at a position; one that is too wide is shortened, and has the full text as a tooltip.

    Parameters
    ----------
    text : object
    x, y : float
        The beginning of the base line.
    anchor : str, optional
        ``middle`` or ``end``, if the position is not that of the beginning.
    size : float, optional
    quiet, bold : bool
        Whether it is less, or more, important than others.
    most : float, optional
        Largest width.
    """
    whole = printable(str(text))
    shown = whole if most is None else shortened(whole, most / 1.1 if bold else most, size or SIZE)
    tooltip = element("title", whole) if shown != whole else None
    return element(
        "text",
        tooltip,
        shown,
        x=x,
        y=y,
        text_anchor=anchor,
        font_size=size,
        font_weight="600" if bold else None,
        fill_opacity=QUIET if quiet else None,
    )


def rule(x1: float, y1: float, x2: float, y2: float, *, faint: bool = True, dashed: bool = False) -> Markup:
    """Return a line of a grid or an axis."""
    return element(
        "line",
        x1=x1,
        y1=y1,
        x2=x2,
        y2=y2,
        stroke="currentColor",
        stroke_opacity=FAINT if faint else "0.5",
        stroke_dasharray="4 3" if dashed else None,
    )


def legend(entries: Sequence[tuple[str, int, bool]], width: float) -> tuple[list[Markup], float]:
    """Return a legend in as many rows as it needs, and its height.

    Parameters
    ----------
    entries : sequence of (str, int, bool)
        Name and style of each series, and whether it is a forecast.
    width : float
    """
    parts, x, y = list[Markup](), 0.0, LEGEND_ROW / 2
    for name, series, forecast in entries:
        room = min(width_of(shortened(name, width - 2 * _SAMPLE, SMALL), SMALL), width - 2 * _SAMPLE)
        if x and x + _SAMPLE + 6 + room > width:
            x, y = 0.0, y + LEGEND_ROW
        parts += [
            stroke(f"M{x:.1f} {y:.1f}h{_SAMPLE:.0f}", series, dashes=FORECAST if forecast else None),
            marker(series, x + _SAMPLE / 2, y, 3.4, filled=not forecast),
            label(name, x + _SAMPLE + 6, y + 4, size=SMALL, most=width - 2 * _SAMPLE),
        ]
        x += _SAMPLE + 6 + room + 18
    return parts, y + LEGEND_ROW


def stroke(path: str, series: int, *children: object, dashes: str | None = None, width: float = 1.8) -> Markup:
    """Return the line of a series."""
    return element(
        "path",
        *children,
        d=path,
        style=f"fill:none;stroke:{colour(series)};stroke-width:{width:g};stroke-linejoin:round",
        stroke_dasharray=dashes or dash(series),
    )

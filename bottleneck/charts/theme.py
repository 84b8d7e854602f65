"""Colours, dashes and shapes. A page may set the colours; the fallbacks are readable on white and on black.

The custom properties are ``--chart-1`` to ``--chart-6`` for series, ``--chart-wrong`` for errors, and
``--chart-ground`` for the background. Text and grid have the colour of the text around a chart (``currentColor``). The
colours are from the schemes of P. Tol 2021, "Colour schemes", technical note SRON/EPS/TN/09-002, which people with
colour blindness can tell apart.
"""

from bottleneck.charts.markup import Markup, element, number

COLOURS = ("#4477aa", "#cc6677", "#228833", "#aa3377", "#997700", "#777777")
DASHES = (None, "6 3", "2 3", "8 3 2 3", "1 2", "12 4")
_SHAPES = ("circle", "square", "triangle", "diamond", "down", "bar")
GROUND = "var(--chart-ground, var(--jp-layout-color0, transparent))"  # around text that is on lines
WRONG = "var(--chart-wrong, #cc3311)"
FAINT = "0.16"  # opacity of grids
QUIET = "0.72"  # opacity of text that is not the main one


def colour(series: int) -> str:
    """Return the colour of a series, counted from 0."""
    place = series % len(COLOURS)
    return f"var(--chart-{place + 1}, {COLOURS[place]})"


def dash(series: int) -> str | None:
    """Return the dash pattern of the line of a series; None for a solid line."""
    return DASHES[series % len(DASHES)]


def marker(
    series: int, x: float, y: float, radius: float, *children: object, filled: bool = True, ink: str | None = None
) -> Markup:
    """Return the mark of a series at a position; each series has another shape.

    Parameters
    ----------
    series : int
    x, y, radius : float
    *children : object
        For example a ``title``.
    filled : bool
        Whether it is solid; otherwise it is an outline.
    ink : str, optional
        Its colour, by default that of the series.
    """
    ink = ink or colour(series)
    style = f"fill:{ink}" if filled else f"fill:none;stroke:{ink};stroke-width:1.8"
    shape = _SHAPES[series % len(_SHAPES)]
    if shape == "circle":
        return element("circle", *children, cx=x, cy=y, r=radius, style=style)
    return element("path", *children, d=_outline(shape, x, y, radius), style=style)


def _outline(shape: str, x: float, y: float, radius: float) -> str:
    r, far = radius * 0.9, radius * 1.25
    corners = {
        "square": [(-r, -r), (r, -r), (r, r), (-r, r)],
        "triangle": [(0, -far), (far, r), (-far, r)],
        "diamond": [(0, -far), (far, 0), (0, far), (-far, 0)],
        "down": [(0, far), (far, -r), (-far, -r)],
        "bar": [(-r / 2, -far), (r / 2, -far), (r / 2, far), (-r / 2, far)],
    }[shape]
    return "M" + "L".join(f"{number(x + dx)} {number(y + dy)}" for dx, dy in corners) + "Z"

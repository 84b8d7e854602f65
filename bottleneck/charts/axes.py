"""A pair of axes with a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck.charts.drawing import SMALL, label, rule
from bottleneck.charts.labels import width_of
from bottleneck.charts.markup import Markup
from bottleneck.charts.scales import Scale, scale_of

_TOP, _BOTTOM, _RIGHT = 26.0, 42.0, 14.0  # margins, for the names of the axes and the ticks
_TICK_HEIGHT = 34.0  # between ticks of the vertical axis, at least
_TICK_GAP = 22.0  # between texts of the horizontal axis


@dataclass(frozen=True, kw_only=True)
class AxisOptions:
    """How an axis is labelled.

    Parameters
    ----------
    name : str
    log : bool
    as_percent : bool
        Whether its numbers are shares, from 0 to 1, which are written as percentages.
    whole : bool
        Whether the axis covers all shares, from 0 to 1.
    """

    name: str
    log: bool = False
    as_percent: bool = False
    whole: bool = False

    def scale(self, values: Sequence[float | None], start: float, end: float, *, is_round: bool) -> Scale:
        """Return the scale of the axis for its values."""
        if self.whole:
            return Scale(0.0, 1.0, start, end)
        if self.as_percent:
            return scale_of(values, start, end, log=self.log, is_round=is_round, within=(0.0, 1.0))
        return scale_of(values, start, end, log=self.log, is_round=is_round)


@dataclass(frozen=True)
class Axes:
    """Both scales of a chart, and the markup of its axes.

    Parameters
    ----------
    x, y : Scale
    parts : list of Markup
        Grid, ticks and names.
    """

    x: Scale
    y: Scale
    parts: list[Markup]


def axes_of(
    xs: Sequence[float | None],
    ys: Sequence[float | None],
    x: AxisOptions,
    y: AxisOptions,
    *,
    width: float,
    top: float,
    height: float,
) -> Axes:
    """Return axes that show all values.

    Parameters
    ----------
    xs, ys : sequence of float or None
    x, y : AxisOptions
    width : float
        Of the chart.
    top, height : float
        Where the axes begin, with the name of the vertical one, and how high they are, with the names of both.
    """
    bottom = top + height - _BOTTOM
    vertical = y.scale(ys, bottom, top + _TOP, is_round=True)
    ticks = vertical.ticks(max(2, int((height - _TOP - _BOTTOM) / _TICK_HEIGHT)))
    texts = vertical.texts(ticks, as_percent=y.as_percent)
    left = max((width_of(text, SMALL) for text in texts), default=0.0) + 8
    integral = not x.as_percent and all(value == round(value) for value in xs if value is not None)
    horizontal = x.scale(xs, left, width - _RIGHT, is_round=False)
    parts = [label(y.name, 0, top + 12, size=SMALL, quiet=True, most=width)]
    for tick, text in zip(ticks, texts, strict=True):
        height_of_tick = vertical(tick)
        parts.append(rule(left, height_of_tick, width - _RIGHT, height_of_tick))
        parts.append(label(text, left - 6, height_of_tick + 4, anchor="end", size=SMALL, quiet=True))
    parts.append(rule(left, bottom, width - _RIGHT, bottom, faint=False))
    parts += _horizontal_ticks(horizontal, x, bottom, width, integral=integral)
    parts.append(label(x.name, width - _RIGHT, bottom + 36, anchor="end", size=SMALL, quiet=True, most=width - left))
    return Axes(horizontal, vertical, parts)


def _horizontal_ticks(
    scale: Scale, options: AxisOptions, bottom: float, width: float, *, integral: bool
) -> list[Markup]:
    """Return ticks and their texts, as many as fit beside each other."""
    for most in range(8, 0, -1):
        ticks = [tick for tick in scale.ticks(most) if not integral or tick == round(tick)]
        texts = scale.texts(ticks, as_percent=options.as_percent)
        places = [scale(tick) for tick in ticks]
        widths = [width_of(text, SMALL) for text in texts]
        gaps = [b - a - (v + w) / 2 for a, b, v, w in zip(places, places[1:], widths, widths[1:], strict=False)]
        if min(gaps, default=_TICK_GAP) >= _TICK_GAP / 2:
            break
    parts = []
    for place, text, room in zip(places, texts, widths, strict=True):
        parts.append(rule(place, bottom, place, bottom + 4, faint=False))
        middle = min(place, width - room / 2)
        parts.append(label(text, middle, bottom + 18, anchor="middle", size=SMALL, quiet=True))
    return parts

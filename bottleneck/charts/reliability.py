"""Reliability diagrams: whether predictions are right as often as their probabilities say."""

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck.charts.axes import AxisOptions, axes_of
from bottleneck.charts.drawing import SMALL, drawing, label, nothing, rule
from bottleneck.charts.markup import Markup, element
from bottleneck.charts.numbers import percent
from bottleneck.charts.scales import is_drawable
from bottleneck.charts.theme import colour
from bottleneck.utils.text import counted

_LARGEST = 11.0  # radius of the mark of the fullest bin
_SMALLEST = 2.5


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of similar probability.

    Parameters
    ----------
    confidence : float or None
        Their mean probability.
    accuracy : float or None
        The share of them that is right.
    n : int
        Number of predictions.
    low, high : float or None
        Interval of the accuracy.
    """

    confidence: float | None
    accuracy: float | None
    n: int
    low: float | None = None
    high: float | None = None


def reliability_chart(
    bins: Sequence[ReliabilityBin], *, title: str, description: str | None = None, width: float = 340.0
) -> Markup:
    """Return a reliability diagram: accuracy by probability; a calibrated head is on the diagonal.

    Parameters
    ----------
    bins : sequence of ReliabilityBin
        Those without predictions are left out. The area of a mark grows with their number.
    title : str
    description : str, optional
        What the chart shows, in words; by default the mean gap.
    width : float
        Width in CSS pixels.

    Returns
    -------
    Markup
        An SVG element.
    """
    known = [
        (one, float(one.confidence), float(one.accuracy))
        for one in bins
        if one.n > 0 and one.confidence is not None and one.accuracy is not None
        if is_drawable(one.confidence) and is_drawable(one.accuracy)
    ]
    if not known:
        return nothing(title, width)
    height = width + 10
    axes = axes_of(
        [],
        [],
        AxisOptions(name="predicted probability", as_percent=True, whole=True),
        AxisOptions(name="share that is right", as_percent=True, whole=True),
        width=width,
        top=0,
        height=height,
    )
    parts = [*axes.parts, rule(axes.x(0), axes.y(0), axes.x(1), axes.y(1), faint=False, dashed=True)]
    most = max(one.n for one, *_ in known)
    for one, confidence, accuracy in known:
        x, y = axes.x(confidence), axes.y(accuracy)
        if one.low is not None and one.high is not None and is_drawable(one.low) and is_drawable(one.high):
            ends = f"M{x:.1f} {axes.y(one.low):.1f}V{axes.y(one.high):.1f}"
            parts.append(element("path", d=ends, style=f"stroke:{colour(0)};stroke-width:1.4;stroke-opacity:.7"))
        radius = max(_SMALLEST, _LARGEST * (one.n / most) ** 0.5)
        tooltip = f"predicted {percent(confidence)}, right {percent(accuracy)} of {counted(one.n, 'prediction')}"
        style = f"fill:{colour(0)};fill-opacity:.75"
        parts.append(element("circle", element("title", tooltip), cx=x, cy=y, r=radius, style=style))
    parts.append(label("too cautious", axes.x(0.04), axes.y(0.92), size=SMALL, quiet=True))
    parts.append(label("too confident", axes.x(0.98), axes.y(0.05), anchor="end", size=SMALL, quiet=True))
    total = sum(one.n for one, *_ in known)
    gap = sum(one.n * abs(confidence - accuracy) for one, confidence, accuracy in known) / total
    words = description or f"On average, probability and accuracy differ by {100 * gap:.1f} points."
    return drawing(parts, width=width, height=height, title=title, description=words)

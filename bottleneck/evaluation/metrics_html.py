"""Metrics in a notebook: the accuracy in words, and the confusion matrix or the most frequent confusions."""

from collections.abc import Sequence
from typing import Any

from bottleneck.charts.heatmap import heatmap
from bottleneck.charts.html import html_table, line, note
from bottleneck.charts.markup import Markup, element, markup
from bottleneck.evaluation.confusion import cells_of
from bottleneck.utils.text import counted

CHARTED = 20  # classes of a confusion matrix; with more, the most frequent confusions are listed
_PAIRS = 8


def accuracy_html(metrics: dict[str, Any], noun: str) -> Markup:
    """Return how many images are classified correctly, with the 95 % interval.

    Parameters
    ----------
    metrics : dict
        See `bottleneck.evaluation.metrics.evaluate`. Those of earlier versions may lack the interval.
    noun : str
        What the images are, in the singular: ``held-out image``.
    """
    images = f" of {counted(metrics['n'], noun)}" if "n" in metrics else ""
    interval = metrics.get("accuracy_ci95")
    words = f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return line(element("strong", f"{metrics['accuracy']:.1%}"), f"{images} classified correctly{words}")


def confusion_html(confusion: Sequence[list[int]], classes: Sequence[str]) -> Markup:
    """Return a confusion matrix as a chart, or with more than `CHARTED` classes the most frequent confusions."""
    cells = cells_of(confusion)
    if len(classes) <= CHARTED:
        return heatmap(cells, classes, title="Confusion matrix")
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    if not wrong:
        return note("no image is misclassified")
    rows = [[classes[label], classes[predicted], f"{count:,}"] for label, predicted, count in wrong[:_PAIRS]]
    table = html_table(("label", "prediction", "images"), rows, numbers=("images",), more=len(wrong) - len(rows))
    return markup(note("the most frequent confusions"), table)

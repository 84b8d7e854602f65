"""Format predictions as a table and lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from bottleneck.cli.layout import Column, TextTable, right
from bottleneck.cli.output import lines_of, rule_of, say, width_of
from bottleneck.utils.text import counted

if TYPE_CHECKING:  # importing these modules would take longer than formatting their results
    from bottleneck.prediction.prediction import Prediction, Predictions

_UNFAMILIAR = "(unfamiliar)"


def predictions_table(predictions: Predictions, target: IO[str]) -> None:
    """Print a table of predictions; paths are never truncated."""
    table = TextTable("path", "label", *right("probability"), *_columns(predictions), "next")
    for item in predictions:
        failed = f"failed: {item.failure.code}" if item.failure else ""
        runners_up = "" if item.rejected else ", ".join(f"{label} {share:.3f}" for label, share in item.top[1:])
        probability = "" if item.probability is None else f"{item.probability:.3f}"
        table.add_row(item.path, _label(item), probability, *_cells(item, predictions), failed or runners_up)
    target.writelines(f"{line}\n" for line in lines_of(table, width_of(target), rule_of(target)))


def familiarity_lines(predictions: Predictions) -> None:
    """Print how many images are unfamiliar, and what limits familiarity and sets."""
    count = len(predictions.unfamiliar)
    if count:
        verb, what = ("is", "it has no label") if count == 1 else ("are", "they have no label")
        guess = "its label is a guess" if count == 1 else "their labels are guesses"
        say(
            f"{counted(count, 'image')} {verb} unfamiliar (familiarity at most {predictions.threshold:g}): "
            f"{what if predictions.reject else guess}"
        )
    for caution in predictions.cautions:
        say(caution)


def _columns(predictions: Predictions) -> Iterator[Column]:
    if predictions.has_familiarity:
        yield Column("familiarity", right=True)
    if predictions.coverage is not None:
        yield Column("set")


def _cells(item: Prediction, predictions: Predictions) -> Iterator[str]:
    if predictions.has_familiarity:
        yield "" if item.familiarity is None else f"{item.familiarity:.3f}"
    if predictions.coverage is not None:
        yield "" if item.label is None or item.set is None else ", ".join(item.set)


def _label(item: Prediction) -> str:
    return " ".join(filter(None, (item.label, _UNFAMILIAR if item.unfamiliar else "")))

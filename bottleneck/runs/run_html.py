"""A run in a notebook: what was trained on what, how accurate it is, and what it confuses."""

from typing import Any

from bottleneck.charts.html import block, line, note, side_by_side
from bottleneck.charts.markup import Markup
from bottleneck.charts.rows import ChartRow, interval_chart
from bottleneck.errors import RunError
from bottleneck.evaluation.metrics_html import accuracy_html, confusion_html
from bottleneck.runs.card import params_text
from bottleneck.runs.card_parts import CardParts
from bottleneck.utils.text import counted


def run_html(run: CardParts) -> Markup:
    """Return a run as HTML; parts that the card lacks are left out.

    Parameters
    ----------
    run : CardParts
    """
    card = run.card
    try:
        metrics = run.metrics
        confusion, classes = metrics.get("confusion"), metrics.get("classes")
        matrix = None if confusion is None or classes is None else confusion_html(confusion, classes)
    except RunError as error:
        metrics, matrix = card.get("metrics") or {}, note(str(error))
    return block(
        run.path.name,
        accuracy_html(metrics, "held-out image") if "accuracy" in metrics else None,
        line(_trained(card)),
        side_by_side(*(part for part in (_intervals(card, metrics), matrix) if part is not None)),
    )


def _trained(card: dict[str, Any]) -> str:
    """Return what was trained, and on how many images."""
    head = card.get("head", "head")
    params = f" ({params_text(card['params'])})" if card.get("params") else ""
    model = f" on {card['model']}" if "model" in card else ""
    tuned = "fine-tuned network, from " if card.get("kind") == "finetune" else ""
    images = f", trained on {counted(card['n_train'], 'image')}" if "n_train" in card else ""
    return f"{tuned}{head}{params}{model}{images}"


def _intervals(card: dict[str, Any], metrics: dict[str, Any]) -> Markup | None:
    """Return the cross-validated and the held-out accuracy with their intervals."""
    search, by_folds = card.get("search") or {}, card.get("headline") == "cross-validation"
    found = [
        ("cross-validated", search.get("cv_accuracy"), search.get("cv_ci95"), by_folds),
        ("held-out", metrics.get("accuracy"), metrics.get("accuracy_ci95"), not by_folds),
    ]
    rows = [
        ChartRow(label=name, estimate=value, low=low, high=high, tone="strong" if is_headline else "plain")
        for name, value, interval, is_headline in found
        if value is not None
        for low, high in [interval or (None, None)]
    ]
    return interval_chart(rows, title="Accuracy, with 95 % intervals", x_label="accuracy") if rows else None

"""How a model was trained, as charts: the search of the hyperparameters, and the epochs of a fine-tuning."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.charts.line import MarkedPoint, Series, line_chart
from bottleneck.charts.markup import Markup
from bottleneck.runs.card import params_text

Card = dict[str, Any]

_MANY_DECADES = 50  # ratio of the largest and the smallest value, from which the axis is logarithmic
_LINES = 5  # of a chart, for other parameters than that of its axis


@dataclass(frozen=True, kw_only=True)
class SearchView:
    """The search of a head's hyperparameters.

    Parameters
    ----------
    parameter : str
        That of the horizontal axis.
    points : int
    folds, divisions : int
    chosen : str
        The chosen point, ``C 0.01``.
    rule : str
    scalings : tuple of (str, float)
        The balanced accuracy with each scaling of the features, the best first.
    scaling : str
        The chosen one.
    accuracy, log_loss : Markup
        Charts.
    """

    parameter: str
    points: int
    folds: int
    divisions: int
    chosen: str
    rule: str
    scalings: tuple[tuple[str, float], ...]
    scaling: str
    accuracy: Markup
    log_loss: Markup


@dataclass(frozen=True, kw_only=True)
class EpochsView:
    """The epochs of a fine-tuning.

    Parameters
    ----------
    count : int
    best : int
        The epoch that was kept; 0 is the initial network.
    start : str
        What the training started from.
    trained : tuple of str
        The trained modules besides the head.
    parameters : int
        The number of trained parameters.
    accuracy, loss : Markup
        Charts.
    """

    count: int
    best: int
    start: str
    trained: tuple[str, ...]
    parameters: int
    accuracy: Markup
    loss: Markup


def search_view(card: Card) -> SearchView | None:
    """Return the search of a head; None if the card records none, or none of several points."""
    found = card.get("search") or {}
    points, folds = found.get("points") or [], found.get("fold_accuracy") or []
    name = _varying(points)
    if name is None or len(folds) != len(points) or len(found.get("log_losses") or []) != len(points):
        return None
    chosen = {key: value for key, value in card["params"].items() if key in points[0]}
    divisions = int(found.get("divisions") or 1)
    accuracy = _by_parameter(name, points, np.array(folds, float), divisions)
    losses = _by_parameter(name, points, np.array(found["log_losses"], float)[:, None], 1)
    place = points.index(chosen) if chosen in points else None
    log_x = _is_wide([point[name] for point in points])
    return SearchView(
        parameter=name,
        points=len(points),
        folds=int(found.get("folds") or 0),
        divisions=divisions,
        chosen=params_text(chosen),
        rule=str(found.get("rule") or ""),
        scalings=tuple(sorted((found.get("scalings") or {}).items(), key=lambda one: -one[1])),
        scaling=str(card.get("normalize") or ""),
        accuracy=line_chart(
            accuracy,
            title=f"Cross-validated accuracy by {name}",
            x_label=name,
            y_label="accuracy",
            log_x=log_x,
            marks=_chosen(place, points, name, float(np.mean(folds[place])) if place is not None else 0.0),
        ),
        log_loss=line_chart(
            losses,
            title=f"Log-loss by {name}",
            x_label=name,
            y_label="log-loss (lower is better)",
            log_x=log_x,
            percent_y=False,
            marks=_chosen(place, points, name, found["log_losses"][place] if place is not None else 0.0),
        ),
    )


def epochs_view(card: Card) -> EpochsView | None:
    """Return the epochs of a fine-tuning; None for another run."""
    epochs = card.get("curves")
    if not epochs:
        return None
    best = int(card.get("best_epoch") or 0)
    came_from = card.get("from") or {}
    return EpochsView(
        count=len(epochs) - 1,
        best=best,
        start=f"the head of {came_from['run']}" if came_from.get("run") else "a random last layer",
        trained=tuple(card.get("trained") or ()),
        parameters=int(card.get("trained_parameters") or 0),
        accuracy=_epochs_chart(epochs, best, "accuracy", percent=True),
        loss=_epochs_chart(epochs, best, "loss", percent=False),
    )


def _varying(points: list[dict[str, Any]]) -> str | None:
    """Return the numeric parameter in which points differ, C before others."""
    names = [
        name
        for name in (points[0] if points else ())
        if len({point.get(name) for point in points}) > 1
        and all(isinstance(point.get(name), (int, float)) for point in points)
    ]
    return "C" if "C" in names else next(iter(names), None)


def _by_parameter(
    name: str, points: list[dict[str, Any]], values: np.ndarray[tuple[int, int], np.dtype[np.float64]], divisions: int
) -> list[Series]:
    """Return a series over a parameter for each combination of the others, with a standard error as its band."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row, point in enumerate(points):
        others = {key: value for key, value in point.items() if key != name}
        groups[params_text(others) if others else "mean of the folds"].append(row)
    found = []
    for label, rows in list(groups.items())[:_LINES]:
        rows.sort(key=lambda row: points[row][name])
        mean = values[rows].mean(axis=1)
        count = values.shape[1]
        error = values[rows].std(axis=1, ddof=1) / math.sqrt(count / divisions) if count > 1 else None
        found.append(
            Series(
                label,
                [points[row][name] for row in rows],
                mean.tolist(),
                None if error is None else (mean - error).tolist(),
                None if error is None else (mean + error).tolist(),
            )
        )
    return found


def _chosen(place: int | None, points: list[dict[str, Any]], name: str, y: float) -> list[MarkedPoint]:
    return [] if place is None else [MarkedPoint(float(points[place][name]), float(y), "chosen")]


def _is_wide(values: list[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= _MANY_DECADES


def _epochs_chart(epochs: list[dict[str, Any]], best: int, what: str, *, percent: bool) -> Markup:
    x = [epoch["number"] for epoch in epochs]
    kept = next((epoch for epoch in epochs if epoch["number"] == best), None)
    return line_chart(
        [
            Series("validation", x, [epoch.get(f"val_{what}") for epoch in epochs]),
            Series("training", x, [epoch.get(f"train_{what}") for epoch in epochs]),
        ],
        title=f"{what.capitalize()} by epoch",
        x_label="epoch",
        y_label=what,
        percent_y=percent,
        marks=[MarkedPoint(best, kept[f"val_{what}"], "kept")] if kept else [],
    )

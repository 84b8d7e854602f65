"""The page of a comparison: which rows are told apart, what they cost, and how to repeat it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from bottleneck.charts.labels import isolated
from bottleneck.charts.markup import Markup, markup
from bottleneck.charts.numbers import percent, plain
from bottleneck.charts.scatter import ScatterPoint, scatter_chart
from bottleneck.comparison.charts import CHARTED, held_out_chart, learning_curve_chart, ranking_chart
from bottleneck.comparison.commands import compare_command, fit_command
from bottleneck.comparison.leaderboard import Comparison
from bottleneck.comparison.leaderboard_row import LEVEL, LeaderboardRow
from bottleneck.comparison.pareto import pareto_front
from bottleneck.reporting.page import page
from bottleneck.runs.card import params_text
from bottleneck.utils.text import counted

_FAILURES = 50  # failures that are listed
_FRONT = 6  # rows of a Pareto front that a sentence names
_NAMED = 4  # rows that a sentence names


@dataclass(frozen=True)
class _Cost:
    """What the rows cost, and which are on the Pareto front.

    Parameters
    ----------
    name : str
        Of the horizontal axis, with the unit.
    note : str
        What was not measured.
    values : list of float
    front : list of int
    chart : Markup
    sentence : Markup
    """

    name: str
    note: str
    values: list[float]
    front: list[int]
    chart: Markup
    sentence: Markup


def comparison_page(comparison: Comparison, options: Sequence[str] = ()) -> str:
    """Return a comparison as a self-contained HTML page.

    Parameters
    ----------
    comparison : Comparison
    options : sequence of str
        Words of the options that its commands have, such as ``["--split", "60/0/40"]``.

    Returns
    -------
    str
        A whole page. It loads nothing, and what users named is text.
    """
    rows = comparison.rows
    name = PurePath(comparison.source).name or comparison.source
    public = replace(comparison, source=name)  # others may read the page, and need no folders of this machine
    fit, seconds = fit_command(public, options), _seconds(comparison)
    cheaper = _cheaper(comparison, seconds.values)
    return page(
        "comparison.html",
        styles=("comparison.css",),
        name=name,
        found=comparison,
        best=named(comparison.best),
        models=counted(len({row.model for row in rows}), "model"),
        lead=markup(_lead(comparison)),
        verdicts=list(map(markup, verdicts(comparison))),
        cheaper=cheaper and markup(cheaper),
        ranking=ranking_chart(rows),
        held_out=held_out_chart(rows),
        left_out=max(0, len(rows) - CHARTED),
        costs=[cost for cost in (seconds, _megabytes(rows)) if len(rows) > 1],
        curve=comparison.curve,
        curve_chart=comparison.curve and learning_curve_chart(comparison.curve),
        table=[_cells(row) for row in rows],
        failures=[(failure, _relative(failure.path, comparison.source)) for failure in comparison.failures[:_FAILURES]],
        repeat=shlex.join(compare_command(public, options)),
        fit=fit and shlex.join(fit),
    )


def named(row: LeaderboardRow) -> str:
    """Return the head and the model of a row: ``logistic on resnet18``."""
    return f"{row.head} on {row.model}"


def verdicts(found: Comparison) -> list[str]:
    """Return sentences that say which rows are told apart from the best, and what that means."""
    groups: dict[str, list[LeaderboardRow]] = {}
    for row in found.rows[1:]:
        groups.setdefault(row.verdict, []).append(row)
    sentences = []
    if worse := groups.get("worse"):
        sentences.append(f"{_rows(worse)} {_are(worse)} worse than the best (p below {LEVEL:g}): {_listed(worse)}.")
    if better := groups.get("better"):
        sentences.append(
            f"{_rows(better)} {_are(better)} better than the best on the held-out images (p below {LEVEL:g}), although "
            f"cross-validation ranks {'it' if len(better) == 1 else 'them'} lower: {_listed(better)}."
        )
    if same := groups.get("not told apart"):
        sentences.append(
            f"{_rows(same)} {_are(same)} not told apart from the best: {_listed(same)}. With "
            f"{counted(found.n_heldout, 'held-out image')}, the test does not show which one is better, however "
            f"different the accuracies are."
        )
    return sentences or ["There is no other row to compare it with."]


def _cells(row: LeaderboardRow) -> dict[str, object]:
    """Return what the table has of a row: numbers to sort by, and texts."""
    names = ("model", "head", "cv_accuracy", "accuracy", "log_loss", "ece", "verdict")
    return {
        **{name: getattr(row, name) for name in names},
        "p": 2 if row.p_value is None else row.p_value,  # the best row comes last
        "p_text": _p_value(row),
        "extract": row.extract_seconds or 0,
        "extract_text": "cached" if row.extract_seconds is None else f"{row.extract_seconds:.1f}",
        "fit": row.fit_seconds,
        "megabytes": row.feature_bytes / 1e6,
        "params": params_text(row.params),
    }


def _relative(path: str, folder: str) -> str:
    return path.removeprefix(folder).lstrip("/\\")


def _lead(found: Comparison) -> str:
    """Return the finding in two sentences."""
    best = found.best
    scored = f"{percent(best.cv_accuracy)}{_range(best.cv_ci95)}"
    low, high = (round(100 * end) for end in best.accuracy_ci95)
    return (
        f"The best row is {isolated(named(best))}: {scored} in cross-validation. It classifies "
        f"{percent(best.accuracy)} of the {counted(found.n_heldout, 'held-out image')} correctly; on other images like "
        f"these it could be {low} to {high} %."
    )


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({percent(interval[0])} to {percent(interval[1])})"


def _cheaper(found: Comparison, seconds: Sequence[float]) -> str | None:
    """Return a sentence on the cheapest of the rows that are not told apart from the best, if there are several."""
    same = [(row, time) for row, time in zip(found.rows, seconds, strict=True) if not row.significant]
    if len(same) < 2:
        return None
    quick = min(same, key=lambda one: one[1])[0]
    sentence = f"Of these and the best, {isolated(named(quick))} needs the least time"
    least, most = (choose(row.feature_bytes for row, _ in same) for choose in (min, max))
    if least == most:
        return f"{sentence}."
    small = next(row for row, _ in same if row.feature_bytes == least)
    return f"{sentence}, and the features of {isolated(small.model)} are the smallest ({plain(least / 1e6)} MB)."


def _rows(rows: Sequence[LeaderboardRow]) -> str:
    return "One row" if len(rows) == 1 else f"{len(rows)} rows"


def _are(rows: Sequence[LeaderboardRow]) -> str:
    return "is" if len(rows) == 1 else "are"


def _listed(rows: Sequence[LeaderboardRow]) -> str:
    shown = [f"{isolated(named(row))} (p = {_p_value(row)})" for row in rows[:_NAMED]]
    return ", ".join(shown) + (f", and {len(rows) - _NAMED} more" if len(rows) > _NAMED else "")


def _p_value(row: LeaderboardRow) -> str:
    return "–" if row.p_value is None else plain(float(f"{row.p_value:.2g}"))


def _seconds(found: Comparison) -> _Cost:
    """Return the time of each row; without extraction, unless it was measured on all images for all rows."""
    rows = found.rows
    images = found.n_train + found.n_heldout
    if all(row.extract_seconds is not None and row.extracted >= images for row in rows):
        values = [row.fit_seconds + (row.extract_seconds or 0) for row in rows]
        return _cost("seconds to extract and fit", "", values, rows, "s")
    note = (
        "Some features were cached before, so these seconds are only those of the search and the fit. To measure the "
        "extraction too, repeat the comparison with an empty cache (--cache)."
    )
    return _cost("seconds to search and fit", note, [row.fit_seconds for row in rows], rows, "s")


def _megabytes(rows: Sequence[LeaderboardRow]) -> _Cost:
    return _cost("megabytes of features", "", [row.feature_bytes / 1e6 for row in rows], rows, "MB")


def _cost(name: str, note: str, values: list[float], rows: Sequence[LeaderboardRow], unit: str) -> _Cost:
    accuracies = [row.cv_accuracy for row in rows]
    front = pareto_front(values, accuracies)
    shown = [f"{isolated(named(rows[i]))} ({percent(accuracies[i])}, {plain(values[i])} {unit})" for i in front]
    more = f", and {len(shown) - _FRONT} more" if len(shown) > _FRONT else ""
    sentence = f"On the Pareto front, from the cheapest to the most accurate: {', then '.join(shown[:_FRONT])}{more}."
    if len(front) < len(rows):
        sentence += " For each other row, one of these costs no more and is at least as accurate."
    points = [
        ScatterPoint(f"{row.model} · {row.head}", value, row.cv_accuracy, i in front)
        for i, (row, value) in enumerate(zip(rows, values, strict=True))
    ]
    chart = scatter_chart(
        points,
        title=f"Cross-validated accuracy by {name}",
        description=sentence,
        x_label=name,
        y_label="cross-validated accuracy",
        log_x=min(values) > 0,
    )
    return _Cost(name, note, values, front, chart, markup(sentence))

"""Charts of a comparison: forest plots of the accuracies, and the learning curve."""

from collections import Counter
from collections.abc import Sequence

from bottleneck.charts.labels import isolated
from bottleneck.charts.line import Series, line_chart
from bottleneck.charts.markup import Markup
from bottleneck.charts.numbers import percent
from bottleneck.charts.rows import ChartRow, Tone, interval_chart
from bottleneck.comparison.leaderboard_row import LeaderboardRow
from bottleneck.heads.learning_curve import Curve

CHARTED = 40  # rows of a forest plot
_TONES: dict[str, Tone] = {"best": "strong", "worse": "muted"}


def ranking_chart(rows: Sequence[LeaderboardRow]) -> Markup:
    """Return the cross-validated accuracies of the first `CHARTED` rows, with their intervals."""
    return interval_chart(
        [_chart_row(row, row.cv_accuracy, row.cv_ci95) for row in rows[:CHARTED]],
        title="Cross-validated accuracy of each model and head",
        description=_ranking(rows),
        x_label="cross-validated accuracy",
        reference=rows[0].cv_accuracy,
    )


def held_out_chart(rows: Sequence[LeaderboardRow]) -> Markup:
    """Return the held-out accuracies of the first `CHARTED` rows, with their intervals and verdicts."""
    return interval_chart(
        [_chart_row(row, row.accuracy, row.accuracy_ci95, row.verdict) for row in rows[:CHARTED]],
        title="Held-out accuracy of each model and head",
        description=_verdicts(rows),
        x_label="held-out accuracy",
        reference=rows[0].accuracy,
    )


def learning_curve_chart(curve: Curve) -> Markup:
    """Return the chart of a learning curve, with its forecast."""
    points, ahead = curve.points, curve.forecast
    measured = Series(
        "cross-validated",
        [point.n for point in points],
        [point.accuracy for point in points],
        [max(0.0, point.accuracy - point.spread) for point in points],
        [min(1.0, point.accuracy + point.spread) for point in points],
    )
    last = points[-1]
    forecast = Series(
        "forecast",
        [last.n, *(one.n for one in ahead)],
        [last.accuracy, *(one.accuracy for one in ahead)],
        [last.accuracy, *(one.ci95[0] for one in ahead)],
        [last.accuracy, *(one.ci95[1] for one in ahead)],
        forecast=True,
    )
    return line_chart(
        [measured, forecast] if ahead else [measured],
        title="Learning curve: accuracy by the number of training images",
        description=curve.advice(),
        x_label="training images",
        y_label="cross-validated accuracy",
        log_x=True,
    )


def _ranking(rows: Sequence[LeaderboardRow]) -> str:
    """Return the best row and the last one, in words."""
    best, last = (f"{row.head} on {isolated(row.model)} with {percent(row.cv_accuracy)}" for row in (rows[0], rows[-1]))
    return f"The best of {len(rows)} is {best}." + (f" The last is {last}." if len(rows) > 1 else "")


def _verdicts(rows: Sequence[LeaderboardRow]) -> str:
    """Return how many rows are told apart from the best, in words."""
    best = rows[0]
    counts = Counter(row.verdict for row in rows[1:])
    others = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    told = f" Of the other rows, compared with it: {others}." if others else ""
    return f"The best row, {best.head} on {isolated(best.model)}, is right on {percent(best.accuracy)}.{told}"


def _chart_row(row: LeaderboardRow, accuracy: float, interval: tuple[float, float] | None, note: str = "") -> ChartRow:
    low, high = interval or (None, None)
    tone = _TONES.get(row.verdict, "plain")
    return ChartRow(label=f"{row.model} · {row.head}", estimate=accuracy, low=low, high=high, note=note, tone=tone)

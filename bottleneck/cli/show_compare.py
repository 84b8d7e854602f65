"""Format a comparison as a table, CSV, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bottleneck.cli.layout import Column, Command, TextTable
from bottleneck.cli.output import say, show
from bottleneck.cli.show import failures_list
from bottleneck.comparison.commands import fit_command
from bottleneck.utils.csv_text import csv_lines
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.comparison.leaderboard import Comparison
    from bottleneck.comparison.leaderboard_row import LeaderboardRow
    from bottleneck.heads.learning_curve import Curve

_HEADER = ["model", "head", "cross-validated", "held-out", "p", "", "extract s", "fit s", "MB"]
_RIGHT = _HEADER[2:5] + _HEADER[6:]
_COST = _HEADER[6:]


def comparison_report(found: Comparison, options: Sequence[str]) -> None:
    """Print what was compared, the table, and the command that fits the best row, with the user's options."""
    models = counted(len({row.model for row in found.rows}), "model")
    show(f"{found.source}: {counted(len(found.rows), 'head')} on features of {models}")
    show(
        f"all on the same splits and folds: {counted(found.n_train, 'training image')}, {found.n_heldout} held out "
        f"({found.heldout})"
    )
    show("", _table(found))
    show(
        "in brackets: 95 % intervals. best: by cross-validation. p: McNemar's test against the best on the held-out "
        "images, adjusted by Holm's method"
    )
    for remark in found.remarks:
        say(remark)
    if found.curve:
        _curve_lines(found.curve, found.best)
    failures_list(found.failures)
    failed = f"{len(found.failures)} failed"
    fit = fit_command(found, options)
    if fit is None:
        show(f"{failed}; the best is a run: {found.best.model}")
    else:
        show(Command(f"{failed}; to save the best as a run:", *fit))


def comparison_text(found: Comparison, layout: str) -> str:
    """Return the rows as ``table``, ``csv``, ``markdown`` or ``json`` text for a file."""
    if layout == "json":
        return json.dumps(found.to_json()) + "\n"
    if layout == "csv":
        return "".join(csv_lines(found.to_rows()))
    if layout == "markdown":
        return _markdown(found)
    return "".join(f"{line}\n" for line in _table(found).lines())


def _cells(row: LeaderboardRow) -> list[str]:
    return [
        row.model,
        row.head,
        _with_interval(row.cv_accuracy, row.cv_ci95),
        _with_interval(row.accuracy, row.accuracy_ci95),
        "" if row.p_value is None else f"{row.p_value:.2g}",
        row.verdict,
        "cached" if row.extract_seconds is None else f"{row.extract_seconds:.1f}",
        f"{row.fit_seconds:.2f}",
        f"{row.feature_bytes / 1e6:.1f}",
    ]


def _with_interval(accuracy: float, interval: tuple[float, float] | None) -> str:
    """Return ``95.1% (92.3 to 97.0)``."""
    if interval is None:
        return f"{accuracy:.1%}"
    low, high = interval
    return f"{accuracy:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def _table(found: Comparison) -> TextTable:
    table = TextTable(*(Column(name, right=name in _RIGHT, optional=name in _COST) for name in _HEADER))
    for row in found.rows:
        table.add_row(*_cells(row))
    return table


def _markdown(found: Comparison) -> str:
    """Return a Markdown table, with bars in names escaped."""
    marks = ["---:" if name in _RIGHT else "---" for name in _HEADER]
    rows = [[cell.replace("|", "\\|") for cell in _cells(row)] for row in found.rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (_HEADER, marks, *rows))


def _curve_lines(curve: Curve, best: LeaderboardRow) -> None:
    show(f"learning curve of {best.head} on {best.model}, cross-validated:")
    for point in curve.points:
        show(f"  {point.n:>6} {'image ' if point.n == 1 else 'images'}  {point.accuracy:.1%}")
    for ahead in curve.forecast:
        low, high = ahead.ci95
        show(f"  {ahead.n:>6} images  {ahead.accuracy:.1%}, a forecast (95 % interval {low:.1%} to {high:.1%})")
    show(curve.advice())

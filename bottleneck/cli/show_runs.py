"""Format runs as tables and lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING

from bottleneck.cli.layout import Column, Command, TextTable, right
from bottleneck.cli.output import Thing
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.reporting.run_description import RunDescription
    from bottleneck.runs.listing import RunSummary
    from bottleneck.runs.pairs import RunPair, RunsSideBySide
    from bottleneck.runs.removal import RemovedRun


def runs_list(found: Sequence[RunSummary], folder: str) -> list[Thing]:
    """Return a table with a row per run, and the line below it."""
    if not found:
        return [f"0 runs in {folder}: `bottleneck fit` creates one"]
    optional = [Column(name, optional=True) for name in ("when", "images", "model", "head")]
    table = TextTable("run", *optional, *right("cross-validated", "held-out", "MB"))
    for run in found:
        table.add_row(
            run.name,
            _minute(run.created),
            PurePath(run.source).name if run.source else "",
            run.model or "",
            (run.head or "") if run.is_finished else "unfinished",
            _accuracy(run.cv_accuracy, run.cv_ci95),
            _accuracy(run.accuracy, run.accuracy_ci95) if run.is_finished else "unfinished",
            _megabytes(run.bytes),
        )
    total = sum(run.bytes for run in found)
    unfinished = [run.name for run in found if not run.is_finished]
    more = f", {counted(len(unfinished), 'unfinished fine-tuning')}" if unfinished else ""
    lines: list[Thing] = [
        table,
        f"{counted(len(found) - len(unfinished), 'run')}{more}, {_megabytes(total)} MB in {folder}",
    ]
    resumed = [f"to continue: bottleneck finetune --resume {name}" for name in unfinished[-1:]]
    return [*lines, *resumed]


def run_card(found: RunDescription) -> list[Thing]:
    """Return the description of a run, and a table of its files."""
    summary, again = found.summary, found.reproduction
    made = f" was made on {_minute(summary.created)}" if summary.created else ""
    version = f" by bottleneck {found.version}" if found.version else ""
    files = TextTable("file", *right("bytes"))
    for file in found.files:
        files.add_row(file.name, f"{file.bytes:,}")
    libraries = ", ".join(f"{name} {version}" for name, version in again.versions.items())
    return [
        f"{summary.name}{made}{version}",
        f"what: {found.trained}",
        f"on what: {found.images}",
        *(f"how well: {score}" for score in found.scores[:1]),
        *(f"  {score}" for score in found.scores[1:]),
        "",
        "to make it again, in the folder with these images:",
        *(Command("", *shlex.split(command)) for command in again.commands),
        *(f"  {name}: {value}" for name, value in again.facts),
        *([f"  with {libraries}"] if libraries else []),
        "",
        files,
        f"{counted(len(found.files), 'file')}, {_megabytes(summary.bytes)} MB in {summary.path}",
    ]


def side_by_side_lines(found: RunsSideBySide) -> list[Thing]:
    """Return the scores of runs, their settings that differ, and the comparison of each with the first one."""
    letters = [chr(ord("A") + place) if place < 26 else str(place + 1) for place in range(len(found.runs))]
    scores = TextTable("", "run", *right("cross-validated", "held-out", "images"))
    for letter, run in zip(letters, found.runs, strict=True):
        cells = _accuracy(run.cv_accuracy, run.cv_ci95), _accuracy(run.accuracy, run.accuracy_ci95)
        scores.add_row(letter, run.name, *cells, str(run.n_heldout or ""))
    lines: list[Thing] = [scores]
    if found.differences:
        settings = TextTable("setting", *letters)
        for name, values in found.differences.items():
            settings.add_row(name, *(value or "-" for value in values))
        lines.append(settings)
    else:
        lines.append("their settings do not differ")
    for letter, pair in zip(letters[1:], found.pairs, strict=True):
        lines += _pair(pair, letter, letters[0])
    if len(found.pairs) > 1:
        lines.append(f"p is adjusted for {len(found.pairs)} comparisons by Holm's method")
    return lines


def removed_lines(gone: Sequence[RemovedRun], *, dry_run: bool) -> list[Thing]:
    """Return a line for each deleted run, and for what needed it or is kept."""
    lines: list[Thing] = []
    for run in gone:
        lines.append(f"{'would delete' if dry_run else 'deleted'} {run.name}: {_megabytes(run.bytes)} MB")
        lines += [f"  although {user} needs it" for user in run.needed_by]
        lines += [f"  {path} is kept: it is a link, or not a file of bottleneck" for path in run.left]
    return lines


def _pair(pair: RunPair, letter: str, first: str) -> list[Thing]:
    if pair.p_value is None:
        return [
            f"{letter} and {first} were not tested on the same images: none of the {pair.n_run} and {pair.n_against} "
            f"held-out images can be compared. To test both on other images: bottleneck evaluate IMAGES --run "
            f"{pair.run} --against {pair.against}"
        ]
    which = f"the same {counted(pair.n, 'held-out image')}"
    if not pair.same_images:
        which = f"only {counted(pair.n, 'shared held-out image')} of {pair.n_run} and {pair.n_against}"
    verdicts = {"better": f"{letter} is better", "worse": f"{letter} is worse"}
    verdict = verdicts.get(pair.verdict, "the difference is not significant")
    lines: list[Thing] = [
        f"{letter} against {first}, on {which}: accuracy {pair.accuracy:.1%} against {pair.accuracy_against:.1%}; "
        f"{pair.only_run} right only by {letter}, {pair.only_against} right only by {first}; McNemar's test p = "
        f"{pair.p_value:.2g}: {verdict}"
    ]
    if pair.relabelled:
        lines.append(f"  {counted(pair.relabelled, 'image')} left out, because the runs have different labels for them")
    if pair.selected:
        lines.append(f"  {pair.selected} of these images selected the epoch of a fine-tuning, which favours it")
    return lines


def _accuracy(accuracy: float | None, interval: tuple[float, float] | None) -> str:
    """Return ``95.1% (92.3 to 97.0)``; empty if it is unknown."""
    if accuracy is None or interval is None:
        return "" if accuracy is None else f"{accuracy:.1%}"
    low, high = interval
    return f"{accuracy:.1%} ({100 * low:.1f} to {100 * high:.1f})"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


def _minute(created: str | None) -> str:
    """Return the local time of an ISO 8601 time, to the minute."""
    try:
        return datetime.fromisoformat(created or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return created or ""

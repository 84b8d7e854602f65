"""Format suggestions of images to label."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottleneck.auditing.suggestions import REASONS, UNLIKE
from bottleneck.cli.layout import Column, TextTable, right
from bottleneck.cli.output import say
from bottleneck.cli.show import failures_list
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.auditing.suggestions import Suggestions


def suggestions_table(found: Suggestions) -> TextTable:
    """Return a table of the suggestions, the most useful first."""
    has_head, has_labelled = found.pool.probabilities is not None, len(found.pool.labelled) > 0
    predicted = (Column("likely"), *right("probability"), Column("or"), *right("familiarity")) if has_head else ()
    nearest = right("nearest labelled") if has_labelled else ()
    unusual = any(one.reason.startswith(UNLIKE) for one in found)
    table = TextTable("path", *predicted, *nearest, *(["remark"] if unusual else []))
    for one in found:
        cells = [one.path]
        if has_head:
            familiarity = "" if one.familiarity is None else f"{one.familiarity:.3f}"
            cells += [one.suggested or "", f"{one.probability:.3f}", one.second or "", familiarity]
        if has_labelled:
            cells.append(f"{one.nearest_labelled:.2f}")
        table.add_row(*cells, *([one.reason if one.reason.startswith(UNLIKE) else ""] if unusual else []))
    return table


def suggestion_lines(found: Suggestions) -> None:
    """Print what was chosen from what, and what was left out."""
    pool = found.pool
    failures_list(pool.failures)
    for remark in pool.remarks:
        say(remark)
    if pool.known:
        say(f"{counted(pool.known, 'image')} left out, because {'it has' if pool.known == 1 else 'they have'} a label")
    if pool.copies:
        say(f"{counted(pool.copies, 'copy', 'copies')} left out")
    if len(found) < found.budget:
        say(f"the pool has only {counted(len(found), 'new image')}")
    by = f"with {pool.run.path}" if pool.run else "without a run"
    say(f"{len(found)} of {counted(len(pool), 'image')} chosen {by}, by {found.strategy}: {REASONS[found.strategy]}")

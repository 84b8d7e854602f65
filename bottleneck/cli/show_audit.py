"""Format an audit as a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bottleneck.cli.layout import TextTable, right
from bottleneck.cli.output import Thing
from bottleneck.images.naming import from_images
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.auditing.findings import Finding
    from bottleneck.auditing.result import Audit
    from bottleneck.auditing.worth import Worth

_HEADINGS = {
    "label error": "probable label errors",
    "exact duplicate": "exact duplicates",
    "near duplicate": "near duplicates",
    "outlier": "outliers",
    "bad picture": "bad pictures",
}


def audit_report(found: Audit, top: int) -> list[Thing]:
    """Return the findings of each kind, at most `top`, with what removing or correcting them is worth."""
    images = f"{counted(found.n, 'image')} of {found.dataset.source}, features of {found.model}"
    things: list[Thing] = [images + _accuracy(found)]
    for kind, heading in _HEADINGS.items():
        things += _of_kind(found, kind, heading, top)
    things += [*_overlaps(found, top), *_border(found)]
    things.append(f"searched for, and not found: {', '.join(_clean(found))}")
    return [*things, *found.remarks, f"{_total(found)} in {found.seconds:.1f} s"]


def _accuracy(found: Audit) -> str:
    if found.accuracy is None or found.accuracy_ci95 is None:
        return ""
    low, high = found.accuracy_ci95
    return (
        f": {found.head}, cross-validated over all splits, classifies {found.accuracy:.1%} as labelled (95 % interval "
        f"{low:.1%} to {high:.1%})"
    )


def _clean(found: Audit) -> list[str]:
    """Return what was searched for and not found."""
    searched = dict(_HEADINGS)
    if not found.has_labels:
        del searched["label error"]
    if found.near_threshold is None and found.thumbnail_threshold is None:
        del searched["near duplicate"]
    if not found.has_pictures:
        del searched["bad picture"]
    clean = [heading for kind, heading in searched.items() if not found.of_kind(kind)]
    if found.has_labels and not found.overlaps:
        clean.append("classes that overlap")
    if found.border is not None and not found.border.is_finding:
        clean.append("a border that tells the class")
    return clean or ["nothing else"]


def _total(found: Audit) -> str:
    return f"{counted(len({one.digest for one in found.findings}), 'image')} with findings"


def _of_kind(found: Audit, kind: str, heading: str, top: int) -> Iterator[Thing]:
    own = found.of_kind(kind)
    if not own:
        return
    yield from ("", f"{len(own)} {heading if len(own) > 1 else heading.removesuffix('s')}:")
    yield _table(own[:top], found.dataset.source)
    if len(own) > top:
        yield f"... and {len(own) - top} more: --top {len(own)} prints, and --out FILE.csv writes them"
    for one in found.worth.get(own[0].kind, ()):
        yield worth_line(one)


def _table(findings: Sequence[Finding], images: Path) -> TextTable:
    """Return a table with paths relative to the images."""
    table = TextTable("path", "split", "label", "suggested", "reason", "similar images (cosine)")
    for one in findings:
        shown = (replace(image, path=from_images(image.path, images)) for image in one.similar)
        similar = ", ".join(map(str, shown))
        table.add_row(
            from_images(one.path, images), one.split, one.label or "", one.suggested or "", one.reason, similar
        )
    return table


def _overlaps(found: Audit, top: int) -> Iterator[Thing]:
    if not found.overlaps:
        return
    yield from ("", "classes that overlap: images of one that are predicted as the other")
    table = TextTable("class", *right("confused"), "with", *right("confused", "share", "95 % interval"))
    for pair in found.overlaps[:top]:
        (first, second), (low, high) = pair.classes, pair.share_ci95
        counts = [f"{hits} of {total}" for hits, total in zip(pair.confused, pair.images, strict=True)]
        table.add_row(first, counts[0], second, counts[1], f"{pair.share:.1%}", f"{low:.1%} to {high:.1%}")
    yield table
    if len(found.overlaps) > top:
        yield f"... and {len(found.overlaps) - top} more: --json lists all"


def _border(found: Audit) -> Iterator[Thing]:
    if found.border is not None and found.border.is_finding:
        yield from ("", found.border.reason)


def worth_line(one: Worth) -> str:
    """Return ``remove 37 outliers: +1.2 points, 95 % interval 0.4 to 2.0``."""
    low, high = (100 * end for end in one.ci95)
    return f"{one.name}: {100 * one.gain:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}"

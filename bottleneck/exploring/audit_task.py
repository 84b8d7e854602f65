"""The findings of an audit, as rows of the map."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.auditing.audit import audit
from bottleneck.auditing.findings import KINDS, Finding
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet
from bottleneck.utils.text import first_few

Report = Callable[[float], None]

_TITLES = {
    "label error": "Probable label errors",
    "exact duplicate": "Exact duplicates",
    "near duplicate": "Near duplicates",
    "outlier": "Outliers",
    "bad picture": "Bad pictures",
}
# The share of the time that each stage begins and ends at, roughly.
_STAGES = {"neighbours": (0.0, 0.25), "folds": (0.25, 0.5), "thumbnails": (0.5, 0.95)}


@dataclass(frozen=True)
class Findings:
    """What an audit found.

    Parameters
    ----------
    items : tuple of dict
        ``kind``, ``row``, ``other``, ``suggested``, ``score``, ``text``.
    remarks : tuple of str
        What limits the audit.
    """

    items: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()

    def of(self, row: int) -> list[dict[str, Any]]:
        """Return the findings on one image."""
        return [
            {name: item[name] for name in ("kind", "text", "suggested")} for item in self.items if item["row"] == row
        ]

    def kind_of(self, count: int) -> list[str | None]:
        """Return the kind of the first finding on each of `count` images."""
        found: list[str | None] = [None] * count
        for item in reversed(self.items):
            found[item["row"]] = item["kind"]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        counts = {kind: sum(item["kind"] == kind for item in self.items) for kind in KINDS}
        return {
            "findings": list(self.items),
            "kinds": [{"kind": kind, "title": _TITLES[kind], "count": count} for kind, count in counts.items()],
            "remarks": list(self.remarks),
        }


def find(
    images: Dataset, rows: Sequence[int], model: str, run: Path | None, cache: Path, runs: Path, report: Report
) -> Findings:
    """Audit images.

    Parameters
    ----------
    images : Dataset
        Each image once, with its current label.
    rows : sequence of int
        Their rows on the map.
    model : str
        The spec of their features.
    run : Path or None
        The run whose kind of head is used.
    cache, runs : Path
    report : callable

    Raises
    ------
    BottleneckError
        See `bottleneck.auditing.audit.audit`.
    """

    def progress(stage: str, done: int, total: int) -> None:
        first, last = _STAGES.get(stage, (0.95, 1.0))
        report(first + (last - first) * done / max(1, total))

    options: dict[str, Any] = {"model": model} if run is None else {"run": run}
    found = audit(images, cache=cache, runs=runs, refit=False, progress=progress, **options)
    row_of = dict(zip(images.paths, rows, strict=True))
    return Findings(tuple(_item(one, row_of) for one in found if one.path in row_of), found.remarks)


def copies(images: Dataset, usable: Dataset, named: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    """Yield a finding for each image that several files contain.

    Parameters
    ----------
    images : Dataset
        Each image once.
    usable : Dataset
        All files.
    named : callable
        Returns what a path is called.
    """
    own = DigestSet(images.digests).find(usable.digests)
    order = np.argsort(own, kind="stable")
    for files in np.split(order, np.flatnonzero(np.diff(own[order])) + 1):
        if len(files) > 1 and own[files[0]] >= 0:
            some = [named(usable.paths[file]) for file in files.tolist()]
            text = f"{len(files)} files have the same bytes: {first_few(some)}"
            row = int(own[files[0]])
            yield {"kind": "exact duplicate", "row": row, "other": None, "suggested": None, "score": 1.0, "text": text}


def _item(found: Finding, row_of: dict[str, int]) -> dict[str, Any]:
    other = row_of.get(found.similar[0].path) if found.similar else None
    return {
        "kind": found.kind,
        "row": row_of[found.path],
        "other": other,
        "suggested": found.suggested,
        "score": round(float(found.score), 6),
        "text": found.reason,
    }

"""The dataset of an audit as a table to correct: `extract` and `fit` read it as IMAGES."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bottleneck.auditing.findings import EXACT_KIND, Finding
from bottleneck.images.dataset import Dataset, Failure

_HEADER = ("path", "digest", "label", "suggested", "split", "group", "finding", "reason", "similar")


def correction_rows(
    dataset: Dataset, findings: Sequence[Finding], failures: Sequence[Failure], table: Path
) -> Iterator[list[object]]:
    """Yield the header and one row for each path of the dataset, those with findings first, in their order.

    The column ``label`` has the given labels. Splits are those that the images have now, so that they stay when labels
    are corrected, or rows deleted.

    Parameters
    ----------
    dataset : Dataset
    findings : sequence of Finding
    failures : sequence of Failure
        Images of the dataset that cannot be used have the finding "unusable". Files that cannot be read have no row.
    table : Path
        Where the table is written. Paths of images below its folder are relative to it, others are absolute.
    """
    of_key: dict[str, list[Finding]] = {}
    for found in findings:
        of_key.setdefault(found.path if found.kind == EXACT_KIND else found.digest, []).append(found)
    digests = [row.tobytes().hex() for row in dataset.digests]
    findings_of = [
        of_key.get(digest, []) + of_key.get(path, []) for path, digest in zip(dataset.paths, digests, strict=True)
    ]
    rank = {id(found): place for place, found in enumerate(findings)}
    order = [min((rank[id(found)] for found in own), default=len(rank)) for own in findings_of]
    unusable = {failure.path: failure.message for failure in failures}
    grouped = any(dataset.groups)
    yield [name for name in _HEADER if grouped or name != "group"]
    for row in sorted(range(len(dataset)), key=lambda row: (order[row], row)):
        own = findings_of[row]
        yield [
            path_in_table(dataset.paths[row], table),
            digests[row],
            dataset.labels[row],
            next((found.suggested for found in own if found.suggested), None),
            dataset.splits[row],
            *([dataset.groups[row]] if grouped else []),
            "; ".join([*(found.kind for found in own), *["unusable"] * (dataset.paths[row] in unusable)]),
            "; ".join([*(found.reason for found in own), *filter(None, [unusable.get(dataset.paths[row])])]),
            "; ".join(dict.fromkeys(str(one) for found in own for one in found.similar)),
        ]


def path_in_table(path: str, table: Path) -> str:
    """Return the path of an image as a cell of a table: relative if it is below the table's folder, else absolute."""
    home, full = os.path.abspath(table.parent), os.path.abspath(path)
    return os.path.relpath(full, home) if full.startswith(os.path.join(home, "")) else full

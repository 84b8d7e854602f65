"""The result of an audit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck.auditing.audit_html import findings_html
from bottleneck.auditing.borders import BorderFinding
from bottleneck.auditing.findings import KINDS, Finding, Kind, finding_rows
from bottleneck.auditing.overlaps import Overlap
from bottleneck.auditing.worth import Worth
from bottleneck.charts.html import block, line, note
from bottleneck.charts.labels import isolated
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.utils.frames import as_frame
from bottleneck.utils.text import counted, one_line

_OVERLAPS = 5  # pairs of classes in a notebook


@dataclass(frozen=True, kw_only=True)
class Audit(Sequence[Finding]):
    """What may be wrong with the images of a dataset.

    A sequence of `Finding`, by kind in the order of `bottleneck.auditing.findings.KINDS`, the most suspicious first.

    Parameters
    ----------
    dataset : Dataset
        All images that could be read.
    model : str
        The spec of the features.
    head : str
        The head whose out-of-fold predictions are used.
    n : int
        Number of audited images, each once.
    accuracy : float or None
        Cross-validated accuracy on all images of all splits; None without labels.
    accuracy_ci95 : tuple of float or None
        Its 95 % interval.
    findings : tuple of Finding
    overlaps : tuple of Overlap
    near_threshold : float or None
        The lowest cosine similarity of near duplicates, see `bottleneck.evaluation.near_duplicates`; None if it is
        unknown.
    thumbnail_threshold : float or None
        The same of thumbnails.
    border : BorderFinding or None
        How well the outer eighth of the images predicts the label; None if it was not tested.
    has_labels : bool
        Whether label errors and classes that overlap were searched for.
    has_pictures : bool
        Whether images were decoded.
    worth : dict of str to tuple of Worth
        By kind of finding, the change of accuracy if its images are removed or corrected; empty if it was not measured.
    remarks : tuple of str
        What limits the audit.
    failures : tuple of Failure
        The images that cannot be used.
    seconds : float
    """

    dataset: Dataset
    model: str
    head: str
    n: int
    accuracy: float | None
    accuracy_ci95: tuple[float, float] | None
    findings: tuple[Finding, ...]
    overlaps: tuple[Overlap, ...]
    near_threshold: float | None
    thumbnail_threshold: float | None
    border: BorderFinding | None
    has_labels: bool
    has_pictures: bool
    worth: dict[Kind, tuple[Worth, ...]]
    remarks: tuple[str, ...]
    failures: tuple[Failure, ...]
    seconds: float

    def __len__(self) -> int:
        return len(self.findings)

    def __getitem__(self, index: Any) -> Any:
        return self.findings[index]

    def __repr__(self) -> str:
        counts = [counted(count, kind) for kind, count in self.counts.items() if count]
        return one_line(self, counted(self.n, "image"), *counts)

    def _repr_html_(self) -> str:
        accuracy = "" if self.accuracy is None else f"; cross-validated accuracy {self.accuracy:.1%}"
        pairs = [
            f"{isolated(pair.classes[0])} and {isolated(pair.classes[1])} overlap" for pair in self.overlaps[:_OVERLAPS]
        ]
        return block(
            f"Audit of {self.dataset.source.name}",
            line(f"{counted(self.n, 'image')}, {self.head} on {self.model}{accuracy}"),
            findings_html(self.findings),
            *map(note, pairs),
            note(f"{counted(len(self.failures), 'image')} could not be used") if self.failures else None,
            *map(note, self.remarks),
        )

    @property
    def counts(self) -> dict[Kind, int]:
        """The number of findings of each kind."""
        return {kind: len(self.of_kind(kind)) for kind in KINDS}

    @property
    def found_anything(self) -> bool:
        """Whether there is a finding of any kind, on images, classes or the border, or an image that cannot be used."""
        return bool(self.findings or self.overlaps or self.failures or (self.border and self.border.is_finding))

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of a kind, the most suspicious first.

        Raises
        ------
        ValueError
            If there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"expected one of {', '.join(KINDS)}, got {kind!r}")
        return tuple(found for found in self.findings if found.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "images": str(self.dataset.source),
            "model": self.model,
            "head": self.head,
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_ci95": None if self.accuracy_ci95 is None else list(self.accuracy_ci95),
            "counts": self.counts,
            "findings": [found.to_json() for found in self.findings],
            "overlaps": [vars(pair) for pair in self.overlaps],
            "near_threshold": self.near_threshold,
            "thumbnail_threshold": self.thumbnail_threshold,
            "border": None if self.border is None else self.border.to_json(),
            "has_labels": self.has_labels,
            "has_pictures": self.has_pictures,
            "worth": {kind: [one.to_json() for one in found] for kind, found in self.worth.items()},
            "remarks": list(self.remarks),
            "failed": len(self.failures),
            "failures": [vars(failure) for failure in self.failures],
            "seconds": round(self.seconds, 3),
        }

    def to_rows(self) -> Iterator[list[object]]:
        """Yield the header and one row for each finding."""
        return finding_rows(self.findings)

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row for each finding.

        Raises
        ------
        BottleneckError
            If pandas is not installed.
        """
        return as_frame(self.to_rows())

"""What an audit says of single images: the reason, and the evidence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bottleneck.utils.text import one_line

Kind = Literal["label error", "exact duplicate", "near duplicate", "outlier", "bad picture"]
KINDS: tuple[Kind, ...] = ("label error", "exact duplicate", "near duplicate", "outlier", "bad picture")
LABEL_KIND, EXACT_KIND, NEAR_KIND = KINDS[:3]
SIMILAR = 3  # images that a finding shows as evidence
COLUMNS = ("finding", "reason", "path", "digest", "split", "label", "suggested", "score", "similar")


@dataclass(frozen=True)
class SimilarImage:
    """An image that is similar to one with a finding.

    Parameters
    ----------
    path : str
    label : str or None
    cosine : float or None
        Cosine similarity of their scaled features, see `bottleneck.auditing.label_errors.label_neighbours`; None for a
        copy.
    """

    path: str
    label: str | None
    cosine: float | None = None

    def __str__(self) -> str:
        named = "" if self.label is None else f" {self.label}"
        return f"{self.path}{named}" + ("" if self.cosine is None else f" ({self.cosine:.2f})")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One image that may be wrong.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    path : str
    digest : str
        SHA-256 of the image's bytes, hexadecimal.
    split : str
    label : str or None
        The given label.
    suggested : str or None
        The label that is more likely; None if the finding is not about the label.
    score : float
        By which findings of a kind are ranked, the most suspicious first: for a label error see
        `bottleneck.auditing.label_errors.LabelErrors`; for a near duplicate the cosine similarity, or 0 if only the
        pictures are similar; for an outlier the modified z-score; for an exact duplicate 1; for a bad picture the
        measured value.
    reason : str
        What was found, with the measured values.
    similar : tuple of SimilarImage
        The nearest images, or the copies.
    """

    kind: Kind
    path: str
    digest: str
    split: str
    label: str | None
    suggested: str | None = None
    score: float
    reason: str
    similar: tuple[SimilarImage, ...] = ()

    def __repr__(self) -> str:
        return one_line(self, self.kind, self.path, self.reason)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**vars(self), "similar": [vars(one) for one in self.similar]}


def finding_rows(findings: Sequence[Finding]) -> Iterator[list[object]]:
    """Yield the header and one row for each finding."""
    yield list(COLUMNS)
    for found in findings:
        yield [
            found.kind,
            found.reason,
            found.path,
            found.digest,
            found.split,
            found.label,
            found.suggested,
            round(found.score, 6),
            "; ".join(map(str, found.similar)),
        ]

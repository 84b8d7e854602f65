"""The part of an audit that needs labels: label errors, classes that overlap, and what changes are worth."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.evidence import Evidence
from bottleneck.auditing.findings import LABEL_KIND, Finding
from bottleneck.auditing.label_errors import LabelErrors, find_label_errors, find_label_errors_again, label_neighbours
from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.auditing.overlaps import Overlap, find_overlaps
from bottleneck.auditing.reduced import AuditedFeatures
from bottleneck.auditing.subject import Subject
from bottleneck.auditing.worth import MOST_ROWS, Change, Worth, worth_of
from bottleneck.errors import HeadError
from bottleneck.evaluation.stats import is_guessing
from bottleneck.heads.features import Features
from bottleneck.heads.options import HeadOptions


@dataclass(frozen=True)
class LabelAudit:
    """Images with one label each, and out-of-fold predictions for them.

    Parameters
    ----------
    evidence : Evidence
        All images.
    rows : ndarray of int, shape (n,)
        Those with one label.
    features : ndarray of float32, shape (n, d)
    labels : tuple of str, length n
    head : str
    options : HeadOptions
    out_of_fold : OutOfFoldProbabilities
    """

    evidence: Evidence
    rows: NDArray[np.intp]
    features: Features
    labels: tuple[str, ...]
    head: str
    options: HeadOptions
    out_of_fold: OutOfFoldProbabilities

    @classmethod
    def of(cls, evidence: Evidence, subject: Subject, read: AuditedFeatures, options: HeadOptions) -> "LabelAudit":
        """Predict all images out of fold.

        Raises
        ------
        HeadError
            If there are no two classes, or no class has two images (of two groups).
        """
        labels = evidence.images.labels
        rows = np.array([row for row, label in enumerate(labels) if label and not subject.ambiguous[row]], np.intp)
        own = tuple(str(labels[row]) for row in rows.tolist())
        counts = Counter(own)
        if len(counts) < 2 or max(counts.values()) < 2:
            raise HeadError("this needs two classes, one of them with two images")
        features = read.features if len(rows) == len(labels) else read.features[rows]
        found = out_of_fold_probabilities(
            features,
            own,
            head=subject.head,
            groups=[evidence.images.groups[row] for row in rows.tolist()],
            options=options,
            selected=subject.selected if read.kept == 1 else None,
        )
        return cls(evidence, rows, features, own, subject.head, options, found)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row in `features` of each image, by its hexadecimal digest."""
        digests = self.evidence.images.digests[self.rows]
        return {digest.tobytes().hex(): row for row, digest in enumerate(digests)}

    @property
    def groups(self) -> list[str | None]:
        """The group of each image."""
        return [self.evidence.images.groups[row] for row in self.rows.tolist()]

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the cross-validated accuracy."""
        found = self.out_of_fold.interval(self.groups)
        assert found is not None  # some images are tested
        return found

    @cached_property
    def is_informative(self) -> bool:
        """Whether predictions are significantly better than guessing; otherwise they say nothing about labels."""
        found, rows = self.out_of_fold, self.out_of_fold.tested
        codes, right = found.codes[rows], found.probabilities[rows].argmax(axis=1) == found.codes[rows]
        counts = np.bincount(codes)
        present = np.flatnonzero(counts)
        balanced = float((np.bincount(codes[right], minlength=len(counts))[present] / counts[present]).mean())
        return len(present) > 1 and not is_guessing(self.interval(), balanced, counts.tolist())

    @property
    def untested(self) -> int:
        """The number of images that no head could be tested on: the only ones of their class, or of its only group."""
        return int((~self.out_of_fold.tested).sum())

    def overlaps(self) -> tuple[Overlap, ...]:
        """Return the classes that overlap; none if predictions are not better than guessing."""
        if not self.is_informative:
            return ()
        found, rows = self.out_of_fold, self.out_of_fold.tested
        return find_overlaps(found.codes[rows], found.probabilities[rows].argmax(axis=1), found.classes)

    def findings(self) -> Iterator[Finding]:
        """Yield the probable label errors; none if predictions are not better than guessing."""
        if not self.is_informative:
            return
        for error in self._errors().errors:
            reason = (
                f"probability {error.probability:.2f} as {error.suggested}, {error.self_confidence:.2f} as labelled; "
                f"{error.label_share:.0%} of its neighbours share the label"
            )
            row = int(self.rows[error.row])
            yield self.evidence.finding(LABEL_KIND, row, reason, error.score, suggested=error.suggested)

    def leaves_two_classes(self, change: Change) -> bool:
        """Return whether heads can be trained after a change."""
        left = set(np.delete(np.array(self.labels), change.rows).tolist()) | set(change.labels or ())
        return len(left) > 1

    def worth(self, changes: Sequence[Change]) -> list[Worth]:
        """Return what changes are worth; their rows are those of `features`."""
        return worth_of(
            self.features,
            self.labels,
            changes,
            head=self.head,
            groups=self.groups,
            options=self.options,
            selected=self.out_of_fold.selected,
        )

    def _errors(self) -> LabelErrors:
        """Return the probable label errors; of many images, only the first list."""
        neighbours = self._neighbours()
        if len(self.rows) > MOST_ROWS:
            return find_label_errors(self.out_of_fold, neighbours)
        return find_label_errors_again(
            self.features, self.out_of_fold, neighbours, head=self.head, groups=self.groups, options=self.options
        )

    def _neighbours(self) -> NDArray[np.intp]:
        """Return the nearest images with one label, as rows of `features`."""
        if len(self.rows) == len(self.evidence.images):
            return self.evidence.neighbours.rows
        return label_neighbours(self.features, self.groups if any(self.groups) else None).rows

"""Find what may be wrong with images and their labels, from cached features."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from bottleneck.auditing.evidence import Evidence
from bottleneck.auditing.findings import KINDS, Finding
from bottleneck.auditing.label_errors import LabelErrors, find_label_errors, label_neighbours
from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.auditing.outliers import OUTLYING, modified_z_scores, neighbour_distances
from bottleneck.auditing.overlaps import Overlap, find_overlaps
from bottleneck.auditing.reduced import AuditedFeatures, read_features
from bottleneck.auditing.result import Audit
from bottleneck.auditing.subject import Subject, subject_of
from bottleneck.auditing.worth import Change, Worth, worth_of
from bottleneck.errors import HeadError
from bottleneck.evaluation.stats import cross_validated_interval
from bottleneck.heads.options import HeadOptions
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.scan import Progress
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.text import counted
from bottleneck.utils.warn import warn

if TYPE_CHECKING:
    from bottleneck.runs.run import Run

_NOUNS = {"label error": "probable label error"}


def audit(
    images: "str | os.PathLike[str] | Dataset | None" = None,
    *,
    run: "str | os.PathLike[str] | Run | None" = None,
    model: str | None = None,
    head: str | None = None,
    cache: str | os.PathLike[str] = "cache",
    runs: str | os.PathLike[str] = "runs",
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    pictures: bool = True,
    refit: bool = True,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Find probable label errors, duplicates, outliers, bad pictures and classes that overlap.

    Images of all splits are audited, each once. Nothing is changed or deleted: every finding is to be reviewed.

    Parameters
    ----------
    images : path or Dataset, optional
        See `bottleneck.scan`. By default the images of `run`, or those that were last extracted in the current folder
        with this cache.
    run : path or Run, optional
        A run, whose features, kind of head and hyperparameters are used.
    model : str, optional
        The backbone whose features are used, or a spec; see `bottleneck.fit`.
    head : str, optional
        ``logistic``, ``svm``, ``softmax`` or ``ridge``; by default that of `run`, or ``logistic``.
    cache, runs : path
        Features are read from `cache`; they must be there.
    path_column, label_column, split_column, group_column : str, optional
        Columns of a table, see `bottleneck.scan`; by default those that were named in its last extraction.
    pictures : bool
        Whether images are decoded, once, to find bad pictures, edited copies, and borders that tell the class.
    refit : bool
        Whether heads are trained again to measure what removing or correcting images is worth.
    memory : int, optional
        Memory for features, in bytes; by default half of the free memory. Features that do not fit are reduced to
        their principal components.
    seed : int
        Equal seeds give equal findings.
    progress : callable, optional
        As for `bottleneck.scan`.

    Returns
    -------
    Audit

    Raises
    ------
    ImagesError
        If there is no image.
    CacheError
        If there is no such model in the cache, or features are missing: extract first.
    HeadError
        If the features are not finite.
    RunError
        If there is no such run.
    """
    started = time.perf_counter()
    check = Arguments(HeadError)
    images, head = as_images(images), check.optional(check.text, "head", head)
    pictures, refit = check.flag("pictures", pictures), check.flag("refit", refit)
    subject = subject_of(
        images,
        run=run,
        model=check.optional(check.text, "model", model),
        head=head,
        cache=cache,
        runs=runs,
        columns=Columns(path_column, label_column, split_column, group_column),
        progress=progress,
    )
    options = HeadOptions(seed=seed)
    features = read_features(subject.cached.store, subject.images.digests, memory)
    return _AuditOf(subject, features, options, progress).result(pictures=pictures, refit=refit, started=started)


@dataclass(frozen=True)
class _AuditOf:
    """An audit of images whose features are in memory.

    Parameters
    ----------
    subject : Subject
    read : AuditedFeatures
    options : HeadOptions
    progress : callable, optional
    """

    subject: Subject
    read: AuditedFeatures
    options: HeadOptions
    progress: Progress | None

    def result(self, *, pictures: bool, refit: bool, started: float) -> Audit:
        """Return all findings."""
        found, cached = self.out_of_fold, self.subject.cached
        findings = [*_label_errors(self.evidence, self.label_errors), *_outliers(self.evidence)]
        return Audit(
            dataset=cached.dataset,
            model=cached.store.short_name,
            head=self.subject.head,
            n=len(self.subject.images),
            accuracy=found.accuracy if found else None,
            accuracy_ci95=self._interval() if found else None,
            findings=tuple(findings),
            overlaps=_overlaps(found) if found else (),
            border=None,
            worth=tuple(self._worth(findings)) if refit else (),
            remarks=tuple(self._remarks()),
            failures=cached.failures,
            seconds=time.perf_counter() - started,
        )

    @cached_property
    def evidence(self) -> Evidence:
        """The images with their nearest neighbours."""
        images, features = self.subject.images, self.read.features
        groups = images.groups if any(images.groups) else None
        progress = partial(self.progress, "neighbours") if self.progress else None
        return Evidence(images, features, label_neighbours(features, groups, progress=progress))

    @cached_property
    def out_of_fold(self) -> OutOfFoldProbabilities | None:
        """The out-of-fold probabilities; None if there are no two classes, or no class has two images."""
        counts = Counter(self.evidence.labels)
        if len(counts) < 2 or max(counts.values()) < 2:
            return None
        return out_of_fold_probabilities(
            self.read.features,
            self.evidence.labels,
            head=self.subject.head,
            groups=self.subject.images.groups,
            options=self.options,
            selected=self.subject.selected if self.read.kept == 1 else None,
        )

    @cached_property
    def label_errors(self) -> LabelErrors | None:
        """Probable label errors; None without out-of-fold probabilities."""
        return find_label_errors(self.out_of_fold, self.evidence.neighbours.rows) if self.out_of_fold else None

    def _interval(self) -> tuple[float, float]:
        found = self.out_of_fold
        assert found is not None
        rows = np.flatnonzero(found.tested)
        right = (found.probabilities[rows].argmax(axis=1) == found.codes[rows]).astype(np.float64)
        groups = [self.subject.images.groups[row] for row in rows.tolist()]
        return cross_validated_interval(found.accuracy, right, groups, share=1 - 1 / self.options.folds)

    def _worth(self, findings: Sequence[Finding]) -> list[Worth]:
        """Return what removing the images of each kind is worth, and what correcting probable label errors is."""
        changes = list(_changes(self.subject.images, findings))
        if not changes or not self.out_of_fold:
            return []
        images = self.subject.images
        try:
            return worth_of(
                self.read.features,
                self.evidence.labels,
                changes,
                head=self.subject.head,
                groups=images.groups,
                options=self.options,
                selected=self.out_of_fold.selected,
            )
        except HeadError as error:
            warn(f"what these changes are worth was not measured: {error}")
            return []

    def _remarks(self) -> Iterator[str]:
        yield from self.subject.remarks
        if self.read.remark:
            yield self.read.remark
        if self.out_of_fold is None:
            yield "label errors were not searched for: this needs two classes, one of them with two images"


def _label_errors(evidence: Evidence, errors: LabelErrors | None) -> Iterator[Finding]:
    for error in errors.errors if errors else ():
        reason = (
            f"probability {error.probability:.2f} as {error.suggested}, {error.self_confidence:.2f} as labelled; "
            f"{error.label_share:.0%} of its neighbours share the label"
        )
        yield evidence.finding("label error", error.row, reason, error.score, suggested=error.suggested)


def _outliers(evidence: Evidence) -> Iterator[Finding]:
    distances = neighbour_distances(evidence.features, evidence.neighbours)
    scores = modified_z_scores(distances)
    usual = float(np.nanmedian(distances)) if not np.isnan(distances).all() else 0.0
    rows = np.flatnonzero(np.nan_to_num(scores) > OUTLYING)
    for row in rows[np.argsort(-scores[rows], kind="stable")].tolist():
        reason = f"cosine distance {distances[row]:.2f} to its neighbours, usually {usual:.2f}"
        yield evidence.finding("outlier", row, reason, float(scores[row]))


def _overlaps(found: OutOfFoldProbabilities) -> tuple[Overlap, ...]:
    rows = found.tested
    return find_overlaps(found.codes[rows], found.probabilities[rows].argmax(axis=1), found.classes)


def _changes(images: Dataset, findings: Sequence[Finding]) -> Iterator[Change]:
    """Yield the changes of the training images that findings suggest."""
    row_of = {digest.tobytes().hex(): row for row, digest in enumerate(images.digests)}
    for kind in KINDS:
        own = [found for found in findings if found.kind == kind and found.digest in row_of]
        rows = np.array([row_of[found.digest] for found in own], np.intp)
        if not own or kind == "exact duplicate":
            continue
        if kind == "label error":
            suggested = [str(found.suggested) for found in own]
            yield Change(f"give {counted(len(own), 'probable label error')} the suggested label", rows, suggested)
        yield Change(f"remove {counted(len(own), _NOUNS.get(kind, kind))}", rows)

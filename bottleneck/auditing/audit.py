"""Find what may be wrong with images and their labels, from cached features."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from bottleneck.auditing.borders import find_border
from bottleneck.auditing.duplicates import Duplicates, find_duplicates
from bottleneck.auditing.evidence import Evidence
from bottleneck.auditing.findings import EXACT_KIND, KINDS, LABEL_KIND, Finding, Kind
from bottleneck.auditing.image_findings import duplicate_findings, outlier_findings, picture_findings
from bottleneck.auditing.label_audit import LabelAudit
from bottleneck.auditing.label_errors import label_neighbours
from bottleneck.auditing.reduced import AuditedFeatures, read_features
from bottleneck.auditing.result import Audit
from bottleneck.auditing.subject import HEADS, Subject, subject_of
from bottleneck.auditing.worth import Change, Worth
from bottleneck.errors import HeadError
from bottleneck.evaluation.copy_threshold import FAR
from bottleneck.evaluation.neighbours import MOST_EXACT
from bottleneck.extraction.thumbnails import thumbnails
from bottleneck.heads.options import HeadOptions
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, as_images
from bottleneck.images.keys import DigestSet
from bottleneck.images.scan import Progress
from bottleneck.images.thumbnails import Thumbnails
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.text import counted, first_few
from bottleneck.utils.warn import warn

if TYPE_CHECKING:
    from bottleneck.runs.run import Run

_NOUNS = {LABEL_KIND: "probable label error"}


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
    labels: bool | None = None,
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
    labels : bool, optional
        Whether folders, or the table, give labels; by default as in the last extraction of the images.
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
        If a value is invalid, or there is not enough memory even for reduced features.
    RunError
        If there is no such run.
    """
    started = time.perf_counter()
    check = Arguments(HeadError)
    images, head = as_images(images), check.optional(check.text, "head", head)
    if head not in (None, *HEADS):
        raise HeadError(f"expected a head among {', '.join(HEADS)}, got {head!r}")
    pictures, refit = check.flag("pictures", pictures), check.flag("refit", refit)
    subject = subject_of(
        images,
        run=run,
        model=check.optional(check.text, "model", model),
        head=head,
        cache=cache,
        runs=runs,
        labels=check.optional(check.flag, "labels", labels),
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
        cached, found = self.subject.cached, self.labels.out_of_fold if self.labels else None
        shown = self._thumbnails() if pictures else None
        duplicates = self._duplicates(shown)
        findings = tuple(self._findings(duplicates, shown))
        return Audit(
            dataset=cached.dataset,
            model=cached.store.short_name,
            head=self.subject.head,
            n=len(self.subject.images),
            accuracy=found.accuracy if found else None,
            accuracy_ci95=self.labels.interval() if self.labels else None,
            findings=findings,
            overlaps=self.labels.overlaps() if self.labels else (),
            near_threshold=duplicates.threshold,
            thumbnail_threshold=duplicates.thumbnail_threshold,
            border=find_border(self.evidence.images, shown, seed=self.options.seed) if shown else None,
            has_labels=self.labels is not None and self.labels.is_informative,
            has_pictures=shown is not None,
            worth=self._worth(findings) if refit else {},
            remarks=tuple(self._remarks(duplicates, shown)),
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

    @property
    def labels(self) -> LabelAudit | None:
        """The audit of the labels; None if they cannot be audited."""
        return None if isinstance(self._labels_or_reason, str) else self._labels_or_reason

    @cached_property
    def _labels_or_reason(self) -> LabelAudit | str:
        """The audit of the labels, or why they cannot be audited."""
        evidence = self.evidence
        try:
            with self._stage("folds"):
                return LabelAudit.of(evidence, self.subject, self.read, self.options)
        except HeadError as error:
            return str(error)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Report the beginning and the end of a stage without steps."""
        report = self.progress or (lambda *_: None)
        report(name, 0, 1)
        try:
            yield
        finally:
            report(name, 1, 1)

    def _findings(self, duplicates: Duplicates, shown: Thumbnails | None) -> Iterator[Finding]:
        wrong = tuple(self.labels.findings()) if self.labels else ()
        yield from wrong
        yield from duplicate_findings(duplicates, {found.digest for found in wrong})
        yield from outlier_findings(self.evidence)
        yield from picture_findings(self.evidence, shown) if shown else ()

    def _thumbnails(self) -> Thumbnails:
        return thumbnails(self.subject.images, self.subject.cached.store.folder.parents[1], progress=self.progress)

    def _duplicates(self, shown: Thumbnails | None) -> Duplicates:
        """Return the duplicates among all paths; of many images, only neighbours are compared by features."""
        usable = self.subject.cached.usable
        first = DigestSet(usable.digests).sorted_rows
        others = np.setdiff1d(np.arange(len(usable)), first)
        every = usable.subset([*first.tolist(), *others.tolist()])
        many = len(first) > MOST_EXACT
        known = self.evidence.neighbours.rows[:, :FAR] if many else None
        return find_duplicates(every, self.read.features, shown, neighbours=known)

    def _worth(self, findings: Sequence[Finding]) -> dict[Kind, tuple[Worth, ...]]:
        """Return, by kind, what removing its images is worth, and what correcting probable label errors is."""
        changes = _changes(self.labels, findings) if self.labels else {}
        if self.labels is None or not changes:
            return {}
        try:
            with self._stage("worth"):
                found = iter(self.labels.worth([change for group in changes.values() for change in group]))
        except HeadError as error:
            warn(f"what these changes are worth was not measured: {error}")
            return {}
        return {kind: tuple(next(found) for _ in group) for kind, group in changes.items()}

    def _remarks(self, duplicates: Duplicates, shown: Thumbnails | None) -> Iterator[str]:
        yield from self.subject.remarks
        if self.read.remark:
            yield self.read.remark
        if isinstance(self._labels_or_reason, str):
            yield f"label errors were not searched for: {self._labels_or_reason}"
        if self.labels and not self.labels.is_informative:
            yield (
                f"label errors were not searched for: {self.subject.head} is not significantly better than guessing on "
                f"these images, so its predictions say nothing about their labels"
            )
        if self.labels and self.labels.untested:
            count = self.labels.untested
            yield f"labels that cannot be tested, because no other image (or group) has them: {counted(count, 'image')}"
        if any(self.subject.images.groups) and len(self.subject.images) > MOST_EXACT:
            yield f"of more than {MOST_EXACT:,} images, near duplicates in one group are found by their pictures alone"
        yield from duplicates.remarks
        if shown is None:
            yield "no pictures were decoded: bad pictures and borders were not searched for"
        elif shown.failures:
            few = first_few([failure.path for failure in shown.failures])
            yield f"the pictures of {counted(len(shown.failures), 'image')} cannot be read any more: {few}"


def _changes(labels: LabelAudit, findings: Sequence[Finding]) -> dict[Kind, list[Change]]:
    """Return the changes of the training images that findings suggest, if they leave two classes."""
    changes: dict[Kind, list[Change]] = {}
    for kind in KINDS:
        own = [found for found in findings if found.kind == kind and found.digest in labels.row_of]
        rows = np.array([labels.row_of[found.digest] for found in own], np.intp)
        if not own or kind == EXACT_KIND:  # each image is trained on once
            continue
        some = [Change(f"remove {counted(len(own), _NOUNS.get(kind, kind))}", rows)]
        if kind == LABEL_KIND:
            name = f"give {counted(len(own), 'probable label error')} the suggested label"
            some.insert(0, Change(name, rows, [str(found.suggested) for found in own]))
        changes[kind] = [change for change in some if labels.leaves_two_classes(change)]
    return {kind: some for kind, some in changes.items() if some}

"""The contents of a report: which pictures are shown, and the sections of the page."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bottleneck.auditing.findings import EXACT_KIND, KINDS, NEAR_KIND, Finding
from bottleneck.auditing.result import Audit
from bottleneck.images.failures import by_reason
from bottleneck.images.scan import Progress
from bottleneck.prediction.predict import THRESHOLD
from bottleneck.reporting.album import Album, in_turn
from bottleneck.reporting.confidence import answer_levels, coverage_figure, reliability_figure
from bottleneck.reporting.evidence import RunEvidence
from bottleneck.reporting.findings import clean_kinds, heading_of
from bottleneck.reporting.located import LocatedImages
from bottleneck.reporting.matrix import OPENED, MatrixCell, MatrixView, matrix_view
from bottleneck.reporting.reproduction import reproduction
from bottleneck.reporting.scores import accuracies_figure, cautions, headline, out_of_fold
from bottleneck.reporting.shots import Shot, ShotMaker
from bottleneck.reporting.training import epochs_view, search_view

FINDINGS = 12  # of each kind
LEAKS = 8  # pairs
_FAILURES = 5  # names of images that cannot be used, of each reason


@dataclass(frozen=True, kw_only=True)
class FindingsView:
    """The findings of a kind.

    Parameters
    ----------
    heading, meaning : str
    evidence : str
        What the pictures beside each finding are.
    count : int
    shots : list of Shot
    """

    heading: str
    meaning: str
    evidence: str
    count: int
    shots: list[Shot]


def report_contents(found: RunEvidence, most: int, progress: Progress | None = None) -> dict[str, Any]:
    """Return the variables of the template, with at most `most` pictures."""
    matrix = matrix_view(_classes(found), found.tested)
    album = Album(most)
    for digests in _wanted(found, matrix):
        album.reserve(digests)
    album.develop(found.located.paths, progress)
    make = ShotMaker(found.located, album)
    return {
        **_subject(found),
        **_predictions(found, make),
        **_confusion(found, matrix, make),
        **_confidence(found),
        **_data(found, make),
        "search": search_view(found.run.card),
        "epochs": epochs_view(found.run.card),
        "reproduction": reproduction(found.run),
        "album": album,
    }


def _classes(found: RunEvidence) -> Sequence[str]:
    return found.run.metrics.get("classes") or found.run.classes


def _wanted(found: RunEvidence, matrix: MatrixView) -> Iterator[list[str]]:
    """Yield digests of pictures, the most important first."""
    shown = [*found.mistakes, *found.uncertain, *found.unfamiliar]
    findings = [one for some in _shown_findings(found).values() for one in some]
    pairs = [digest for pair in _leaked_pairs(found) for digest in pair[:2] if digest]
    yield [one.digest for one in shown]
    yield [one.digest for one in findings]
    yield pairs
    for place in range(max([len(near) for near in found.similar.values()], default=0)):
        yield [near[place].digest for near in found.similar.values() if place < len(near)]
    similar = (found.located.digest(other.path) for one in findings for other in one.similar)
    yield [digest for digest in similar if digest]
    groups = [[one.digest for one in matrix.images_of(cell, found.tested)] for cell in matrix.opened]
    yield list(in_turn(groups, OPENED))


def _subject(found: RunEvidence) -> dict[str, Any]:
    """Return what was trained on what, and how well it did."""
    run, card = found.run, found.run.card
    metrics = out_of_fold(run) if card.get("headline") == "cross-validation" else run.metrics
    counts = run.part("dataset", "labels") or {}
    return {
        "run": run,
        "card": card,
        "dataset": Path(card["dataset"].get("source", "images")).name,
        "label_counts": counts,
        "headline": headline(run),
        "cautions": list(cautions(run)),
        "metrics": metrics,
        "accuracies": accuracies_figure(run),
        "held_out": run.metrics,
        "failures": [
            (code, len(some), [found.located.shown(one.path) for one in some[:_FAILURES]])
            for code, some in by_reason(run.failures).items()
        ],
        "images_found": found.located.dataset is not None,
    }


def _predictions(found: RunEvidence, make: ShotMaker) -> dict[str, Any]:
    def shots(images: Sequence[Any], familiar: bool = False) -> list[Shot]:
        return [
            make.of_prediction(
                one, found.similar.get(one.digest, ()), f"familiarity {one.familiarity:.2g}" if familiar else ""
            )
            for one in images
        ]

    familiarities = [one.familiarity for one in found.tested if one.familiarity is not None]
    known = found.run.uncertainty if familiarities else None
    return {
        "tested": found.tested,
        "wrong_count": int((~found.tested.right).sum()) if len(found.tested) else 0,
        "mistakes": shots(found.mistakes),
        "uncertain": shots(found.uncertain),
        "unfamiliar": shots(found.unfamiliar, familiar=True),
        "unfamiliar_count": sum(p <= THRESHOLD for p in familiarities),
        "familiar_known": len(familiarities),
        "least_familiarity": known.familiarity.least if known else None,
        "unfamiliar_at": THRESHOLD,
        "similar_remark": found.similar_remark,
    }


def _confusion(found: RunEvidence, matrix: MatrixView, make: ShotMaker) -> dict[str, Any]:
    def opened(cell: MatrixCell) -> dict[str, Any]:
        images = matrix.images_of(cell, found.tested)
        with_place = [one for one in images if make.album.has(one.digest)]
        shots = [make.of_prediction(one) for one in with_place or images]
        return {"cell": cell, "shots": shots, "more": cell.count - len(shots)}

    return {"matrix": matrix, "opened": [opened(cell) for cell in matrix.opened]}


def _confidence(found: RunEvidence) -> dict[str, Any]:
    tested = found.tested
    if not len(tested):
        return {"reliability": None, "coverage": None, "levels": []}
    return {
        "reliability": reliability_figure(tested.confidence, tested.right),
        "coverage": coverage_figure(tested.confidence, tested.right),
        "levels": answer_levels(tested.confidence, tested.right),
    }


def _shown_findings(found: RunEvidence) -> dict[str, tuple[Finding, ...]]:
    audit = found.audit.found if found.audit else None
    return {kind: audit.of_kind(kind)[:FINDINGS] for kind in KINDS} if audit else {}


def _data(found: RunEvidence, make: ShotMaker) -> dict[str, Any]:
    audit = found.audit.found if found.audit else None
    leaks = found.run.part("leaks") or {}
    return {
        "audit": audit,
        "audit_remark": found.audit.remark if found.audit else "The images were not audited (--no-audit).",
        "audit_remarks": list(_remarks(audit, found.located)) if audit else [],
        "clean": clean_kinds(audit) if audit else [],
        "findings": list(_findings(found, audit, make)) if audit else [],
        "leak_counts": leaks.get("counts"),
        "near_checked": leaks.get("near_threshold") is not None,
        "leak_pairs": [
            (*(_of_path(make, *one) for one in zip(pair[:2], pair[2:4], strict=True)), pair[4])
            for pair in _leaked_pairs(found)
        ],
    }


def _findings(found: RunEvidence, audit: Audit, make: ShotMaker) -> Iterator[FindingsView]:
    for kind, some in _shown_findings(found).items():
        if some:
            heading, meaning = heading_of(kind)
            yield FindingsView(
                heading=heading,
                meaning=meaning,
                evidence="Copy of" if kind in (EXACT_KIND, NEAR_KIND) else "Most similar images",
                count=len(audit.of_kind(kind)),
                shots=list(map(make.of_finding, some)),
            )


def _leaked_pairs(found: RunEvidence) -> list[tuple[str | None, str | None, str, str, float]]:
    """Return digests, paths and similarity of training images and held-out images that are near copies."""
    pairs = (found.run.part("leaks") or {}).get("near_duplicates") or []
    find = found.located.digest
    return [(find(train), find(held_out), train, held_out, cosine) for train, held_out, cosine in pairs[:LEAKS]]


def _of_path(make: ShotMaker, digest: str | None, path: str) -> Shot:
    return make.of_image(digest) if digest else Shot(name=make.located.shown(path), picture=None)


def _remarks(audit: Audit, located: LocatedImages) -> Iterator[str]:
    """Yield the remarks of an audit, in which no folder is named that may be private."""
    source = audit.dataset.source
    for remark in audit.remarks:
        for path in audit.dataset.paths if os.sep in remark else ():
            remark = remark.replace(path, located.shown(path)) if path in remark else remark
        yield remark.replace(str(source), source.name)

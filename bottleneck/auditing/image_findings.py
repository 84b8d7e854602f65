"""Findings on single images that need no labels: duplicates, outliers and bad pictures."""

from collections.abc import Collection, Iterator

import numpy as np

from bottleneck.auditing.duplicates import EXACT, NEAR, DuplicateGroup, Duplicates
from bottleneck.auditing.evidence import Evidence
from bottleneck.auditing.findings import EXACT_KIND, NEAR_KIND, Finding, Kind, SimilarImage
from bottleneck.auditing.outliers import OUTLYING, modified_z_scores, neighbour_distances
from bottleneck.auditing.pictures import find_bad_pictures
from bottleneck.images.thumbnails import Thumbnails

_KEPT = ("test", "val", "train")  # of copies, the image of the first of these splits is left


def duplicate_findings(duplicates: Duplicates, suspected: Collection[str] = ()) -> Iterator[Finding]:
    """Yield a finding for each image of a group of duplicates but one, exact copies first.

    The one that is left is an image whose label is not suspected, if there is one, and a held-out image: without its
    copies in the training split, it is a fair test. Groups that are known to the splits, because all their images have
    the same given group, are left out.

    Parameters
    ----------
    duplicates : Duplicates
    suspected : collection of str
        Digests of probable label errors.
    """
    for kind, name in ((EXACT, EXACT_KIND), (NEAR, NEAR_KIND)):
        for group in duplicates.groups:
            if group.kind == kind and not (group.grouped and not group.across_labels):
                yield from _copies(group, name, suspected)


def _copies(group: DuplicateGroup, kind: Kind, suspected: Collection[str]) -> Iterator[Finding]:
    def rank(place: int) -> tuple[bool, int, str]:
        return group.digests[place] in suspected, _KEPT.index(group.splits[place]), group.paths[place]

    order = sorted(range(len(group.paths)), key=rank)
    left, *copies = order
    notes = ["with different labels"] * group.across_labels + ["in different splits"] * group.across_splits
    label_of = dict(zip(group.paths, group.labels, strict=True))
    seen = {group.digests[left]} if kind == NEAR_KIND else set()
    for place in copies:
        if kind == NEAR_KIND and group.digests[place] in seen:
            continue  # another path of the same image
        seen.add(group.digests[place])
        yield Finding(
            kind=kind,
            path=group.paths[place],
            digest=group.digests[place],
            split=group.splits[place],
            label=group.labels[place],
            score=1.0 if kind == EXACT_KIND else group.cosine or 0.0,
            reason=", ".join([group.reasons[place], *notes]),
            similar=(SimilarImage(group.closest[place], label_of[group.closest[place]]),),
        )


def outlier_findings(evidence: Evidence) -> Iterator[Finding]:
    """Yield the outliers, the farthest first."""
    distances = neighbour_distances(evidence.features, evidence.neighbours)
    scores = modified_z_scores(distances)
    usual = float(np.nanmedian(distances)) if not np.isnan(distances).all() else 0.0
    rows = np.flatnonzero(np.nan_to_num(scores) > OUTLYING)
    for row in rows[np.argsort(-scores[rows], kind="stable")].tolist():
        reason = f"cosine distance {distances[row]:.2f} to its neighbours, usually {usual:.2f}"
        yield evidence.finding("outlier", row, reason, float(scores[row]))


def picture_findings(evidence: Evidence, shown: Thumbnails) -> Iterator[Finding]:
    """Yield the bad pictures, in the order of the rules."""
    row_of = {digest.tobytes().hex(): row for row, digest in enumerate(evidence.images.digests)}
    for bad in find_bad_pictures(evidence.images, shown):
        yield evidence.finding("bad picture", row_of[bad.digest], bad.reason, bad.value, similar=())

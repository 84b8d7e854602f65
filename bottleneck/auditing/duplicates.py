"""Exact and near duplicates of a dataset, within and across splits and labels, in groups."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.copy_threshold import ALIKE
from bottleneck.evaluation.near_duplicates import CopyPairs, near_duplicates_within
from bottleneck.evaluation.neighbours import NOBODY
from bottleneck.evaluation.perceptual_hash import ClosePairs, close_pairs, hashes_of
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet
from bottleneck.images.thumbnails import Thumbnails

EXACT, NEAR = "exact copies", "near copies"
Edges = dict[tuple[int, int], tuple[float | None, int | None]]  # rows of two images: cosine similarity, bits


@dataclass(frozen=True)
class DuplicateGroup:
    """Paths of one image, or of images that are edited copies of each other.

    Parameters
    ----------
    kind : str
        ``exact copies``, the same bytes at several paths, or ``near copies``.
    paths : tuple of str
    digests : tuple of str
        Of each path, hexadecimal.
    labels, splits : tuple of str or None
        Of each path.
    cosine : float or None
        Of near copies, the highest cosine similarity of two of them that is above the threshold; see
        `bottleneck.evaluation.near_duplicates.near_duplicates`.
    bits : int or None
        The fewest bits by which the perceptual hashes of two of them differ, if their thumbnails show that they are
        copies; see `bottleneck.evaluation.perceptual_hash.close_pairs`.
    grouped : bool
        Whether all of them have the same given group, so that they are never in different splits or folds.
    reason : str
        Why they are together.
    closest : tuple of str
        For each path, that of the image in the group that is most like it.
    reasons : tuple of str
        How each is like its closest image.
    """

    kind: str
    paths: tuple[str, ...]
    digests: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str, ...]
    cosine: float | None
    bits: int | None
    grouped: bool
    reason: str
    closest: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def across_labels(self) -> bool:
        """Whether the images have different labels."""
        return len({label for label in self.labels if label is not None}) > 1

    @property
    def across_splits(self) -> bool:
        """Whether the images are in different splits."""
        return len(set(self.splits)) > 1


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of a dataset.

    Parameters
    ----------
    groups : tuple of DuplicateGroup
        Those with several labels first, then those in several splits, then the others, and those of one given group
        last; exact copies before near ones, and the most similar ones first.
    threshold : float or None
        The lowest cosine similarity of near copies; None if it is unknown, because there are too few images.
    usual : float or None
        The median cosine similarity of an image and the one most similar to it.
    thumbnail_threshold : float or None
        The lowest cosine similarity of the thumbnails of near copies; None if they were not compared, or if it is
        unknown, because there are too few.
    remarks : tuple of str
        What limits the search.
    """

    groups: tuple[DuplicateGroup, ...]
    threshold: float | None
    usual: float | None
    thumbnail_threshold: float | None
    remarks: tuple[str, ...]


def find_duplicates(
    dataset: Dataset,
    features: NDArray[np.float32] | None,
    thumbnails: Thumbnails | None = None,
    *,
    neighbours: NDArray[np.intp] | None = None,
) -> Duplicates:
    """Return the exact and near duplicates among all images of a dataset.

    Parameters
    ----------
    dataset : Dataset
    features : ndarray of float32, shape (n, d), or None
        Row i is that of image i of the dataset; copies at its end may be left out. None compares only thumbnails.
    thumbnails : Thumbnails, optional
        Of the same images; where there is none, only features are compared.
    neighbours : ndarray of int, shape (n, k), optional
        Rows of the images nearest to each image, if they are already known, which saves most of the time; see
        `bottleneck.evaluation.near_duplicates.near_duplicates_within`.

    Returns
    -------
    Duplicates
        The result does not depend on the order of the images.
    """
    rows = DigestSet(dataset.digests).sorted_rows  # each image once
    groups = [dataset.groups[row] for row in rows.tolist()]
    near = _no_pairs()
    if features is not None:
        in_order = np.array_equal(rows, np.arange(len(features)))
        known = None if neighbours is None else _renumbered(neighbours, dataset, rows)
        near = near_duplicates_within(features if in_order else features[rows], groups=groups, neighbours=known)
    close = _no_close_pairs()
    if thumbnails is not None:
        some = thumbnails.take(rows)
        close = close_pairs(hashes_of(some.pixels, some.known))
    found = [*_exact(dataset, rows), *_near(dataset, rows, _edges(near, close))]
    return Duplicates(
        groups=tuple(sorted(found, key=_rank)),
        threshold=near.threshold,
        usual=near.usual,
        thumbnail_threshold=close.threshold,
        remarks=tuple(_remarks(near, close, features is not None, thumbnails)),
    )


def _renumbered(neighbours: NDArray[np.intp], dataset: Dataset, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the neighbours of each image, numbered among the images; those that are the image itself are nobody."""
    place = np.full(len(dataset), NOBODY, np.intp)
    place[rows] = np.arange(len(rows))
    numbers = place[DigestSet(dataset.digests).find(dataset.digests)]
    some = neighbours[rows]
    found = np.where(some == NOBODY, NOBODY, numbers[some])
    found[found == np.arange(len(rows))[:, None]] = NOBODY
    return found


def _rank(group: DuplicateGroup) -> tuple[Any, ...]:
    severity = 0 if group.across_labels else 1 if group.across_splits else 2 + group.grouped
    bits = 64 if group.bits is None else group.bits
    return severity, group.kind != EXACT, -(group.cosine or 0.0), bits, group.paths


def _no_pairs() -> CopyPairs:
    return CopyPairs(np.zeros((0, 2), np.intp), np.zeros(0, np.float32), None, None)


def _no_close_pairs() -> ClosePairs:
    return ClosePairs(np.zeros((0, 2), np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32), None)


def _edges(near: CopyPairs, close: ClosePairs) -> Edges:
    """Return the pairs of images that are near duplicates, with the cosine similarity and the bits that tell so."""
    edges: Edges = {}
    for (a, b), cosine in zip(near.rows.tolist(), near.cosines.tolist(), strict=True):
        edges[a, b] = cosine, None
    for (a, b), bits in zip(close.rows.tolist(), close.bits.tolist(), strict=True):
        edges[a, b] = edges.get((a, b), (None, None))[0], bits
    return edges


def _exact(dataset: Dataset, rows: NDArray[np.intp]) -> Iterable[DuplicateGroup]:
    paths = _paths_of(dataset)
    for row in rows.tolist():
        same = paths[row]
        if len(same) > 1:
            reason = f"the same bytes at {len(same)} paths"
            others = {row: (same[row == same[0]], reason) for row in same}
            yield _group(dataset, EXACT, same, _Evidence(None, None), others)


def _near(dataset: Dataset, rows: NDArray[np.intp], edges: Edges) -> Iterable[DuplicateGroup]:
    paths = _paths_of(dataset)
    component = _components(edges)
    members: dict[int, list[int]] = defaultdict(list)
    closest: dict[int, tuple[int, _Evidence]] = {}
    for (a, b), (cosine, bits) in edges.items():
        found = _Evidence(cosine, bits)
        for image, other in ((a, b), (b, a)):
            if image not in closest or found.rank() < closest[image][1].rank():
                closest[image] = other, found
    for image, number in component.items():
        members[number].append(image)
    for images in members.values():
        evidence = [closest[image][1] for image in images]
        best = _Evidence(
            max((one.cosine for one in evidence if one.cosine is not None), default=None),
            min((one.bits for one in evidence if one.bits is not None), default=None),
        )
        others = {
            row: (int(rows[closest[image][0]]), closest[image][1].reason())
            for image in images
            for row in paths[int(rows[image])]
        }
        yield _group(dataset, NEAR, list(others), best, others)


@dataclass(frozen=True)
class _Evidence:
    """How similar two images are: the cosine similarity of features, and the bits by which hashes differ."""

    cosine: float | None
    bits: int | None

    def rank(self) -> tuple[float, int]:
        """Return what sorts the most similar pair first."""
        return -(self.cosine or 0.0), 64 if self.bits is None else self.bits

    def reason(self, up_to: str = "") -> str:
        """Return it as text."""
        parts = [
            *([] if self.cosine is None else [f"features with a cosine similarity of {up_to}{self.cosine:.2f}"]),
            *([] if self.bits is None else [f"perceptual hashes that differ by {self.bits} of 64 bits"]),
        ]
        return " and ".join(parts)


def _group(
    dataset: Dataset, kind: str, rows: list[int], best: _Evidence, others: dict[int, tuple[int, str]]
) -> DuplicateGroup:
    """Return a group; `others` has the row of the closest image of each row, and how they are alike."""
    rows = sorted(rows, key=lambda row: dataset.paths[row])
    return DuplicateGroup(
        kind=kind,
        paths=tuple(dataset.paths[row] for row in rows),
        digests=tuple(dataset.digests[row].tobytes().hex() for row in rows),
        labels=tuple(dataset.labels[row] for row in rows),
        splits=tuple(dataset.splits[row] for row in rows),
        cosine=None if best.cosine is None else round(best.cosine, 4),
        bits=best.bits,
        grouped=len({dataset.groups[row] for row in rows}) == 1 and dataset.groups[rows[0]] is not None,
        reason=best.reason("up to ") or others[rows[0]][1],
        closest=tuple(dataset.paths[others[row][0]] for row in rows),
        reasons=tuple(others[row][1] for row in rows),
    )


def _paths_of(dataset: Dataset) -> dict[int, list[int]]:
    """Return the rows of each image, by its first row."""
    found: dict[int, list[int]] = defaultdict(list)
    for row, first in enumerate(DigestSet(dataset.digests).find(dataset.digests).tolist()):
        found[first].append(row)
    return found


def _components(edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return the number of the connected component of each node of a graph."""
    neighbours: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    found: dict[int, int] = {}
    for start in neighbours:
        waiting = [] if start in found else [start]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = start
                waiting += neighbours[node]
    return found


def _remarks(near: CopyPairs, close: ClosePairs, has_features: bool, thumbnails: Thumbnails | None) -> Iterable[str]:
    if has_features and near.threshold is None:
        yield "near copies were not searched for by features: too few images, or most of them have the same features"
    if near.threshold is not None and near.usual is not None and near.usual >= ALIKE:
        yield (
            f"most images are as similar to another one as edited copies are (median {near.usual:.2f}), like the "
            f"frames of a video: only the most similar ones are listed; give images that were taken together the same "
            f"group"
        )
    if thumbnails is not None and close.threshold is None:
        yield ("near copies were not searched for by thumbnails: too few pictures, or all of them are nearly uniform")

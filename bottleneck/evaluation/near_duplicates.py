"""Find images that are near duplicates, edited copies of one photograph, by features and by perceptual hashes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.copy_threshold import ALIKE, FAR, LEAST_IMAGES, SAMPLE, copy_threshold
from bottleneck.evaluation.flattening import Flattening, spread
from bottleneck.evaluation.neighbours import NOBODY, cosines_with, nearest_neighbours
from bottleneck.evaluation.perceptual_hash import Hashes, close_pairs
from bottleneck.heads.features import equal_rows
from bottleneck.images.dataset import Dataset
from bottleneck.images.naming import examples, from_images
from bottleneck.utils.groups import group_codes

Features = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of a training image and a held-out image that are near duplicates.

    Parameters
    ----------
    pairs : tuple of (str, str, float)
        Path of the training image, path of the held-out image, and cosine similarity, the most similar first; see
        `near_duplicates`. Pairs that only their thumbnails show may have any cosine similarity.
    threshold : float or None
        The lowest cosine similarity of near duplicates; None if they were not searched for by features.
    usual : float or None
        The median cosine similarity of a training image and the one most similar to it.
    thumbnails : int
        The number of held-out images whose thumbnails were compared, too.
    """

    pairs: tuple[tuple[str, str, float], ...]
    threshold: float | None
    usual: float | None = None
    thumbnails: int = 0

    @property
    def alike(self) -> bool:
        """Whether most images are as similar to another one as copies are, as the frames of a video."""
        return self.threshold is not None and self.usual is not None and self.usual >= ALIKE

    def message(self, images: Path) -> str:
        """Return a warning, with paths relative to the folder of images; empty if there is nothing to report."""
        return ". ".join([*self._named(images), *self._of_most_images()])

    def _named(self, images: Path) -> list[str]:
        if not self.pairs:
            return []
        shown = examples(
            (
                f"{from_images(held_out, images)} is like {from_images(train, images)} ({cosine:.2f})"
                for train, held_out, cosine in self.pairs
            ),
            most=2,
        )
        noun = "image has" if len(self.pairs) == 1 else "images have"
        return [
            f"{len(self.pairs)} held-out {noun} a near duplicate in the training images, so the score may be "
            f"optimistic: {shown}. Give such images the same group; the card.json of a fit lists all pairs"
        ]

    def _of_most_images(self) -> list[str]:
        if not self.alike:
            return []
        return [
            f"Most training images are as similar to another one as edited copies are (median {self.usual:.2f}), like "
            f"the frames of a video, so near duplicates cannot be told from other images: if images were taken "
            f"together, give them the same group"
        ]


@dataclass(frozen=True)
class CopyPairs:
    """Rows of images that are near duplicates.

    Parameters
    ----------
    rows : ndarray of int, shape (p, 2)
    cosines : ndarray of float32, shape (p,)
        The most similar first.
    threshold, usual : float or None
        See `NearDuplicates`.
    """

    rows: NDArray[np.intp]
    cosines: NDArray[np.float32]
    threshold: float | None
    usual: float | None


def find_near_duplicates(
    train: Dataset,
    train_features: Features,
    heldout: Dataset,
    heldout_features: Features,
    hashes: tuple[Hashes, Hashes] | None = None,
) -> NearDuplicates:
    """Return the held-out images with a near duplicate in the training split; exact copies do not count.

    Parameters
    ----------
    train, heldout : Dataset
        Each image once.
    train_features, heldout_features : ndarray of float32, shape (n, d) and (m, d)
    hashes : (Hashes, Hashes), optional
        Perceptual hashes of the training and held-out images, as far as they are known.
    """
    exact = {row.tobytes() for row in train.digests}
    other = np.array([row for row, digest in enumerate(heldout.digests) if digest.tobytes() not in exact], np.intp)
    heldout_features = heldout_features[other]
    found = near_duplicates(train_features, heldout_features, groups=train.groups)
    pairs = {(int(a), int(other[b])): float(cosine) for (a, b), cosine in zip(found.rows, found.cosines, strict=True)}
    if hashes is not None and len(other):
        named = set(found.rows[:, 1].tolist())
        more = [(a, b) for a, b in _by_hash(hashes[0], hashes[1].take(other)) if b not in named]
        cosines = _cosines(train_features, heldout_features, more)
        pairs |= {(a, int(other[b])): cosine for (a, b), cosine in zip(more, cosines, strict=True)}
    ordered = sorted(pairs.items(), key=lambda pair: -pair[1])
    return NearDuplicates(
        tuple((train.paths[a], heldout.paths[b], round(cosine, 4)) for (a, b), cosine in ordered),
        found.threshold,
        found.usual,
        0 if hashes is None else int(hashes[1].usable[other].sum()),
    )


def near_duplicates(
    train_features: Features,
    heldout_features: Features,
    *,
    groups: Sequence[str | None] | None = None,
) -> CopyPairs:
    """Return the held-out rows whose nearest training row is a near duplicate: the same photograph, edited.

    Parameters
    ----------
    train_features, heldout_features : ndarray of float32, shape (n, d) and (m, d)
    groups : sequence of str or None, length n, optional
        Groups of the training images. How similar different images are is measured between groups.

    Returns
    -------
    CopyPairs
        Rows are (training row, held-out row). Without a threshold, because there are fewer than `LEAST_IMAGES` training
        rows or all have the same features, there is no pair.

    Notes
    -----
    How similar different images are depends on the backbone and on the images: the mean cosine similarity of two
    photographs of ants and bees is 0.34 with EfficientNet-Lite0, that of two digits is 0.78, and that of photographs is
    0.999 with a ResNet-50 of random weights. Two steps make it comparable.

    Features of both splits are flattened (see `bottleneck.evaluation.flattening.Flattening`): what many images share,
    such as their class, no longer makes them similar.

    The threshold comes from the training images and their nearest other ones; see
    `bottleneck.evaluation.copy_threshold.copy_threshold`.

    `benchmarks/bench_audit.py` measures how many edited copies are found. Stronger edits are missed: this function
    finds leaks, but cannot rule them out.
    """
    n, m = len(train_features), len(heldout_features)
    if n < LEAST_IMAGES:
        return _none()
    flat = Flattening.of(train_features, heldout_features)
    train = flat.unit_rows(train_features)
    threshold, usual = threshold_of(train, group_codes(groups, n))
    if threshold is None or not m:
        return _none(threshold, usual)
    nearest = nearest_neighbours(flat.unit_rows(heldout_features), train, k=1)
    rows = np.column_stack([nearest.rows[:, 0], np.arange(m)])
    return _chosen(rows, nearest.cosines[:, 0], threshold, usual)


def near_duplicates_within(
    features: Features,
    *,
    groups: Sequence[str | None] | None = None,
    neighbours: NDArray[np.intp] | None = None,
) -> CopyPairs:
    """Return all pairs of rows that are near duplicates, each once; see `near_duplicates`.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    groups : sequence of str or None, length n, optional
    neighbours : ndarray of int, shape (n, k), optional
        The rows that each row is compared with, or `NOBODY`. By default its 10 nearest ones after flattening, which
        takes longest. The 10 nearest ones by the features, scaled or not, contain almost all near duplicates. Rows with
        the same features are compared, too.
    """
    n = len(features)
    if n < LEAST_IMAGES:
        return _none()
    unit = Flattening.of(features).unit_rows(features)
    threshold, usual = threshold_of(unit, group_codes(groups, n))
    if threshold is None:
        return _none(threshold, usual)
    if neighbours is None:
        found = nearest_neighbours(unit, k=FAR)
        neighbours, cosines = found.rows, found.cosines
    else:
        neighbours = np.column_stack([neighbours, _next_equal(features)])
        cosines = cosines_with(unit, unit, neighbours)
    keep = (cosines >= threshold) & (neighbours != NOBODY)
    rows = np.column_stack([np.nonzero(keep)[0], neighbours[keep]])
    rows, first = np.unique(np.sort(rows, axis=1), axis=0, return_index=True)
    return _chosen(rows, cosines[keep][first], threshold, usual)


def _next_equal(features: Features) -> NDArray[np.intp]:
    """Return for each row the next one with the same features, or `NOBODY`."""
    codes = equal_rows(features)
    order = np.argsort(codes, kind="stable")
    same = np.flatnonzero(np.diff(codes[order]) == 0)
    found = np.full(len(features), NOBODY, np.intp)
    found[order[same]] = order[same + 1]
    return found


def threshold_of(unit: Features, groups: NDArray[np.intp]) -> tuple[float | None, float | None]:
    """Return the threshold of near duplicates, and the median cosine similarity of the nearest different row.

    Parameters
    ----------
    unit : ndarray of float32, shape (n, d)
        Flattened features of length 1, or 0.
    groups : ndarray of int, shape (n,)
        A row is not compared with rows of the same group.
    """
    usable = np.flatnonzero(unit.any(axis=1))
    rows = usable[spread(len(usable), SAMPLE)]
    nearest = nearest_neighbours(unit[rows], unit, k=FAR, groups=groups[rows], reference_groups=groups)
    return copy_threshold(nearest.cosines)


def _chosen(rows: NDArray[np.intp], cosines: Features, threshold: float, usual: float | None) -> CopyPairs:
    order = np.argsort(-cosines, kind="stable")
    order = order[cosines[order] >= threshold]
    return CopyPairs(rows[order], cosines[order], threshold, usual)


def _none(threshold: float | None = None, usual: float | None = None) -> CopyPairs:
    return CopyPairs(np.zeros((0, 2), np.intp), np.zeros(0, np.float32), threshold, usual)


def _by_hash(train: Hashes, heldout: Hashes) -> list[tuple[int, int]]:
    """Return the closest training row of each held-out row whose hash and thumbnail are those of a copy."""
    n = len(train)
    found = close_pairs(train.joined(heldout), basis=n)
    best: dict[int, tuple[int, int]] = {}
    for (a, b), bits in zip(found.rows.tolist(), found.bits.tolist(), strict=True):
        if a < n <= b and (b not in best or bits < best[b][1]):
            best[b] = (a, bits)
    return [(a, b - n) for b, (a, _) in sorted(best.items())]


def _cosines(train: Features, heldout: Features, pairs: Sequence[tuple[int, int]]) -> list[float]:
    """Return the cosine similarities of pairs of flattened rows."""
    if not pairs:
        return []
    flat = Flattening.of(train, heldout)
    a, b = (flat.unit_rows(part[[pair[i] for pair in pairs]]) for i, part in enumerate((train, heldout)))
    return [float(value) for value in np.einsum("nd,nd->n", a, b)]

"""Perceptual hashes: 64 bits of the coarse shape of a picture, similar for edited copies, and how to find these."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.copy_threshold import FAR, LEAST_IMAGES, SAMPLE, copy_threshold
from bottleneck.evaluation.flattening import Flattening, spread
from bottleneck.evaluation.neighbours import nearest_neighbours
from bottleneck.images.thumbnails import SIDE, grey_levels

MOST_BITS = 11  # by which the hashes of copies differ
_MANY = 20_000  # pictures; with more, fewer bits are searched, which takes an eighth of the time
_MOST_BITS_OF_MANY = 7
_FLAT = 4.0  # levels; the standard deviation of a picture without shapes
_REFERENCES = 50_000  # images among which the nearest ones of a sample are searched
_PAIRS = 8192  # whose thumbnails are compared at once
_LOW = 8  # frequencies in each direction
_BANDS, _BAND = 4, 16  # bands of bits of a hash
_AT_ONCE = 1 << 21  # candidates that are compared at once
_BLOCK = 8192  # thumbnails
_MOST_PAIRS = 2_000_000
_ONES = np.array([bin(word).count("1") for word in range(1 << _BAND)], np.uint8)
Words = NDArray[np.uint64]  # (n,)


@dataclass(frozen=True)
class Hashes:
    """The perceptual hashes of pictures.

    Parameters
    ----------
    words : ndarray of uint64, shape (n,)
    mirrored : ndarray of uint64, shape (n,)
        Those of the mirrored pictures.
    usable : ndarray of bool, shape (n,)
        Whether a picture has a hash: it is known, and not nearly uniform, whose bits are noise.
    grey : ndarray of uint8, shape (n, SIDE, SIDE)
        The brightness of the thumbnails.
    """

    words: Words
    mirrored: Words
    usable: NDArray[np.bool_]
    grey: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[np.intp]) -> "Hashes":
        """Return the hashes of some pictures."""
        return Hashes(*(values[rows] for values in vars(self).values()))

    def joined(self, other: "Hashes") -> "Hashes":
        """Return the hashes of these pictures, followed by those of others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Hashes(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of pictures that are copies by their thumbnails.

    Parameters
    ----------
    rows : ndarray of int, shape (p, 2)
        In increasing order; the second row is the larger one.
    bits : ndarray of int, shape (p,)
        By which the hashes differ, or one and the other's mirror image.
    cosines : ndarray of float32, shape (p,)
        Cosine similarities of the thumbnails.
    threshold : float or None
        The lowest cosine similarity of copies; None if it is unknown, because there are too few pictures.
    """

    rows: NDArray[np.intp]
    bits: NDArray[np.intp]
    cosines: NDArray[np.float32]
    threshold: float | None


def hashes_of(thumbnails: NDArray[np.uint8], known: NDArray[np.bool_] | None = None) -> Hashes:
    """Return the perceptual hashes of thumbnails.

    Parameters
    ----------
    thumbnails : ndarray of uint8, shape (n, SIDE, SIDE, 3)
    known : ndarray of bool, shape (n,), optional
        Which thumbnails there are; by default all.

    Notes
    -----
    A bit says whether one of the 8 x 8 lowest frequencies of the discrete cosine transform of the grey levels is above
    their median (C. Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"). Mirroring
    changes the sign of every second horizontal frequency.
    """
    n = len(thumbnails)
    found = Hashes(
        np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, bool), np.zeros((n, SIDE, SIDE), np.uint8)
    )
    transform = np.cos(np.pi / SIDE * np.outer(np.arange(_LOW), np.arange(SIDE) + 0.5)) * np.sqrt(2 / SIDE)
    transform[0] /= np.sqrt(2)
    signs = np.tile(np.where(np.arange(_LOW) % 2, -1.0, 1.0), _LOW)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        grey = grey_levels(thumbnails[part])
        low = (transform @ grey @ transform.T).reshape(-1, _LOW * _LOW)
        found.words[part], found.mirrored[part] = _packed(low), _packed(low * signs)
        found.usable[part] = grey.std(axis=(1, 2)) >= _FLAT
        found.grey[part] = grey.round()
    if known is not None:
        found.usable[~known] = False
    return found


def close_pairs(hashes: Hashes, basis: int | None = None) -> ClosePairs:
    """Return the pairs of pictures whose hashes differ by few bits, and whose thumbnails are like copies.

    Parameters
    ----------
    hashes : Hashes
    basis : int, optional
        How many of the first pictures tell how similar different ones are; by default all.

    Notes
    -----
    Hashes that differ by at most `MOST_BITS`, or 7 for more than 20,000 pictures, find candidates fast, but those of
    simple pictures, such as digits, are similar. The thumbnails decide: each is centred and scaled, flattened as
    features are (see `bottleneck.evaluation.flattening.Flattening`), and compared with the other one and its mirror
    image. The threshold comes from the set (see `bottleneck.evaluation.copy_threshold.copy_threshold`).
    """
    usable = np.flatnonzero(hashes.usable)
    first = usable if basis is None else usable[usable < basis]
    if len(first) < LEAST_IMAGES:
        return ClosePairs(np.zeros((0, 2), np.intp), np.zeros(0, np.intp), np.zeros(0, np.float32), None)
    some = hashes.grey[usable[spread(len(usable), SAMPLE)]]
    thumbnails = _FlatThumbnails(
        hashes.grey[first[spread(len(first), _REFERENCES)]], Flattening.of(_standardised(some))
    )
    threshold = thumbnails.threshold()
    rows, bits = pairs_within(hashes, MOST_BITS if len(hashes) <= _MANY else _MOST_BITS_OF_MANY)
    cosines = thumbnails.cosines(hashes.grey, rows)
    keep = cosines >= (np.inf if threshold is None else threshold)
    return ClosePairs(rows[keep], bits[keep], cosines[keep], threshold)


def pairs_within(hashes: Hashes, bits: int, most: int = _MOST_PAIRS) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return all pairs of usable pictures whose hashes differ by at most `bits` < 12, and by how many.

    If there are more than `most`, each picture keeps only the pair with the closest picture before it.

    Notes
    -----
    Of four bands of 16 bits, at least one differs by at most a quarter of `bits`. So only pictures with such a band are
    compared (M. Norouzi, A. Punjani, D. Fleet 2012, "Fast search in Hamming space with multi-index hashing", CVPR,
    3108-3115).
    """
    usable = np.flatnonzero(hashes.usable)
    words, mirrored = hashes.words[usable], hashes.mirrored[usable]
    found = _Pairs(most)
    for others in (words, mirrored):
        for queries, candidates in _candidates(words, others, bits // _BANDS):
            near = _distances(words[queries], others[candidates])
            keep = near <= bits
            found.add(queries[keep], candidates[keep], near[keep])
    rows, distances = found.all()
    return usable[rows], distances


@dataclass(frozen=True)
class _FlatThumbnails:
    """Thumbnails as directions whose cosine similarity tells copies.

    Parameters
    ----------
    grey : ndarray of uint8, shape (n, SIDE, SIDE)
    flat : Flattening
    """

    grey: NDArray[np.uint8]
    flat: Flattening

    def threshold(self) -> float | None:
        """Return the threshold of copies, from a sample and the nearest of all thumbnails and their mirror images."""
        rows = spread(len(self.grey), SAMPLE)
        queries = self._directions(self.grey[rows])
        numbers = np.arange(len(self.grey))
        found = []
        for others in (self.grey, self.grey[:, :, ::-1]):
            unit = self._directions(others)
            nearest = nearest_neighbours(queries, unit, k=FAR, groups=rows, reference_groups=numbers)
            found.append(nearest.cosines)
        return copy_threshold(-np.sort(-np.concatenate(found, axis=1), axis=1)[:, :FAR])[0]

    def cosines(self, grey: NDArray[np.uint8], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the cosine similarities of pairs ``(p, 2)`` of thumbnails, mirrored or not."""
        found = np.zeros(len(rows), np.float32)
        for start in range(0, len(rows), _PAIRS):
            a, b = rows[start : start + _PAIRS].T
            one, other, mirrored = (self._directions(part) for part in (grey[a], grey[b], grey[b][:, :, ::-1]))
            direct, mirror = (np.einsum("nd,nd->n", one, part) for part in (other, mirrored))
            found[start : start + _PAIRS] = np.maximum(direct, mirror)
        return found

    def _directions(self, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.flat.unit_rows(_standardised(grey))


def _standardised(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the brightness as rows ``(n, SIDE ** 2)`` with a mean of 0 and a variance of almost 1."""
    rows = grey.reshape(len(grey), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= rows.std(axis=1, keepdims=True) + 1
    return rows


class _Pairs:
    """Pairs of rows with their distances, each once; beyond `most` of them, one for each second row."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows, self._bits = np.zeros((0, 2), np.intp), np.zeros(0, np.intp)
        self._new: list[NDArray[np.intp]] = []
        self._count = 0

    def add(self, a: NDArray[np.int32], b: NDArray[np.int32], bits: NDArray[np.uint8]) -> None:
        self._new.append(np.column_stack([a, b, bits]).astype(np.intp))
        self._count += len(a)
        if self._count > self._most:
            self.all()

    def all(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        table = np.concatenate([np.column_stack([self._rows, self._bits]), *self._new])
        table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
        table = table[_first_of(table[:, :2])]
        if len(table) > self._most:
            table = table[np.lexsort((table[:, 0], table[:, 2], table[:, 1]))]
            table = table[_first_of(table[:, 1:2])]
            table = table[np.lexsort((table[:, 1], table[:, 0]))]
        self._rows, self._bits = table[:, :2], table[:, 2]
        self._new, self._count = [], 0
        return self._rows, self._bits


def _first_of(keys: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which rows of a sorted table differ from the one before."""
    return np.concatenate([np.ones(min(1, len(keys)), bool), (keys[1:] != keys[:-1]).any(axis=1)])


def _candidates(words: Words, others: Words, radius: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Yield rows a < b such that a band of word a differs from that of the other b by at most `radius` bits."""
    masks = [sum(1 << bit for bit in some) for r in range(radius + 1) for some in combinations(range(_BAND), r)]
    for band in range(_BANDS):
        own, theirs = _band(words, band), _band(others, band)
        order = np.argsort(theirs, kind="stable").astype(np.int32)
        counts = np.bincount(theirs, minlength=1 << _BAND).astype(np.int32)
        starts = np.cumsum(counts, dtype=np.int32) - counts
        for mask in masks:
            sizes = counts[own ^ mask]
            for part in _parts(sizes):
                size = sizes[part]
                queries = np.repeat(np.arange(part.start, part.stop, dtype=np.int32), size)
                shift = starts[own[part] ^ mask] - (np.cumsum(size, dtype=np.int32) - size)
                candidates = order[np.repeat(shift, size) + np.arange(len(queries), dtype=np.int32)]
                keep = queries < candidates
                yield queries[keep], candidates[keep]


def _parts(sizes: NDArray[np.int32]) -> Iterator[slice]:
    """Yield consecutive parts of rows with about `_AT_ONCE` candidates in total."""
    ends = np.cumsum(sizes, dtype=np.int64)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        if ends[stop - 1] > before:
            yield slice(start, stop)
        start = stop


def _distances(a: Any, b: Words) -> NDArray[np.uint8]:
    """Return by how many bits words differ."""
    difference = a ^ b
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        counts: NDArray[np.uint8] = np.bitwise_count(difference)
        return counts
    return sum((_ONES[_band(difference, band)] for band in range(_BANDS)), np.zeros(len(difference), np.uint8))


def _band(words: Words, band: int) -> NDArray[np.int32]:
    return ((words >> np.uint64(_BAND * band)) & np.uint64((1 << _BAND) - 1)).astype(np.int32)


def _packed(low: NDArray[np.float64]) -> Words:
    """Return one word for each row of 64 frequencies."""
    bits = np.packbits(low > np.median(low, axis=1, keepdims=True), axis=1)
    return np.ascontiguousarray(bits).view(np.uint64).ravel()

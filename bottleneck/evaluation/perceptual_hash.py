"""Perceptual hashes: 64 bits of the coarse shape of a picture, similar for edited copies, and how to find these."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.flattening import spread
from bottleneck.images.thumbnails import SIDE, grey_levels

MOST_BITS = 10  # by which the hashes of copies differ
LEAST_IMAGES = 10
_DEVIATIONS = 4
_FLAT = 4.0  # levels; the standard deviation of a picture without shapes
_SAMPLE = 1000  # images that tell how close the hashes of different images are
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
    """

    words: Words
    mirrored: Words
    usable: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.words)

    def take(self, rows: NDArray[np.intp]) -> "Hashes":
        """Return the hashes of some pictures."""
        return Hashes(self.words[rows], self.mirrored[rows], self.usable[rows])

    def joined(self, other: "Hashes") -> "Hashes":
        """Return the hashes of these pictures, followed by those of others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Hashes(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of pictures with close hashes.

    Parameters
    ----------
    rows : ndarray of int, shape (p, 2)
        In increasing order; the second row is the larger one.
    bits : ndarray of int, shape (p,)
        By which the hashes differ, or one and the other's mirror image.
    most : int or None
        The largest distance of copies; None if the hashes of these pictures do not tell copies from others.
    """

    rows: NDArray[np.intp]
    bits: NDArray[np.intp]
    most: int | None


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
    found = Hashes(np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, bool))
    transform = np.cos(np.pi / SIDE * np.outer(np.arange(_LOW), np.arange(SIDE) + 0.5)) * np.sqrt(2 / SIDE)
    transform[0] /= np.sqrt(2)
    signs = np.tile(np.where(np.arange(_LOW) % 2, -1.0, 1.0), _LOW)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        grey = grey_levels(thumbnails[part])
        low = (transform @ grey @ transform.T).reshape(-1, _LOW * _LOW)
        found.words[part], found.mirrored[part] = _packed(low), _packed(low * signs)
        found.usable[part] = grey.std(axis=(1, 2)) >= _FLAT
    if known is not None:
        found.usable[~known] = False
    return found


def close_pairs(hashes: Hashes) -> ClosePairs:
    """Return the pairs of pictures whose hashes are as close as those of copies; see `usual_limit`."""
    most = usual_limit(hashes)
    if most is None:
        return ClosePairs(np.zeros((0, 2), np.intp), np.zeros(0, np.intp), None)
    rows, bits = pairs_within(hashes, most)
    return ClosePairs(rows, bits, most)


def usual_limit(hashes: Hashes) -> int | None:
    """Return by how many bits the hashes of copies differ at most: fewer than those of different pictures of this set.

    It is the median distance of a picture to the one nearest to it, minus 4 median absolute deviations (at least one
    bit each), and at most `MOST_BITS`. Simple pictures, such as digits, have similar hashes: then it may be below 0,
    and the result is None. It is None, too, for fewer than `LEAST_IMAGES` pictures.
    """
    usable = hashes.take(np.flatnonzero(hashes.usable))
    if len(usable) < LEAST_IMAGES:
        return None
    nearest = np.array([_nearest(usable, place) for place in spread(len(usable), _SAMPLE)])
    usual = float(np.median(nearest))
    limit = int(usual - _DEVIATIONS * max(1.0, float(np.median(np.abs(nearest - usual)))) // 1)
    return min(limit, MOST_BITS) if limit >= 0 else None


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


def _nearest(hashes: Hashes, place: int) -> int:
    """Return the distance of the hash of a picture to the nearest other one."""
    direct = _distances(hashes.words[place], hashes.words)
    direct[place] = 64
    mirror = _distances(hashes.words[place], hashes.mirrored)
    mirror[place] = 64
    return int(min(direct.min(), mirror.min()))


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

"""The nearest neighbours of images by the cosine similarity of their features, in bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.threads import ordered_map, single_threaded_blas

Features = NDArray[np.float32]  # (n, d)

NOBODY = -1  # in place of the row of a neighbour that does not exist
MOST_EXACT = 15_000  # references that are all compared in full
_QUERY_BITS, _REFERENCE_BITS = 9, 23  # of a packed hit, besides the 32 bits of its similarity
_QUERIES = 1 << _QUERY_BITS  # rows that are compared at once
_REFERENCES = 2048
_GROUPED = 16  # references whose largest similarity is compared with the threshold first
_COMPONENTS = 64  # principal components in which many references are compared first
_CANDIDATES, _MORE_CANDIDATES = 2, 30  # for each neighbour, and in addition, which are then compared in full
_RERANKED = 64  # queries whose candidates are compared at once
_HITS = 128  # for each query, after which only the best are kept


@dataclass(frozen=True)
class CosineNeighbours:
    """The nearest references of each query.

    Parameters
    ----------
    rows : ndarray of int, shape (m, k)
        Rows of the references, the most similar first; of equally similar ones the first. `NOBODY` where fewer than k
        references may be neighbours.
    cosines : ndarray of float32, shape (m, k)
        Their cosine similarities; -inf for `NOBODY`.
    """

    rows: NDArray[np.intp]
    cosines: NDArray[np.float32]


class _Comparison(NamedTuple):
    """Queries and references, with their groups; the query of a row is not its own neighbour if `within`."""

    queries: Features
    references: Features
    groups: NDArray[np.intp] | None
    reference_groups: NDArray[np.intp] | None
    within: bool


def unit_rows(features: Features, centre: NDArray[np.float32] | None = None) -> Features:
    """Return the features minus the centre ``(d,)``, each row divided by its Euclidean norm; a row of zeros stays."""
    rows: Features = features.astype(np.float32) if centre is None else features - centre
    norms = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    rows /= np.where(norms, norms, 1)[:, None]
    return rows


def nearest_neighbours(
    queries: Features,
    references: Features | None = None,
    k: int = 10,
    *,
    groups: NDArray[np.intp] | None = None,
    reference_groups: NDArray[np.intp] | None = None,
    most_exact: int = MOST_EXACT,
    progress: Callable[[int, int], None] | None = None,
) -> CosineNeighbours:
    """Return the k nearest references of each query.

    Parameters
    ----------
    queries : ndarray of float32, shape (m, d)
        Rows of length 1, see `unit_rows`.
    references : ndarray of float32, shape (n, d), optional
        By default the queries; a row is then not its own neighbour.
    k : int
        At least 1. With fewer than k possible neighbours, the last columns are `NOBODY`.
    groups : ndarray of int, shape (m,), optional
        A query is not a neighbour of a reference of the same group, for example another photograph of the same scene;
        a negative number is no group.
    reference_groups : ndarray of int, shape (n,), optional
        The groups of the references, by default `groups` where the references are the queries.
    most_exact : int
        The number of references up to which all are compared in full. Beyond it, only the 2 k + 30 nearest of each
        query by the leading 64 principal components are.
    progress : callable, optional
        Called with the number of queries that are done, and that of all.

    Returns
    -------
    CosineNeighbours
        m rows and k columns.

    Raises
    ------
    ValueError
        If there are more than 8,388,608 references.

    Notes
    -----
    The components keep 69 to 93 % of the variance of the features of EfficientNet-Lite0 (photographs of ants and bees,
    digits, solar cells), and the nearest by them contain at least 99.99 % of the 10 and of
    the 30 nearest.
    """
    within = references is None
    targets = queries if references is None else references
    if len(targets) > 1 << _REFERENCE_BITS:
        raise ValueError(f"expected at most {1 << _REFERENCE_BITS:,} references, got {len(targets):,}")
    with single_threaded_blas() as cores:
        search = _Comparison(queries, targets, groups, groups if within else reference_groups, within)
        if len(targets) <= most_exact or targets.shape[1] <= _COMPONENTS:
            return _collected(search, k, cores, progress)
        axes = _principal_axes(targets)
        short = search._replace(queries=queries @ axes, references=targets @ axes)
        candidates = _collected(short, _CANDIDATES * k + _MORE_CANDIDATES, cores, progress)
    return _compared_in_full(search, candidates, k)


def _collected(
    search: _Comparison, k: int, cores: int, progress: Callable[[int, int], None] | None
) -> CosineNeighbours:
    """Return the k nearest references of all queries."""
    m = len(search.queries)
    found = CosineNeighbours(np.full((m, k), NOBODY, np.intp), np.full((m, k), -np.inf, np.float32))
    parts = [slice(start, start + _QUERIES) for start in range(0, m, _QUERIES)]
    results = ordered_map(lambda part: _nearest(search, part, k), parts, cores)
    for part, (rows, cosines) in zip(parts, results, strict=True):
        found.rows[part], found.cosines[part] = rows, cosines
        if progress:
            progress(min(part.stop, m), m)
    return found


def _nearest(search: _Comparison, part: slice, k: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the k nearest references of some queries."""
    best = _Best(len(search.queries[part]), k)
    for first, similar in _similarities(search, part):
        best.add(similar, first)
    return best.finished()


def _similarities(search: _Comparison, part: slice) -> Iterator[tuple[int, Features]]:
    """Yield the similarities ``(q, r)`` of some queries to each block of references, and its first reference.

    They are valid until the next block is requested.
    """
    queries = search.queries[part]
    own = None if search.groups is None else search.groups[part, None]
    buffer = np.empty((len(queries), min(_REFERENCES, len(search.references))), np.float32)
    for first in range(0, len(search.references), _REFERENCES):
        block = search.references[first : first + _REFERENCES]
        similar = np.matmul(queries, block.T, out=buffer if len(block) == buffer.shape[1] else None)
        if own is not None and search.reference_groups is not None:
            similar[(own == search.reference_groups[first : first + _REFERENCES]) & (own >= 0)] = -np.inf
        if search.within:
            rows = np.arange(len(queries))
            columns = rows + part.start - first
            inside = (columns >= 0) & (columns < similar.shape[1])
            similar[rows[inside], columns[inside]] = -np.inf
        yield first, similar


class _Best:
    """The k most similar references of each query so far.

    A reference is kept as one number, which sorts by query, then by descending similarity, then by reference: sorting
    such numbers is five times as fast as sorting rows of three. New ones are sorted in when there are many.

    Parameters
    ----------
    count : int
        Number of queries.
    k : int
    """

    def __init__(self, count: int, k: int) -> None:
        self._count, self._k = count, k
        self._least = np.full(count, -np.inf, np.float32)  # similarity of the k-th reference
        self._hits: list[NDArray[np.uint64]] = []
        self._waiting = 0

    def add(self, similar: Features, first: int) -> None:
        """Add the references from `first` on, whose similarities are ``(q, r)``."""
        if not self._hits and similar.shape[1] > self._k:
            highest = np.partition(similar, -self._k, axis=1)[:, -self._k]
            self._least = np.nextafter(highest, np.float32(-np.inf))
        rows, columns = self._above(similar)
        if not len(rows):
            return
        self._hits.append(_packed(rows, similar[rows, columns], columns + first))
        self._waiting += len(rows)
        if self._waiting > max(_HITS, 2 * self._k) * self._count:
            self._sort_in()

    def _above(self, similar: Features) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the places in ``(q, r)`` similarities that exceed the k-th of the query.

        The largest of several columns is compared first, because few exceed it.
        """
        count, width = similar.shape
        if width % _GROUPED:
            all_rows, all_columns = np.nonzero(similar > self._least[:, None])
            return all_rows, all_columns
        step = width // _GROUPED
        highest = similar.reshape(count, _GROUPED, step).max(axis=1)
        rows, groups = np.nonzero(highest > self._least[:, None])
        columns = groups[:, None] + step * np.arange(_GROUPED)
        place, which = np.nonzero(similar[rows[:, None], columns] > self._least[rows, None])
        return rows[place], columns[place, which]

    def _sort_in(self) -> None:
        """Keep the k best hits of each query."""
        hits = np.sort(np.concatenate(self._hits))
        place, rows = self._places(hits)
        self._hits = [hits[place < self._k]]
        self._waiting = len(self._hits[0])
        last = place == self._k - 1
        self._least[rows[last]] = _similarity(hits[last])

    def _places(self, hits: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the place of each sorted hit among those of its query, and the query."""
        rows = (hits >> np.uint64(64 - _QUERY_BITS)).astype(np.intp)
        return np.arange(len(hits)) - np.searchsorted(rows, np.arange(self._count))[rows], rows

    def finished(self) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return the rows and the similarities of the k best, ``(q, k)``."""
        found = np.full((self._count, self._k), NOBODY, np.intp)
        similar = np.full((self._count, self._k), -np.inf, np.float32)
        if self._hits:
            self._sort_in()
            (hits,) = self._hits
            place, rows = self._places(hits)
            found[rows, place] = (hits & np.uint64((1 << _REFERENCE_BITS) - 1)).astype(np.intp)
            similar[rows, place] = _similarity(hits)
        return found, similar


def _packed(rows: NDArray[np.intp], similar: NDArray[np.float32], references: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Return query, similarity and reference as one number each; see `_Best`.

    The bits of a float sort as an unsigned integer if those of a negative number are inverted, and the sign of a
    positive one is set; inverting all of them makes the order descending.
    """
    bits = (similar + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    packed: NDArray[np.uint64] = rows.astype(np.uint64) << np.uint64(64 - _QUERY_BITS)
    packed |= (~ascending).astype(np.uint64) << np.uint64(_REFERENCE_BITS)
    packed |= references.astype(np.uint64)
    return packed


def _similarity(packed: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the similarities of numbers of `_packed`."""
    ascending = ~((packed >> np.uint64(_REFERENCE_BITS)).astype(np.uint32))
    bits = np.where(ascending >> 31, ascending & np.uint32((1 << 31) - 1), ~ascending)
    return bits.astype(np.uint32).view(np.float32)


def _principal_axes(rows: Features) -> Features:
    """Return the leading directions ``(d, components)`` of the rows' second moments."""
    moments = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _REFERENCES):
        block = rows[start : start + _REFERENCES]
        moments += block.T @ block
    axes: Features = np.linalg.eigh(moments)[1][:, : -_COMPONENTS - 1 : -1].astype(np.float32)
    return axes


def _compared_in_full(search: _Comparison, candidates: CosineNeighbours, k: int) -> CosineNeighbours:
    """Return the k nearest of the candidates ``(m, c)`` of each query by all of the features."""
    similar = cosines_with(search.queries, search.references, candidates.rows)
    order = np.lexsort((candidates.rows, -similar), axis=1)[:, :k]
    return CosineNeighbours(np.take_along_axis(candidates.rows, order, 1), np.take_along_axis(similar, order, 1))


def cosines_with(queries: Features, references: Features, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the cosine similarities of queries with some references each.

    Parameters
    ----------
    queries : ndarray of float32, shape (m, d)
        Rows of length 1, see `unit_rows`.
    references : ndarray of float32, shape (n, d)
    rows : ndarray of int, shape (m, c)
        Rows of references, and `NOBODY`.

    Returns
    -------
    ndarray of float32, shape (m, c)
        -inf for `NOBODY`.
    """
    found = np.full(rows.shape, -np.inf, np.float32)

    def compare(start: int) -> None:
        part = slice(start, start + _RERANKED)
        known = rows[part] != NOBODY
        found[part][known] = np.einsum("qd,qcd->qc", queries[part], references[rows[part]])[known]

    with single_threaded_blas() as cores:
        for _ in ordered_map(compare, range(0, len(queries) if len(references) else 0, _RERANKED), cores):
            pass
    return found

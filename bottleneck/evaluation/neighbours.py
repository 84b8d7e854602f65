"""The nearest neighbours of images by the cosine similarity of their features, exactly and in bounded memory."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.threads import single_threaded_blas

Features = NDArray[np.float32]  # (n, d)

_QUERIES = 512  # rows that are compared at once
_REFERENCES = 4096
NOBODY = -1  # in place of the row of a neighbour that does not exist


@dataclass(frozen=True)
class Neighbours:
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


def unit_rows(features: Features, centre: NDArray[np.float32] | None = None) -> Features:
    """Return the features minus the centre ``(d,)``, each row divided by its Euclidean norm; a row of zeros stays."""
    rows = features.astype(np.float32) if centre is None else features - centre
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
) -> Neighbours:
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

    Returns
    -------
    Neighbours
        m rows and k columns.
    """
    within = references is None
    targets = queries if references is None else references
    target_groups = groups if within else reference_groups
    found = Neighbours(np.full((len(queries), k), NOBODY, np.intp), np.full((len(queries), k), -np.inf, np.float32))

    def search(start: int) -> None:
        part = slice(start, start + _QUERIES)
        rows, cosines = found.rows[part], found.cosines[part]
        own = None if groups is None else groups[part]
        for first in range(0, len(targets), _REFERENCES):
            similar = queries[part] @ targets[first : first + _REFERENCES].T
            if own is not None and target_groups is not None:
                others = target_groups[first : first + _REFERENCES]
                similar[(own[:, None] == others) & (own[:, None] >= 0)] = -np.inf
            if within:
                self_rows = np.arange(start, start + len(similar)) - first
                inside = (self_rows >= 0) & (self_rows < similar.shape[1])
                similar[np.flatnonzero(inside), self_rows[inside]] = -np.inf
            _merge(rows, cosines, similar, first)

    with single_threaded_blas() as cores, ThreadPoolExecutor(max(1, cores)) as threads:
        for _ in threads.map(search, range(0, len(queries), _QUERIES)):
            pass
    return found


def _merge(rows: NDArray[np.intp], cosines: NDArray[np.float32], similar: NDArray[Any], first: int) -> None:
    """Merge the cosines ``(q, r)`` of references from row `first` on into the nearest ones so far ``(q, k)``."""
    k = rows.shape[1]
    better = np.flatnonzero((similar > cosines[:, -1:]).any(axis=1))
    if not len(better):
        return
    values = np.concatenate([cosines[better], similar[better]], axis=1)
    places = np.concatenate(
        [rows[better], np.broadcast_to(np.arange(first, first + similar.shape[1]), (len(better), similar.shape[1]))],
        axis=1,
    )
    if values.shape[1] > k:
        few = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
        values, places = np.take_along_axis(values, few, 1), np.take_along_axis(places, few, 1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    values, places = np.take_along_axis(values, order, 1), np.take_along_axis(places, order, 1)
    places[np.isneginf(values)] = NOBODY
    cosines[better], rows[better] = values, places

"""Choose images that are far apart, or typical of different clusters, by the cosine of their features."""

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.neighbours import Features, nearest_neighbours

_ROWS = 4096
_PASSES = 10  # of k-means
_TYPICAL = 20  # neighbours within a cluster
_MOST_CLUSTERS = 500  # unless more rows are wanted


def far_apart(
    units: Features, weights: NDArray[np.float64], count: int, chosen: Features | None = None
) -> NDArray[np.intp]:
    """Return rows with large weights that are far from each other and from those chosen before.

    Parameters
    ----------
    units : ndarray of float32, shape (n, d)
        Rows of length 1.
    weights : ndarray of float64, shape (n,)
        At least 0. A row of weight 0 is returned only if there are not enough others.
    count : int
        At most n.
    chosen : ndarray of float32, shape (m, d), optional
        Rows of images that are labelled.

    Returns
    -------
    ndarray of int, shape (count,)
        In the order in which they are chosen.

    Notes
    -----
    Each step takes the row with the largest product of its weight and its squared distance to the nearest row chosen
    before: the greedy form of k-means++ (D. Arthur and S. Vassilvitskii 2007, "k-means++: the advantages of careful
    seeding"). With equal weights this is the greedy solution of the k-centre problem, also known as core-set selection
    (O. Sener and S. Savarese 2018, "Active learning for convolutional neural networks: a core-set approach").
    """
    squares = np.full(len(units), 4.0)
    if chosen is not None and len(chosen):
        squares = squared_distances(units, chosen)
    rows, left = np.empty(count, np.intp), np.ones(len(units), bool)
    for place in range(count):
        gains = np.where(left, weights * squares, -1.0)
        rows[place] = row = int(gains.argmax()) if gains.max() > 0 else int(np.where(left, weights, -1.0).argmax())
        left[row] = False
        np.minimum(squares, np.maximum(0.0, 2 - 2 * (units @ units[row])), out=squares)
    return rows


def squared_distances(units: Features, others: Features) -> NDArray[np.float64]:
    """Return the squared Euclidean distance ``(n,)`` of each row of length 1 to the nearest of other such rows."""
    nearest = nearest_neighbours(units, others, k=1).cosines[:, 0].astype(np.float64)
    return np.maximum(0.0, 2 - 2 * nearest)


def k_means(units: Features, count: int, seed: int = 0) -> NDArray[np.intp]:
    """Return the cluster ``(n,)`` of each row, by spherical k-means from rows that `far_apart` chooses.

    Parameters
    ----------
    units : ndarray of float32, shape (n, d)
        Rows of length 1.
    count : int
        Number of clusters, at most n; some may be empty.
    seed : int
        Selects the rows that are far apart, of at most 20 for each cluster.
    """
    some = np.random.default_rng(seed).permutation(len(units))[: max(20 * count, 1000)]
    centres = units[some[far_apart(units[some], np.ones(len(some)), count)]]
    clusters = np.full(len(units), -1)
    for _ in range(_PASSES):
        before, clusters = clusters, _nearest_centre(units, centres)
        if (before == clusters).all():
            break
        centres = _means(units, clusters, centres)
    return clusters


def typical_rows(
    units: Features, count: int, labelled: NDArray[np.bool_] | None = None, seed: int = 0
) -> NDArray[np.intp]:
    """Return the most typical row of each of the largest clusters without labelled rows.

    Parameters
    ----------
    units : ndarray of float32, shape (n, d)
        Rows of length 1.
    count : int
        At most the number of rows that are not labelled.
    labelled : ndarray of bool, shape (n,), optional
        None by default.
    seed : int

    Returns
    -------
    ndarray of int, shape (count,)
        Those of larger clusters first.

    Notes
    -----
    TypiClust: G. Hacohen, A. Dekel and D. Weinshall 2022, "Active learning on a budget: opposite strategies suit high
    and low budgets". There is a cluster for each wanted and each labelled row, but at most 500 if fewer rows are
    wanted. Typicality is the mean similarity to the 20 nearest rows of the cluster. Clusters with few labelled rows
    come first.
    """
    known = np.zeros(len(units), bool) if labelled is None else labelled
    wanted = max(count, min(count + int(known.sum()), _MOST_CLUSTERS))
    clusters = k_means(units, min(len(units), wanted), seed)
    of_cluster = {int(number): np.flatnonzero(clusters == number) for number in np.unique(clusters)}
    typicality = np.zeros(len(units))
    for rows in of_cluster.values():
        found = nearest_neighbours(units[rows], k=min(_TYPICAL, max(1, len(rows) - 1))).cosines
        typicality[rows] = np.where(np.isneginf(found), 0, found).mean(axis=1)
    covered = {number: int(known[rows].sum()) for number, rows in of_cluster.items()}
    left = {number: rows[~known[rows]] for number, rows in of_cluster.items()}
    left = {number: rows[np.argsort(-typicality[rows], kind="stable")].tolist() for number, rows in left.items()}
    chosen: list[int] = []
    while len(chosen) < count:
        number = min((one for one in left if left[one]), key=lambda one: (covered[one], -len(left[one]), one))
        chosen.append(left[number].pop(0))
        covered[number] += 1
    return np.array(chosen, np.intp)


def _nearest_centre(units: Features, centres: Features) -> NDArray[np.intp]:
    found = np.empty(len(units), np.intp)
    for start in range(0, len(units), _ROWS):
        found[start : start + _ROWS] = (units[start : start + _ROWS] @ centres.T).argmax(axis=1)
    return found


def _means(units: Features, clusters: NDArray[np.intp], centres: Features) -> Features:
    """Return the mean direction of each cluster; an empty cluster keeps its centre."""
    order = np.argsort(clusters, kind="stable")
    present, starts = np.unique(clusters[order], return_index=True)
    found = centres.copy()
    ends = [*starts[1:].tolist(), len(order)]
    for number, start, end in zip(present.tolist(), starts.tolist(), ends, strict=True):
        mean = units[order[start:end]].mean(axis=0)
        norm = float(np.linalg.norm(mean))
        found[number] = mean / norm if norm else centres[number]
    return found

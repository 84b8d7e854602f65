"""From features to two dimensions: principal components at once, t-SNE slowly, and clusters for colours."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import BottleneckError
from bottleneck.exploring.feature_rows import FeatureRows

COMPONENTS = 50  # used by t-SNE and by clusters
SEED = 0
MOST_EMBEDDED = 200_000  # rows that t-SNE embeds; the others are placed among them
INSTALL = "pip install 'bottleneck-vision[explore]'"
_SAMPLE = 10_000  # rows from which components and cluster centres are computed
_BLOCK = 1024
_PERPLEXITY = 30.0
_ITERATIONS = 750  # of openTSNE: 250 with early exaggeration, then 500
_STEP = 25  # iterations between two reports
_ROUNDS = 50  # of k-means
_TINY = 1e-12

Points = NDArray[np.float32]  # (n, 2)
Report = Callable[[float], None]


@dataclass(frozen=True)
class Components:
    """The leading principal directions of features.

    Parameters
    ----------
    centre : ndarray of float32, shape (d,)
    axes : ndarray of float32, shape (d, c)
    """

    centre: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def of(cls, rows: FeatureRows, count: int = COMPONENTS) -> "Components":
        """Compute the directions from at most 10,000 evenly spaced rows; the sign of each is fixed."""
        some = np.arange(0, len(rows), -(-len(rows) // _SAMPLE) or 1)
        parts = [some[start : start + _BLOCK] for start in range(0, len(some), _BLOCK)]
        total = sum(rows.take(part).sum(axis=0, dtype=np.float64) for part in parts)
        centre: NDArray[np.float32] = (total / len(some)).astype(np.float32)
        moments: NDArray[np.float64] = np.zeros((rows.dim, rows.dim))
        for part in parts:
            block = rows.take(part) - centre
            moments += block.T @ block
        axes = np.linalg.eigh(moments)[1][:, : -count - 1 : -1]
        largest = np.abs(axes).argmax(axis=0)
        signs = np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1, 1).astype(np.float32)
        return cls(centre, axes.astype(np.float32) * signs)

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features ``(n, d)`` along the directions, ``(n, c)``."""
        along: NDArray[np.float32] = np.matmul(features - self.centre, self.axes)
        return along

    def project(self, rows: FeatureRows) -> NDArray[np.float32]:
        """Return all rows along the directions, ``(n, c)``."""
        found = np.empty((len(rows), self.axes.shape[1]), np.float32)
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            found[part] = self(rows.take(part))
        return found


def plane(components: NDArray[np.float32]) -> Points:
    """Return the first two components ``(n, 2)``; zeros for those that do not exist."""
    found = np.zeros((len(components), 2), np.float32)
    found[:, : components.shape[1]] = components[:, :2]
    return found


def has_tsne() -> bool:
    """Return whether openTSNE is installed."""
    from importlib.util import find_spec

    return find_spec("openTSNE") is not None


def embed(
    components: NDArray[np.float32], report: Report, *, seed: int = SEED, threads: int = 1, most: int = MOST_EMBEDDED
) -> Points:
    """Return the t-SNE embedding of components ``(n, c)``, started from the first two.

    Parameters
    ----------
    components : ndarray of float32, shape (n, c)
    report : callable
        Called with the share that is done.
    seed : int
    threads : int
    most : int
        Rows that are embedded together, drawn at random. More are placed near their neighbours among them, one by one.

    Raises
    ------
    BottleneckError
        If openTSNE is not installed, or there are fewer than four rows.
    """
    if len(components) < 4:
        raise BottleneckError(f"expected at least 4 images for t-SNE, found {len(components)}")
    try:
        from openTSNE import TSNE
    except ImportError as error:
        raise BottleneckError(f"expected openTSNE, found none: {INSTALL}") from error
    rows = np.sort(np.random.default_rng(seed).permutation(len(components))[:most])
    share = len(rows) / len(components)
    own = components[rows].astype(np.float64)
    start = _start(own)
    base = TSNE(
        perplexity=min(_PERPLEXITY, (len(own) - 1) / 3),
        initialization=start,
        random_state=seed,
        n_jobs=threads,
        callbacks=_IterationsDone(report, share),
        callbacks_every_iters=_STEP,
    ).fit(own)
    found = np.empty((len(components), 2), np.float32)
    found[rows] = base
    others = np.setdiff1d(np.arange(len(components)), rows)
    if len(others):
        found[others] = base.transform(components[others].astype(np.float64))
    report(1.0)
    return found


def _start(components: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the first two components, scaled as openTSNE expects, with a little noise so that copies can part."""
    start = plane(components.astype(np.float32)).astype(np.float64)
    scale = max(float(start[:, 0].std()), _TINY)
    return start / scale * 1e-4 + np.random.default_rng(SEED).normal(size=start.shape) * 1e-7


class _IterationsDone:
    """A callback of openTSNE: it reports which share of the iterations is done."""

    def __init__(self, report: Report, share: float) -> None:
        self._report, self._share, self._done = report, share, 0

    def __call__(self, *_: object) -> None:
        self._done += _STEP
        self._report(min(1.0, self._done / _ITERATIONS) * self._share)


def clusters(components: NDArray[np.float32], count: int, seed: int = SEED) -> NDArray[np.uint16]:
    """Return the cluster of each row ``(n,)`` by k-means, the largest first.

    Centres start as in k-means++ (D. Arthur and S. Vassilvitskii 2007), on at most 10,000 rows.
    """
    some = components[:: -(-len(components) // _SAMPLE) or 1]
    centres = _first_centres(some, min(count, len(some)), np.random.default_rng(seed))
    for _ in range(_ROUNDS):
        own = _closest(some, centres)
        sizes = np.bincount(own, minlength=len(centres))
        sums = np.eye(len(centres), dtype=np.float32)[:, own] @ some
        moved = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
        if np.allclose(moved, centres, atol=1e-6):
            break
        centres = moved
    found = np.concatenate([_closest(components[s : s + _BLOCK], centres) for s in range(0, len(components), _BLOCK)])
    rank = np.empty(len(centres), np.uint16)
    rank[np.argsort(-np.bincount(found, minlength=len(centres)), kind="stable")] = np.arange(len(centres))
    ranked: NDArray[np.uint16] = rank[found]
    return ranked


def _first_centres(rows: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.float32]:
    centres = [rows[random.integers(len(rows))]]
    distances = np.full(len(rows), np.inf)
    while len(centres) < count:
        distances = np.minimum(distances, ((rows - centres[-1]) ** 2).sum(axis=1))
        total = distances.sum()
        if not total > 0:
            break  # fewer distinct rows than centres
        centres.append(rows[random.choice(len(rows), p=distances / total)])
    return np.stack(centres)


def _closest(rows: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.intp]:
    closest: NDArray[np.intp] = ((centres**2).sum(axis=1) - 2 * rows @ centres.T).argmin(axis=1)
    return closest

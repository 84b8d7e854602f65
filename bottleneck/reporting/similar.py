"""The training images that are most similar to some held-out images, by the features that the head sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.evaluation.neighbours import unit_rows
from bottleneck.heads.features import Features, StreamedFeatures
from bottleneck.heads.head import Head
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.images.keys import Digests, as_digests

NEAREST = 3
_ROWS = 4096  # training images that are compared at once


@dataclass(frozen=True)
class SimilarTraining:
    """A training image that is similar to another image.

    Parameters
    ----------
    digest : str
        Hexadecimal.
    cosine : float
        Cosine similarity of the features, scaled as the head scales them.
    """

    digest: str
    cosine: float


@single_threaded_blas()
def nearest_training(
    store: Store, head: Head, digests: Sequence[str], training: Digests, k: int = NEAREST
) -> dict[str, tuple[SimilarTraining, ...]]:
    """Return the k most similar training images of each image, the most similar first.

    All training images are compared exactly, in blocks, so that they need not fit in memory.

    Parameters
    ----------
    store : Store
        It has the features of all these images.
    head : Head
        Whose scaling is applied.
    digests : sequence of str
        Hexadecimal digests of q images, each once.
    training : ndarray of uint8, shape (n, 32)
        Each image once.
    k : int

    Raises
    ------
    MissingFeatures
        If features are not in the cache.
    """
    if not len(digests) or not len(training):
        return {}
    queries = _seen(head, store.read(as_digests([bytes.fromhex(one) for one in digests])))
    cosines, rows = np.full((len(digests), k), -np.inf, np.float32), np.full((len(digests), k), -1, np.intp)
    for places, features in StreamedFeatures(store.stream(training)).blocks(_ROWS):
        cosines, rows = _merged(queries @ _seen(head, features).T, places, cosines, rows)
    return {
        digest: tuple(
            SimilarTraining(training[row].tobytes().hex(), float(cosine))
            for row, cosine in zip(rows[place].tolist(), cosines[place].tolist(), strict=True)
            if row >= 0
        )
        for place, digest in enumerate(digests)
    }


def _seen(head: Head, features: Features) -> Features:
    """Return unit rows of features, scaled as the head scales them."""
    rows = unit_rows(features) if head.unit else features
    return unit_rows(((rows - head.mean) / head.scale).astype(np.float32))


def _merged(
    found: NDArray[np.float32], places: NDArray[np.intp], cosines: NDArray[np.float32], rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Return the best of the similarities ``(q, b)`` of a block and those so far ``(q, k)``; ties by row."""
    k = cosines.shape[1]
    kept = np.argsort(-found, axis=1, kind="stable")[:, :k]
    every = np.concatenate([cosines, np.take_along_axis(found, kept, axis=1)], axis=1)
    which = np.concatenate([rows, places[kept]], axis=1)
    order = np.lexsort((which, -every), axis=1)[:, :k]
    return np.take_along_axis(every, order, axis=1), np.take_along_axis(which, order, axis=1)

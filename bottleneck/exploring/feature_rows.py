"""The features of all images in memory, as they are stored, with exact cosine neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.heads.threads import ordered_map, single_threaded_blas
from bottleneck.images.keys import Digests

_BLOCK = 2048  # rows converted to float32 at once
_MOST_FLOAT32 = 300 << 20  # bytes; larger features are kept as float16


@dataclass(frozen=True)
class FeatureRows:
    """Features of n images.

    Parameters
    ----------
    stored : ndarray of float16 or float32, shape (n, d)
    """

    stored: NDArray[Any]

    @classmethod
    def read(cls, store: Store, digests: Digests) -> "FeatureRows":
        """Read the features of ``(n, 32)`` digests once; float32 that would take more than 300 MB becomes float16.

        Raises
        ------
        MissingFeatures, CacheError
            See `bottleneck.cache.store.Store.read`.
        """
        if 4 * len(digests) * store.dim() <= _MOST_FLOAT32:
            return cls(store.read(digests, as_stored=True))
        stored = np.empty((len(digests), store.dim()), np.float16)
        step = max(_BLOCK, len(digests) // 8)
        for start in range(0, len(digests), step):
            part = slice(start, start + step)
            stored[part] = store.read(digests[part], as_stored=True).clip(-65504, 65504)
        return cls(stored)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def dim(self) -> int:
        """The number of features of an image."""
        return int(self.stored.shape[1])

    def take(self, rows: NDArray[np.intp] | slice) -> NDArray[np.float32]:
        """Return the features of some images, float32 ``(m, d)``."""
        found: NDArray[np.float32] = self.stored[rows].astype(np.float32)
        return found

    @cached_property
    def _lengths(self) -> NDArray[np.float32]:
        """The Euclidean norm of each row; 1 for a row of zeros."""
        lengths = self._of_blocks(lambda block: np.sqrt(np.einsum("nd,nd->n", block, block)))
        return np.where(lengths > 0, lengths, 1).astype(np.float32)

    def _of_blocks(self, function: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return a number for each row ``(n,)``, computed block by block in several threads."""
        parts = [slice(start, start + _BLOCK) for start in range(0, len(self), _BLOCK)]
        found = np.empty(len(self), np.float32)
        with single_threaded_blas() as cores:
            results = ordered_map(lambda part: function(self.take(part)), parts, cores)
            for part, values in zip(parts, results, strict=True):
                found[part] = values
        return found

    def nearest(self, query: NDArray[np.float32], k: int, leave_out: int = -1) -> list[tuple[int, float]]:
        """Return the rows with the highest cosine similarity to a query ``(d,)``; each row is compared.

        Parameters
        ----------
        query : ndarray of float32, shape (d,)
        k : int
        leave_out : int
            A row that is left out: the query's own.

        Returns
        -------
        list of (int, float)
            Row and similarity, the most similar first; of equally similar ones the first row.
        """
        unit = query / (np.linalg.norm(query) or 1)
        cosines = self._of_blocks(lambda block: block @ unit) / self._lengths
        if 0 <= leave_out < len(self):
            cosines[leave_out] = -np.inf
        count = min(k, len(self) - (0 <= leave_out < len(self)))
        if count < 1:
            return []
        least = np.partition(cosines, -count)[-count]
        some = np.flatnonzero(cosines >= least)
        order = some[np.argsort(-cosines[some], kind="stable")[:count]]
        return [(int(row), float(cosines[row])) for row in order]

"""Commit computed features, often enough that a kill loses little work and rarely enough to write few shards."""

import time

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests

# A kill loses the work since the last commit: two seconds of work at first, later 2 % of the run.
_FIRST_COMMIT_SECONDS = 2.0
_LAST_COMMIT_SECONDS = 60.0
_COMMIT_SHARE = 0.02
_COMMIT_ROWS = 16_384
_COMMIT_BYTES = 64 << 20  # of one shard


class Commits:
    """Collects features and commits them to a store.

    Parameters
    ----------
    store : Store
    most : int
        Maximum number of bytes that are committed at once.
    """

    def __init__(self, store: Store, most: int = _COMMIT_BYTES) -> None:
        self._store = store
        self._most = most
        self._batches: list[tuple[Digests, NDArray[np.float32]]] = []
        self._started = self._last = time.monotonic()

    def add(self, digests: Digests, features: NDArray[np.float32]) -> None:
        """Add a batch, and commit when enough has been collected."""
        self._batches.append((digests, features))
        now = time.monotonic()
        patience = min(max(_FIRST_COMMIT_SECONDS, _COMMIT_SHARE * (now - self._started)), _LAST_COMMIT_SECONDS)
        rows, size = sum(len(part) for part, _ in self._batches), sum(part.nbytes for _, part in self._batches)
        if now - self._last >= patience or rows >= _COMMIT_ROWS or size >= self._most:
            self.flush()

    def flush(self) -> None:
        """Commit all collected features; once this returns, they survive any kill."""
        if self._batches:
            digests, features = zip(*self._batches, strict=True)
            try:
                self._store.append(np.concatenate(digests), np.concatenate(features))
            except CacheError:
                self._batches = []  # do not try again at the end
                raise
            self._batches = []
        self._last = time.monotonic()

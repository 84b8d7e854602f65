"""Features on their way into the cache: often enough that a kill loses little, seldom enough that shards are few."""

import time

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests

# A commit loses nothing; work since the last one is lost to a kill. Early on that is two seconds' worth, later 2 %.
_FIRST_COMMIT_SECONDS = 2.0
_LAST_COMMIT_SECONDS = 60.0
_COMMIT_SHARE = 0.02
_COMMIT_ROWS = 16_384
_COMMIT_BYTES = 64 << 20  # what one shard takes


class Commits:
    """Collects features and commits them to a store.

    Parameters
    ----------
    store : Store
    most : int
        Bytes that are committed at once.
    """

    def __init__(self, store: Store, most: int = _COMMIT_BYTES) -> None:
        self._store = store
        self._most = most
        self._batches: list[tuple[Digests, NDArray[np.float32]]] = []
        self._started = self._last = time.monotonic()

    def add(self, digests: Digests, features: NDArray[np.float32]) -> None:
        """Take a batch, and commit when enough has come together."""
        self._batches.append((digests, features))
        now = time.monotonic()
        patience = min(max(_FIRST_COMMIT_SECONDS, _COMMIT_SHARE * (now - self._started)), _LAST_COMMIT_SECONDS)
        rows, size = sum(len(part) for part, _ in self._batches), sum(part.nbytes for _, part in self._batches)
        if now - self._last >= patience or rows >= _COMMIT_ROWS or size >= self._most:
            self.flush()

    def flush(self) -> None:
        """Commit what has come together; when this returns it survives any kill."""
        if self._batches:
            digests, features = zip(*self._batches, strict=True)
            try:
                self._store.append(np.concatenate(digests), np.concatenate(features))
            except CacheError:
                self._batches = []  # not to be tried again at the end
                raise
            self._batches = []
        self._last = time.monotonic()

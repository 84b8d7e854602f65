"""Track which images still need work: those that no thread has claimed and no process has committed."""

import threading
import time
from collections.abc import Callable, Set

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index
from bottleneck.images.keys import as_digests

REFRESH_SECONDS = 1.0  # between two refreshes of the index


class Claims:
    """Images that need no work: they have features, cannot be decoded, or a thread is working on them.

    Parameters
    ----------
    index : Index
        The cached features.
    known : set of bytes
        Digests of images that must not be tried again.
    refresh_seconds : float
        Least time between two refreshes of the index.
    clock : callable
        Returns the time in seconds.
    """

    def __init__(
        self,
        index: Index,
        known: Set[bytes],
        refresh_seconds: float = REFRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = index
        self.known = known
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._claimed: set[bytes] = set()
        self._lock = threading.RLock()
        self._refreshed = clock()

    def take(self, digest: bytes) -> bool:
        """Claim an image; return False if nothing is left to do for it."""
        with self._lock:
            if digest in self._claimed or digest in self.known or self.has(digest):
                return False
            self._claimed.add(digest)
            return True

    def has(self, digest: bytes) -> bool:
        """Return whether the image has features."""
        return bool(self.have_features([digest])[0])

    def have_features(self, digests: list[bytes]) -> NDArray[np.bool_]:
        """Return for each image whether it has features, as of the last refresh."""
        with self._lock:
            return self.index.has(as_digests(digests))

    def refresh(self) -> None:
        """Refresh the index with what other processes have committed, unless that was done a moment ago."""
        with self._lock:
            if self._clock() - self._refreshed >= self._refresh_seconds:
                self.index.refresh()
                self._refreshed = self._clock()

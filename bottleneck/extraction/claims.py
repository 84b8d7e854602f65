"""Which images still need work: claimed within this process, and seen by what other processes have committed."""

import threading
import time
from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index
from bottleneck.images.keys import as_digests

_LOOK_SECONDS = 1.0  # between two refreshes of the index


class Claims:
    """Images that need no work: they have features, cannot be decoded, or a thread is working on them.

    Parameters
    ----------
    index : Index
        The cached features.
    known : set of bytes
        Digests of images that are not to be tried again.
    """

    def __init__(self, index: Index, known: Set[bytes]) -> None:
        self.index = index
        self.known = known
        self._claimed: set[bytes] = set()
        self._lock = threading.RLock()
        self._looked = time.monotonic()

    def take(self, digest: bytes) -> bool:
        """Claim an image; return False if nothing is left to do for it."""
        with self._lock:
            if digest in self._claimed or digest in self.known or self.has(digest):
                return False
            self._claimed.add(digest)
            return True

    def has(self, digest: bytes) -> bool:
        """Whether the image has features."""
        return bool(self.settled([digest])[0])

    def settled(self, digests: list[bytes]) -> NDArray[np.bool_]:
        """Return for each image whether it has features, as far as this process knows."""
        with self._lock:
            return self.index.has(as_digests(digests))

    def look(self) -> None:
        """Refresh the index with what other processes have committed, at most once a second."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self.index.refresh()
                self._looked = time.monotonic()

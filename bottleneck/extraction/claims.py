"""Who does what: within this process by claims, among processes by what they have committed."""

import threading
import time
from collections.abc import Set

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index
from bottleneck.images.keys import as_digests

_LOOK_SECONDS = 1.0  # between two looks at what other processes have committed


class Claims:
    """Which images need no work: they have features, cannot be decoded, or are being worked on.

    Parameters
    ----------
    index : Index
        Of the features that are cached.
    known : set of bytes
        Images that need not be tried again.
    """

    def __init__(self, index: Index, known: Set[bytes]) -> None:
        self.index = index
        self.known = known
        self._claimed: set[bytes] = set()
        self._lock = threading.RLock()
        self._looked = time.monotonic()

    def take(self, digest: bytes) -> bool:
        """Claim an image, unless nothing is left to do for it."""
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
        """Take in, now and then, what other processes have committed."""
        with self._lock:
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self.index.refresh()
                self._looked = time.monotonic()

"""Commit computed features, often enough that a kill loses little work and rarely enough to write few shards."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.images.keys import Digests

_COMMIT_BYTES = 64 << 20  # of one shard


@dataclass(frozen=True, kw_only=True)
class CommitPace:
    """How often features are committed: a kill loses the work since the last commit.

    Parameters
    ----------
    first_seconds, last_seconds : float
        Time between two commits, at least and at most.
    share : float
        Time between two commits as a share of the run so far.
    rows : int
        Images that are committed at once, at the latest.
    """

    first_seconds: float = 2.0
    last_seconds: float = 60.0
    share: float = 0.02
    rows: int = 16_384


class Commits:
    """Collects features and commits them to a store.

    Parameters
    ----------
    store : Store
    most : int
        Maximum number of bytes that are committed at once.
    pace : CommitPace, optional
    clock : callable
        Returns the time in seconds.
    """

    def __init__(
        self,
        store: Store,
        most: int = _COMMIT_BYTES,
        pace: CommitPace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._most = most
        self._pace = pace or CommitPace()
        self._clock = clock
        self._batches: list[tuple[Digests, NDArray[np.float32]]] = []
        self._started = self._last = clock()

    def add(self, digests: Digests, features: NDArray[np.float32]) -> None:
        """Add a batch, and commit when enough has been collected."""
        self._batches.append((digests, features))
        now, pace = self._clock(), self._pace
        patience = min(max(pace.first_seconds, pace.share * (now - self._started)), pace.last_seconds)
        rows, size = sum(len(part) for part, _ in self._batches), sum(part.nbytes for _, part in self._batches)
        if now - self._last >= patience or rows >= pace.rows or size >= self._most:
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
        self._last = self._clock()

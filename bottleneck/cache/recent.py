"""A cache of shard entries in memory, so that a process reads each memo only once."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bottleneck.images.digest import Signature
from bottleneck.images.keys import Digests

_BYTES = 256 << 20  # for the entries of 8 million images
_OVERHEAD = 1 << 10  # bytes of an entry in addition to its digests

State = tuple[Signature, Signature | None]  # of a shard's file and of its memo on disk


@dataclass(frozen=True)
class ShardEntry:
    """The contents of one shard without its features."""

    digests: Digests
    dim: int
    dtype: str  # of the features

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
        return self.digests.nbytes + _OVERHEAD

    @property
    def feature_bytes(self) -> int:
        """Size of the features in the shard, in bytes."""
        return len(self) * self.dim * np.dtype(self.dtype).itemsize


class RecentEntries:
    """Entries of shards, each valid for one state of its files.

    Parameters
    ----------
    limit : int
        Maximum total size in bytes; the oldest entries are dropped first.
    """

    def __init__(self, limit: int = _BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._known: dict[str, tuple[State, ShardEntry]] = {}
        self._lock = threading.Lock()

    def get(self, memo: Path, state: State) -> ShardEntry | None:
        """Return the entry of the shard with that memo, if both files are unchanged."""
        known = self._known.get(os.path.abspath(memo))
        return known[1] if known and known[0] == state else None

    def put(self, memo: Path, state: State, entry: ShardEntry) -> None:
        """Store an entry that was read from a memo, or from a shard that was verified or written."""
        key = os.path.abspath(memo)
        with self._lock:
            self._forget(key)
            self._known[key] = state, entry
            self._bytes += entry.nbytes
            while self._bytes > self._limit:
                self._forget(next(iter(self._known)))

    def _forget(self, key: str) -> None:
        known = self._known.pop(key, None)
        self._bytes -= known[1].nbytes if known else 0


RECENT = RecentEntries()

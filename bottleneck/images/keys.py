"""Sorting and searching of millions of digests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import CacheError
from bottleneck.utils.arguments import abbreviated

Digests = NDArray[np.uint8]  # (n, 32): row i is the SHA-256 of image i


def digests_of(value: Any) -> Digests:
    """Return digests passed by a caller as an array ``(n, 32)``.

    Raises
    ------
    CacheError
        If they are not an array, or nested lists, of that shape.
    """
    try:
        found = np.asarray(value)
        if not found.size:
            return np.empty((0, 32), np.uint8)
        plain = found.astype(np.uint8, copy=False)
        if found.ndim == 2 and found.shape[1] == 32 and (plain is found or np.array_equal(plain, found)):
            return plain
    except (TypeError, ValueError):
        pass
    raise CacheError(f"expected digests of shape (n, 32), integers from 0 to 255, got {abbreviated(value)}")


def as_digests(keys: Sequence[bytes]) -> Digests:
    """Return digests of 32 bytes as an array ``(n, 32)``."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)


class DigestSet:
    """Distinct digests, sorted for fast lookup.

    Parameters
    ----------
    digests : ndarray of uint8, shape (n, 32)
        Duplicates refer to their first row.

    Notes
    -----
    Digests are sorted by their first 8 bytes, which are almost always distinct; equality always compares all 32.
    """

    def __init__(self, digests: Digests) -> None:
        self._words = _words(digests)
        order = np.argsort(self._words[:, 0], kind="stable")
        tied = np.flatnonzero(np.diff(self._words[order, 0]) == 0)
        twins = (self._words[order[tied]] == self._words[order[tied + 1]]).all(axis=1)
        if not twins.all():  # different digests with the same prefix must not separate equal ones
            order = np.lexsort(self._words.T[::-1])
            twins = (self._words[order[1:]] == self._words[order[:-1]]).all(axis=1)
            tied = np.arange(len(twins))
        self._order = np.delete(order, tied[twins] + 1)
        self._prefix = self._words[self._order, 0]

    def __len__(self) -> int:
        return len(self._order)

    @property
    def rows(self) -> NDArray[np.intp]:
        """The first row of each distinct digest, in increasing order."""
        return np.sort(self._order)

    @property
    def sorted_rows(self) -> NDArray[np.intp]:
        """The first row of each distinct digest, in the order of the digests."""
        return self._order

    def find(self, digests: Digests) -> NDArray[np.intp]:
        """Return the first row of each of ``(m, 32)`` digests, or -1."""
        queries = _words(digests)
        place = np.searchsorted(self._prefix, queries[:, 0])
        found = np.full(len(queries), -1, np.intp)
        pending = np.arange(len(queries))
        while True:
            pending = pending[place[pending] < len(self._prefix)]
            pending = pending[self._prefix[place[pending]] == queries[pending, 0]]
            if not len(pending):
                return found
            rows = self._order[place[pending]]
            same = (self._words[rows] == queries[pending]).all(axis=1)
            found[pending[same]] = rows[same]
            pending = pending[~same]
            place[pending] += 1


def _words(digests: Digests) -> NDArray[np.uint64]:
    """Return each digest as four integers with the sort order of the bytes."""
    return np.ascontiguousarray(digests, np.uint8).reshape(-1, 32).view(">u8").astype(np.uint64)

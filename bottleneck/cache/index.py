"""Index of the images that have features and their shards: one in memory, and a memo of each shard on disk."""

import hashlib
import json
import time
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.kinds import tree_of_shard
from bottleneck.cache.recent import RECENT, ShardEntry
from bottleneck.images.digest import Signature, signature
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.utils.files import parse_json
from bottleneck.utils.schema import Whole, checked
from bottleneck.utils.tree import memo as memo_file

_VERSION = 1
_CHECKSUM_BYTES = 16
_FILTER_BITS = 20
_SEGMENTS = 8  # sorted separately before all are sorted together
_ATTEMPTS = 8  # to read a folder while shards are added and deleted: within 2.5 s
_FEW = 32  # digests that are searched for without sorting those of the shards


class _EntryHeader(TypedDict):
    """Header of a memo, before the digests."""

    version: int
    file: Signature
    dim: Whole
    dtype: Literal["float16", "float32"]


def load_entry(memo: Path, shard: Path) -> ShardEntry | None:
    """Return the stored entry of a shard; None if its file changed since it was verified.

    Raises
    ------
    FileNotFoundError
        If the shard does not exist.
    """
    file = signature(tree_of_shard(shard).status(shard))
    state = (file, _state(memo))
    entry = RECENT.get(memo, state)
    if entry is None and (entry := _read_entry(memo, file)):
        RECENT.put(memo, state, entry)
    return entry


def _read_entry(memo: Path, file: Signature) -> ShardEntry | None:
    with memo_file(ValueError):
        data = tree_of_shard(memo).read(memo)
        body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if checksum != _checksum(body):
            return None
        head, _, digests = body.partition(b"\n")
        header = checked(parse_json(head), _EntryHeader)
        if header["version"] == _VERSION and header["file"] == file:
            return ShardEntry(np.frombuffer(digests, np.uint8).reshape(-1, 32), header["dim"], header["dtype"])
    return None


def save_entry(memo: Path, file: Signature, entry: ShardEntry) -> None:
    """Store the entry of a shard that was just verified or written."""
    with memo_file():
        header = {"version": _VERSION, "file": file, "dim": entry.dim, "dtype": entry.dtype}
        body = json.dumps(header).encode() + b"\n" + entry.digests.tobytes()
        tree_of_shard(memo).write(memo, body + _checksum(body), durable=False)
    RECENT.put(memo, (file, _state(memo)), entry)


def _state(memo: Path) -> Signature | None:
    """Return the signature of a memo's file; None if there is none, e.g. in a read-only cache."""
    with suppress(OSError):
        return signature(tree_of_shard(memo).status(memo))
    return None


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


def wait_before_listing(attempt: int) -> None:
    """Wait until a network file system lists what another machine changed; the first retry is immediate."""
    if attempt:
        time.sleep(0.01 * 2**attempt)


class Index:
    """Index of the images that have features and their shards.

    Parameters
    ----------
    names : callable
        Returns the names of all shards.
    load : callable
        Returns the entry of a shard; None if the shard is invalid. Raises FileNotFoundError if it does not exist.
    """

    def __init__(self, names: Callable[[], list[str]], load: Callable[[str], ShardEntry | None]) -> None:
        self._names = names
        self._load = load
        self.entries: dict[str, ShardEntry] = {}
        self._unusable: set[str] = set()
        self._segments: list[_Segment] = []
        self._unsorted: dict[str, ShardEntry] = {}  # in no segment yet: reading needs no segments
        self._searched = 0  # number of digests searched since the segments were sorted
        self.refresh()

    def refresh(self) -> None:
        """Add new shards and remove deleted ones."""
        for attempt in range(_ATTEMPTS):
            listed = self._names()
            unseen = [name for name in listed if name not in self.entries and name not in self._unusable]
            loaded: dict[str, ShardEntry | None] = {}
            for name in unseen:
                with suppress(FileNotFoundError):
                    loaded[name] = self._load(name)
            fresh = {name: entry for name, entry in loaded.items() if entry is not None}
            self._unusable |= loaded.keys() - fresh.keys()
            self._update(set(listed), fresh)
            if len(loaded) == len(unseen):
                return
            wait_before_listing(attempt)  # one is gone: perhaps compacted into another that was not listed yet

    def forget(self, name: str) -> None:
        """Exclude an invalid shard."""
        self._unusable.add(name)
        self.lose(name)

    def lose(self, name: str) -> None:
        """Exclude a shard that no longer exists, until it is listed again."""
        self._update(self.entries.keys() - {name}, {})

    def _update(self, listed: Set[str], fresh: dict[str, ShardEntry]) -> None:
        gone = self.entries.keys() - listed
        for name in gone:
            del self.entries[name]
        self.entries.update(fresh)
        self._unsorted.update(fresh)
        if gone:
            self._segments, self._unsorted = [], dict(self.entries)

    def digests(self) -> Digests:
        """Return the sorted digests of all images that have features, without duplicates."""
        if not self.entries:
            return np.empty((0, 32), np.uint8)
        if self._unsorted or len(self._segments) > 1:
            self._segments, self._unsorted = [_Segment(self.entries)], {}
        return self._segments[0].sorted_digests()

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each of ``(n, 32)`` digests whether a shard has its features."""
        found = np.zeros(len(digests), bool)
        self._searched += len(digests)
        if self._unsorted and self._searched <= _FEW:
            found |= _are_among(digests, self._unsorted)
            segments = self._segments
        else:
            segments = self._sorted()
        for segment in segments:
            found |= segment.has(digests)
        return found

    def shards_of(self, digests: Digests) -> dict[str, NDArray[np.intp]]:
        """Return the shards to read, each with the rows of the distinct ``(n, 32)`` digests to take from it."""
        needed = {}
        requested, found = DigestSet(digests), np.zeros(len(digests), bool)
        candidates = np.zeros(1 << _FILTER_BITS, bool)  # by the first bits of a digest, which exclude most others
        candidates[_first_bits(digests)] = True
        for name in sorted(self.entries, key=lambda name: (-len(self.entries[name]), name)):  # largest first
            if found.all():
                break
            shard_digests = self.entries[name].digests
            rows = np.unique(requested.find(shard_digests[candidates[_first_bits(shard_digests)]]))
            rows = rows[(rows >= 0) & ~found[rows]]
            if len(rows):
                needed[name] = rows
                found[rows] = True
        return needed

    def _sorted(self) -> "list[_Segment]":
        if self._unsorted and len(self._segments) >= _SEGMENTS:
            self._segments, self._unsorted = [], dict(self.entries)
        if self._unsorted:
            self._segments, self._unsorted = [*self._segments, _Segment(self._unsorted)], {}
            self._searched = 0
        return self._segments


def _are_among(digests: Digests, entries: dict[str, ShardEntry]) -> NDArray[np.bool_]:
    """Return for each of a few digests whether a shard has it; a linear search is faster than sorting."""
    shard_digests = np.concatenate([entry.digests for entry in entries.values()])
    candidates = np.isin(_first_word(shard_digests), _first_word(digests))
    return DigestSet(shard_digests[candidates]).find(digests) >= 0


def _first_word(digests: Digests) -> NDArray[np.uint64]:
    first: NDArray[np.uint64] = np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()
    return first


def _first_bits(digests: Digests) -> NDArray[np.uint32]:
    first: NDArray[np.uint32] = np.ascontiguousarray(digests[:, :4]).view(">u4").ravel().astype(np.uint32)
    first >>= np.uint32(32 - _FILTER_BITS)
    return first


class _Segment:
    """The digests of some shards, sorted together."""

    def __init__(self, entries: dict[str, ShardEntry]) -> None:
        self._digests = np.concatenate([entry.digests for entry in entries.values()])
        self._known = DigestSet(self._digests)

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each digest whether it is in one of the shards."""
        return self._known.find(digests) >= 0

    def sorted_digests(self) -> Digests:
        """Return the digests without duplicates."""
        return self._digests[self._known.sorted_rows]

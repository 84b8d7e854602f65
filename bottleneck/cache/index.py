"""Which images have features, and in which shard: an index in memory, and a memo of each shard on disk."""

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
_SEAL_BYTES = 16
_FILTER_BITS = 20
_SEGMENTS = 8  # sorted separately, before all are sorted together
_ATTEMPTS = 8  # to read a folder in which shards come and go: within 2.5 s
_FEW = 32  # digests that are sought without sorting those that there are


class _EntryHeader(TypedDict):
    """What a memo says before the digests."""

    version: int
    file: Signature
    dim: Whole
    dtype: Literal["float16", "float32"]


def load_entry(memo: Path, shard: Path) -> ShardEntry | None:
    """Return what is remembered of a shard, if its file is the one that was proven to match its name.

    Raises
    ------
    FileNotFoundError
        If the shard is not there.
    """
    file = signature(tree_of_shard(shard).status(shard))
    seen = _state(memo)
    entry = RECENT.get(memo, (file, seen))
    if entry is None and (entry := _read_entry(memo, file)):
        RECENT.put(memo, (file, seen), entry)
    return entry


def _read_entry(memo: Path, file: Signature) -> ShardEntry | None:
    with memo_file(ValueError):
        data = tree_of_shard(memo).read(memo)
        body, seal = data[:-_SEAL_BYTES], data[-_SEAL_BYTES:]
        if seal != _seal(body):
            return None
        head, _, digests = body.partition(b"\n")
        told = checked(parse_json(head), _EntryHeader)
        if told["version"] == _VERSION and told["file"] == file:
            return ShardEntry(np.frombuffer(digests, np.uint8).reshape(-1, 32), told["dim"], told["dtype"])
    return None


def save_entry(memo: Path, file: Signature, entry: ShardEntry) -> None:
    """Remember what a shard holds whose bytes have just been proven, or written."""
    with memo_file():
        told = {"version": _VERSION, "file": file, "dim": entry.dim, "dtype": entry.dtype}
        body = json.dumps(told).encode() + b"\n" + entry.digests.tobytes()
        tree_of_shard(memo).write(memo, body + _seal(body), durable=False)
    RECENT.put(memo, (file, _state(memo)), entry)


def _state(memo: Path) -> Signature | None:
    """Return what a memo's file looks like; None where there is none, in a cache that cannot be written, say."""
    with suppress(OSError):
        return signature(tree_of_shard(memo).status(memo))
    return None


def _seal(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_SEAL_BYTES).digest()


def wait_for_listing(attempt: int) -> None:
    """Give a network file system time to list what another machine has changed; the first look again is at once."""
    if attempt:
        time.sleep(0.01 * 2**attempt)


class Index:
    """Which images have features, and in which shard; it follows the folder as shards come and go.

    Parameters
    ----------
    names : callable
        Lists the names of all shards.
    load : callable
        Gives the entry of a shard; None where it cannot be trusted. FileNotFoundError where it has vanished.
    """

    def __init__(self, names: Callable[[], list[str]], load: Callable[[str], ShardEntry | None]) -> None:
        self._names = names
        self._load = load
        self.entries: dict[str, ShardEntry] = {}
        self._unusable: set[str] = set()
        self._segments: list[_Segment] = []
        self._unsorted: dict[str, ShardEntry] = {}  # that are in no segment yet: who only reads needs none
        self._sought = 0  # digests, since segments were sorted
        self.refresh()

    def refresh(self) -> None:
        """Take in the shards that have come since, and forget those that have gone."""
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
            wait_for_listing(attempt)  # one has vanished: compacted, perhaps, into another that was not listed yet

    def forget(self, name: str) -> None:
        """Leave out a shard that cannot be trusted."""
        self._unusable.add(name)
        self.lose(name)

    def lose(self, name: str) -> None:
        """Leave out a shard that has vanished, until it is listed again."""
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
        """Return the digests of all images that have features, sorted, each once."""
        if not self.entries:
            return np.empty((0, 32), np.uint8)
        if self._unsorted or len(self._segments) > 1:
            self._segments, self._unsorted = [_Segment(self.entries)], {}
        return self._segments[0].sorted_digests()

    def has(self, digests: Digests) -> NDArray[np.bool_]:
        """Return for each of ``(n, 32)`` digests whether its features are in some shard."""
        found = np.zeros(len(digests), bool)
        self._sought += len(digests)
        if self._unsorted and self._sought <= _FEW:
            found |= _are_among(digests, self._unsorted)
            segments = self._segments
        else:
            segments = self._sorted()
        for segment in segments:
            found |= segment.has(digests)
        return found

    def shards_of(self, digests: Digests) -> dict[str, NDArray[np.intp]]:
        """Return, for each shard that is needed, which rows of distinct ``(n, 32)`` digests to take from it."""
        needed = {}
        wanted, found = DigestSet(digests), np.zeros(len(digests), bool)
        likely = np.zeros(1 << _FILTER_BITS, bool)  # by the first bits of a digest, which rule most others out at once
        likely[_first_bits(digests)] = True
        for name in sorted(self.entries, key=lambda name: (-len(self.entries[name]), name)):  # few large ones first
            if found.all():
                break
            held = self.entries[name].digests
            rows = np.unique(wanted.find(held[likely[_first_bits(held)]]))
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
            self._sought = 0
        return self._segments


def _are_among(digests: Digests, entries: dict[str, ShardEntry]) -> NDArray[np.bool_]:
    """Return for each of few digests whether one of the shards has it; sorting would take longer than looking."""
    held = np.concatenate([entry.digests for entry in entries.values()])
    likely = np.isin(_first_word(held), _first_word(digests))
    return DigestSet(held[likely]).find(digests) >= 0


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
        """Return the digests, each once."""
        return self._digests[self._known.sorted_rows]

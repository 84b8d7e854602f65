"""The way of an image into the cache: its file is read once, named, decoded where that is needed, and committed."""

import hashlib
import itertools
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.index import Index
from bottleneck.cache.store import Store
from bottleneck.errors import ImageError
from bottleneck.images.decode import MAX_PIXELS, Decoded, decode
from bottleneck.images.digest import Signature, read_file
from bottleneck.images.keys import Digests, DigestSet, as_digests
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.images.scan import Progress
from bottleneck.images.survey import Survey

if TYPE_CHECKING:
    from bottleneck.engines.engine import Engine

# A commit loses nothing; work since the last one is lost to a kill. Early on that is two seconds' worth, later 2 %.
_FIRST_COMMIT_SECONDS = 2.0
_LAST_COMMIT_SECONDS = 60.0
_COMMIT_SHARE = 0.02
_COMMIT_ROWS = 16_384

_LOOK_SECONDS = 1.0  # between two looks at what other processes have committed
_BLOCK = 256  # files that are read in the order of their paths


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are read and decoded.

    Parameters
    ----------
    threads : int or None
        That decode; by default one a core, at most 4.
    max_pixels : int
        Larger images are refused.
    """

    threads: int | None = None
    max_pixels: int = MAX_PIXELS


@dataclass
class Work:
    """What one pass over the images has done so far."""

    computed: set[bytes] = field(default_factory=set)  # digests
    undecodable: dict[bytes, ImageError] = field(default_factory=dict)  # by digest
    unread: dict[bytes, ImageError] = field(default_factory=dict)  # by digest, of known files not to be read again
    notes: dict[bytes, str] = field(default_factory=dict)  # by digest
    engine: str | None = None


@dataclass(frozen=True)
class _Item:
    """An image to read, at any of these rows of the survey; its digest, where it is known."""

    rows: list[int]
    digest: bytes | None


@dataclass(frozen=True)
class _Read:
    """What came of an item: its digest and signature, and pixels or an error where there was more to do."""

    row: int
    digest: bytes
    signature: Signature
    when: float
    outcome: Decoded | ImageError | None = None


def run(
    survey: Survey,
    store: Store,
    engine: "Callable[[], Engine]",
    known: dict[bytes, ImageError],
    settings: Settings,
    work: Work,
    progress: Progress | None,
) -> None:
    """Read the files that are unknown, and send every image without features through decoding and the engine.

    Parameters
    ----------
    survey : Survey
        Learns the digests of the files that are read.
    store : Store
    engine : callable
        Gives the engine; called when the first pixels are ready for it.
    known : dict of bytes to ImageError
        Images that need not be tried again.
    settings : Settings
    work : Work
        Takes what was done.
    progress : callable or None

    Raises
    ------
    CacheError
        If features cannot be committed. What was committed before is kept, as it is after Ctrl-C.
    """
    claims = _Claims(store.index(), known.keys() | work.undecodable.keys())
    items = _items(survey, claims)
    reader = _Reader(survey.paths, store.spec.preprocessing, settings, claims)
    commits = _Commits(store)
    batch: list[tuple[bytes, NDArray[np.uint8]]] = []

    def run_batch() -> None:
        batch[:] = claims.open(batch)
        if not batch:
            return
        features = engine()(np.stack([pixels for _, pixels in batch]))
        good = [bool(np.isfinite(row).all()) for row in features]
        for digest, _ in itertools.compress(batch, (not fine for fine in good)):
            work.undecodable[digest] = ImageError(
                "not-finite", "the network gives NaN or infinity; are its weights intact?"
            )
        if any(good):
            done = [digest for digest, _ in itertools.compress(batch, good)]
            commits.add(as_digests(done), features[good])
            work.computed.update(done)
        batch.clear()

    try:
        for done, (item, read) in enumerate(_read_ahead(items, reader, claims), 1):
            if isinstance(read, ImageError):
                _fail(survey, item, read, work)
            elif read is not None:
                _take(survey, item, read, work, batch)
            if batch and len(batch) == engine().batch_size:
                run_batch()
            if progress:
                progress("extract", done, len(items))
        if batch:
            run_batch()
    finally:
        commits.flush()  # after Ctrl-C too: what is computed is kept
        survey.save()
    if work.computed:
        work.engine = engine().name


def _items(survey: Survey, claims: "_Claims") -> list[_Item]:
    """Return what must be read: unknown files, and known images without features."""
    items = [_Item([row], None) for row in survey.unknown()]
    rows = [row for row, digest in enumerate(survey.digests) if digest is not None]
    digests = as_digests([survey.digests[row] or b"" for row in rows])
    first = DigestSet(digests).find(digests)
    copies: dict[int, list[int]] = {}
    for place in np.flatnonzero(~claims.index.has(digests)).tolist():
        copies.setdefault(int(first[place]), []).append(rows[place])
    for place, same in copies.items():
        digest = digests[place].tobytes()
        if digest not in claims.known:
            items.append(_Item(same, digest))
    return _shuffled(sorted(items, key=lambda item: item.rows[0]))


def _shuffled(items: list[_Item]) -> list[_Item]:
    """Return the items in blocks of neighbours, the blocks in an order of this process's own.

    Processes that extract the same images at once then begin in different places, and each skips what the others have
    committed. Neighbours stay together, since disks read on.
    """
    size = max(1, min(_BLOCK, len(items) // 16))
    blocks = [items[start : start + size] for start in range(0, len(items), size)]
    random.SystemRandom().shuffle(blocks)
    return [item for block in blocks for item in block]


def _fail(survey: Survey, item: _Item, error: ImageError, work: Work) -> None:
    """Take the failure of a file that could not be read."""
    if item.digest is None:
        survey.fail(item.rows[0], error)
    else:
        work.unread[item.digest] = error


def _take(survey: Survey, item: _Item, read: _Read, work: Work, batch: list[tuple[bytes, NDArray[np.uint8]]]) -> None:
    """Take an image that was read."""
    if item.digest is None:
        survey.learn(read.row, read.digest, read.signature, read.when)
    if isinstance(read.outcome, ImageError):
        work.undecodable[read.digest] = read.outcome
    elif read.outcome is not None:
        batch.append((read.digest, read.outcome.pixels))
        if read.outcome.note:
            work.notes[read.digest] = read.outcome.note


class _Claims:
    """Which images need no work: they have features, cannot be decoded, or are being worked on."""

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
        with self._lock:
            return bool(self.index.has(as_digests([digest]))[0])

    def open(self, batch: list[tuple[bytes, NDArray[np.uint8]]]) -> list[tuple[bytes, NDArray[np.uint8]]]:
        """Return the part of a batch that no other process has committed meanwhile."""
        with self._lock:
            settled = self.index.has(as_digests([digest for digest, _ in batch]))
        return [entry for entry, done in zip(batch, settled.tolist(), strict=True) if not done]

    def look(self) -> None:
        """Take in, now and then, what other processes have committed."""
        if time.monotonic() - self._looked >= _LOOK_SECONDS:
            with self._lock:
                self.index.refresh()
            self._looked = time.monotonic()


@dataclass(frozen=True)
class _Reader:
    """Reads an image from the first of its paths that still holds it; digest and pixels come from the same bytes."""

    paths: list[str]
    preprocessing: Preprocessing
    settings: Settings
    claims: _Claims

    def __call__(self, item: _Item) -> _Read | ImageError:
        problem = ImageError("unreadable", "no path")
        for row in item.rows:
            now = time.time()
            try:
                data, found = read_file(self.paths[row])
            except ImageError as error:
                problem = error
                continue
            digest = hashlib.sha256(data).digest()
            if item.digest in (None, digest):
                return _Read(row, digest, found, now, self._decoded(data, digest))
            problem = ImageError("changed", "the file changed since it was scanned; run the command again")
        return problem

    def _decoded(self, data: bytes, digest: bytes) -> Decoded | ImageError | None:
        if not self.claims.take(digest):
            return None
        try:
            return decode(data, self.preprocessing, self.settings.max_pixels)
        except ImageError as error:
            return error


def _read_ahead(
    items: list[_Item], reader: _Reader, claims: _Claims
) -> Iterator[tuple[_Item, _Read | ImageError | None]]:
    """Yield what comes of each item, in order, None where others have done it; threads work a bounded way ahead."""
    count = reader.settings.threads or min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count, thread_name_prefix="decode")
    ahead: deque[tuple[_Item, Future[_Read | ImageError]]] = deque()
    try:
        for item in items:
            claims.look()
            if item.digest is not None and claims.has(item.digest):
                yield item, None
                continue
            ahead.append((item, pool.submit(reader, item)))
            if len(ahead) >= 16 * count:
                first, future = ahead.popleft()
                yield first, future.result()
        while ahead:
            first, future = ahead.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Commits:
    """Features on their way into the cache."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._digests: list[Digests] = []
        self._features: list[NDArray[np.float32]] = []
        self._started = self._last = time.monotonic()

    def add(self, digests: Digests, features: NDArray[np.float32]) -> None:
        """Take a batch, and commit when enough has come together."""
        self._digests.append(digests)
        self._features.append(features)
        now = time.monotonic()
        patience = min(max(_FIRST_COMMIT_SECONDS, _COMMIT_SHARE * (now - self._started)), _LAST_COMMIT_SECONDS)
        if now - self._last >= patience or sum(map(len, self._digests)) >= _COMMIT_ROWS:
            self.flush()

    def flush(self) -> None:
        """Commit what has come together; when this returns it survives any kill."""
        if self._digests:
            digests, features = np.concatenate(self._digests), np.concatenate(self._features)
            self._digests, self._features = [], []
            self._store.append(digests, features)
        self._last = time.monotonic()

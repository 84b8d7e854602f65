"""The threads that read, decode and compute; each stage passes its results to the next through a short queue.

The memory of all stages is bounded: see `bottleneck.extraction.memory`.
"""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.engines.engine import Engine
from bottleneck.engines.hardware import cores
from bottleneck.engines.parity import Sample
from bottleneck.errors import ImageError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.items import Item
from bottleneck.extraction.job import Limits
from bottleneck.extraction.loading import Loaded, Loader, without_history
from bottleneck.extraction.memory import MemoryBudget, Reservation, size_waiting
from bottleneck.extraction.plan import EngineStart
from bottleneck.extraction.queues import ByteBoundedQueue, Cancelled
from bottleneck.extraction.sample import SAMPLE, some_images
from bottleneck.images.decode import Decoded
from bottleneck.images.digest import LARGEST_FILE, Signature
from bottleneck.images.preprocessing import Preprocessing

THREADS = "bottleneck-"  # prefix of the names of all threads


@dataclass(frozen=True)
class Read:
    """The outcome of an item: an error, nothing (its features are cached), or bytes read from one of its rows."""

    item: Item
    row: int = -1
    digest: bytes = b""
    signature: Signature | None = None
    when: float = 0.0
    has_pixels: bool = False  # whether its pixels will be passed to the engine
    note: str | None = None
    undecodable: ImageError | None = None
    problem: ImageError | None = None  # of the file


@dataclass(frozen=True)
class Computed:
    """The outcome of a batch, without the images that other processes have committed in the meantime."""

    count: int
    digests: list[bytes]
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class Crashed:
    """The error that ended a thread."""

    error: BaseException


@dataclass(frozen=True)
class _Small:
    """The bytes of a small file, which wait to be decoded.

    Parameters
    ----------
    row : int
    data : bytes
    signature : Signature
    when : float
    """

    row: int
    data: bytes
    signature: Signature
    when: float


@dataclass(frozen=True)
class _File:
    """A file to decode.

    Parameters
    ----------
    item : Item
    small : _Small or None
        None if the first row that can be read is a large file.
    reservation : Reservation
        Memory for files; the thread that decodes the file releases it.
    left : tuple of int
        The rows that have not been tried yet.
    problem : ImageError
        The error of the last row that was tried.
    """

    item: Item
    small: _Small | None
    reservation: Reservation
    left: tuple[int, ...]
    problem: ImageError


class _Large(Exception):
    """A file that is too large to be read before it is decoded."""


Pixels = tuple[bytes, NDArray[np.uint8]]  # digest, (h, w, 3)


class Stages:
    """Reads and decodes images in threads; once `compute` is called, runs an engine on them.

    Parameters
    ----------
    paths : list of str
        The path of each row.
    limits : Limits
    collaborators : Collaborators
    preprocessing : Preprocessing
    claims : Claims
    memory : MemoryBudget
    """

    def __init__(
        self,
        paths: list[str],
        limits: Limits,
        collaborators: Collaborators,
        preprocessing: Preprocessing,
        claims: Claims,
        memory: MemoryBudget,
    ) -> None:
        self.events: ByteBoundedQueue[Read | EngineStart | Computed | Crashed] = ByteBoundedQueue(
            memory.waiting_features
        )
        self._paths = paths
        self._loader = Loader(memory, preprocessing, limits.max_pixels, decode=collaborators.decode)
        self._claims = claims
        self._memory = memory
        self._decoders = limits.threads or cores()
        self._readers = collaborators.readers
        self._read_file = collaborators.read_file
        self._files: ByteBoundedQueue[_File] = ByteBoundedQueue()  # bounded by `MemoryBudget.files`
        self._pixels: ByteBoundedQueue[Pixels] = ByteBoundedQueue(memory.waiting_pixels)
        self._filling = threading.Lock()
        self._threads: list[threading.Thread] = []

    def read(self, items: list[Item]) -> None:
        """Start reading and decoding; each item yields one `Read` event."""
        source = _Source(items)
        self._start("read", min(self._readers, len(items)), lambda: self._read_all(source), self._files)
        self._start("decode", self._decoders, self._decode_all, self._pixels)

    def start(self, start_engine: Callable[[Sample], EngineStart]) -> None:
        """Start an engine in a thread; its `EngineStart` is added to the events.

        A thread is used because importing and converting a network takes seconds, during which a Ctrl-C would be lost.

        Parameters
        ----------
        start_engine : callable
            Takes a function that returns some of the images, ``uint8 (n, h, w, 3)``.
        """

        def body() -> None:
            start = start_engine(self._sample)
            try:
                self.events.put(start)
            except Cancelled:
                if start.engine:
                    start.engine.close()
                raise

        self._start("engine", 1, body, None)

    def _sample(self) -> NDArray[np.uint8]:
        """Return a sample of the images; if most files are not images, those decoded so far."""
        found = some_images(self._paths, self._loader)
        found = found or [pixels for _, pixels in self._pixels.waiting()[:SAMPLE]]
        if not found:
            raise Cancelled
        return np.stack(found)

    def compute(self, engine: Engine) -> None:
        """Start running the engine on decoded images; each batch yields one `Computed` event."""
        self._start("compute", engine.parallel, lambda: self._compute_all(engine), None)

    def stop(self, patience: float) -> None:
        """Stop all threads, and wait for them for up to `patience` seconds.

        They are daemon threads: one that does not end in time is abandoned.
        """
        for queue in (self.events, self._files, self._pixels):
            queue.cancel()
        self._memory.cancel()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _start(
        self,
        name: str,
        count: int,
        body: Callable[[], None],
        following: "ByteBoundedQueue[_File] | ByteBoundedQueue[Pixels] | None",
    ) -> None:
        """Run `body` in `count` threads; the last one to end closes the `following` queue."""
        left = itertools.count(count - 1, -1)

        def run() -> None:
            try:
                body()
            except Cancelled:
                return
            except BaseException as error:
                with suppress(Cancelled):
                    self.events.put(Crashed(error))
            if next(left) == 0 and following is not None:
                following.close()

        for number in range(count):
            thread = threading.Thread(target=run, name=f"{THREADS}{name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _read_all(self, source: "_Source") -> None:
        while (item := source.next()) is not None:
            self._claims.refresh()
            if item.digest is not None and self._claims.has(item.digest):
                self.events.put(Read(item))
                continue
            found = self._read(item)
            if isinstance(found, Read):
                self.events.put(found)
            else:
                self._files.put(found)

    def _read(self, item: Item) -> "_File | Read":
        """Read the first readable row of an item, unless it is a large file."""
        problem = ImageError("unreadable", "no path")
        for place, row in enumerate(item.rows):
            now, reservation = time.time(), Reservation(self._memory.files)
            try:
                data, signature = self._read_file(self._paths[row], LARGEST_FILE, self._admission(reservation))
            except _Large:
                return _File(item, None, reservation, tuple(item.rows[place:]), problem)
            except ImageError as error:
                reservation.release()
                problem = without_history(error)
                continue
            small = _Small(row, data, signature, now)
            return _File(item, small, reservation, tuple(item.rows[place + 1 :]), problem)
        return Read(item, problem=problem)

    def _admission(self, reservation: Reservation) -> Callable[[int], None]:
        """Return a function that reserves memory for a file of some size, or raises `_Large`."""

        def admit(size: int) -> None:
            if size > self._memory.small:
                raise _Large
            reservation.grow(size_waiting(size))

        return admit

    def _decode_all(self) -> None:
        while (file := self._files.get()) is not None:
            read, pixels = self._named(file)
            reservation = file.reservation
            del file  # and its bytes, before waiting for the next stage
            reservation.release()
            if pixels is not None:
                self._pixels.put((read.digest, pixels), pixels.nbytes)
            self.events.put(read)

    def _named(self, file: _File) -> tuple[Read, NDArray[np.uint8] | None]:
        """Return the outcome of the first row with the expected digest."""
        problem = file.problem
        for row, found in self._loaded(file):
            if isinstance(found, ImageError):
                problem = found
            elif file.item.digest in (None, found.digest):
                return _outcome(file.item, row, found)
            else:
                problem = ImageError("changed", "the file changed since it was scanned; run the command again")
        return Read(file.item, problem=problem), None

    def _loaded(self, file: _File) -> Iterator[tuple[int, Loaded | ImageError]]:
        """Yield the outcome of the bytes that were read, then of each remaining row."""

        def wanted(digest: bytes) -> bool:
            return file.item.digest in (None, digest) and self._claims.take(digest)

        if small := file.small:
            digest = hashlib.sha256(small.data).digest()
            found = self._loader.decode(small.data) if wanted(digest) else None
            yield small.row, Loaded(digest, small.signature, small.when, found)
        for row in file.left:
            try:
                yield row, self._loader.load(self._paths[row], wanted)
            except ImageError as error:
                yield row, without_history(error)

    def _compute_all(self, engine: Engine) -> None:
        while batch := self._batch(engine.batch_size):
            digests = [digest for digest, _ in batch]
            self._claims.refresh()
            others = self._claims.have_features(digests).tolist()
            wanted = [pair for pair, done in zip(batch, others, strict=True) if not done]
            features = engine(np.stack([pixels for _, pixels in wanted])) if wanted else None
            size = 0 if features is None else features.nbytes
            self.events.put(Computed(len(batch), [digest for digest, _ in wanted], features), size)

    def _batch(self, size: int) -> list[Pixels]:
        """Return the next images, fewer than `size` only at the end; one thread fills its batch at a time."""
        batch: list[Pixels] = []
        with self._filling:
            while len(batch) < size and (pair := self._pixels.get()) is not None:
                batch.append(pair)
        return batch


def _outcome(item: Item, row: int, found: Loaded) -> tuple[Read, NDArray[np.uint8] | None]:
    """Return the event of a file, and its pixels."""
    read = Read(item, row, found.digest, found.signature, found.when)
    if isinstance(found.found, Decoded):
        return replace(read, has_pixels=True, note=found.found.note), found.found.pixels
    return replace(read, undecodable=found.found), None


class _Source:
    """Returns each item once, to whichever thread calls `next`."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def next(self) -> Item | None:
        with self._lock:
            return next(self._items, None)

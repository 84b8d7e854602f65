"""The threads that read, decode and compute; each stage hands on to the next through a channel that holds little."""

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImageError
from bottleneck.images.decode import Decoded, decode
from bottleneck.images.digest import Signature, read_file
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.pipeline.channel import Cancelled, Channel, Room
from bottleneck.pipeline.claims import Claims
from bottleneck.pipeline.sample import SAMPLE, some_images
from bottleneck.pipeline.work import Item, Settings

if TYPE_CHECKING:
    from bottleneck.engines.engine import Engine

StartEngine = Callable[[Callable[[], NDArray[np.uint8]]], "Engine"]  # is given what gives some images (n, h, w, 3)

# Threads that read wait for a disk or a network, not for a core.
_READERS = 8

_FILES_BYTES = 64 << 20  # of files that wait to be decoded
_PIXELS_BYTES = 64 << 20  # of decoded images that wait for the engine
_FEATURES_BYTES = 64 << 20  # of features that wait to be committed
_DECODING_BYTES = 512 << 20  # of images that are being decoded, at their full size

THREADS = "bottleneck-"  # how the names of all threads begin


@dataclass(frozen=True)
class Read:
    """What came of an item: an error, nothing (its features are here), or bytes that were read from one of its rows."""

    item: Item
    row: int = -1
    digest: bytes = b""
    signature: Signature | None = None
    when: float = 0.0
    has_pixels: bool = False  # they are on their way to the engine
    note: str | None = None
    undecodable: ImageError | None = None
    problem: ImageError | None = None  # of the file


@dataclass(frozen=True)
class Computed:
    """What came of a batch; images that others had committed meanwhile are left out of `digests` and `features`."""

    count: int
    digests: list[bytes]
    features: NDArray[np.float32] | None


@dataclass(frozen=True)
class Started:
    """An engine that is ready."""

    engine: "Engine"


@dataclass(frozen=True)
class Crashed:
    """What ended a thread."""

    error: BaseException


@dataclass(frozen=True)
class _File:
    """Bytes that wait to be decoded, with what is known of them; the rows of the item that are left to try."""

    item: Item
    row: int
    data: bytes
    signature: Signature
    when: float
    left: tuple[int, ...]


Pixels = tuple[bytes, NDArray[np.uint8]]  # digest, (h, w, 3)


class Stages:
    """Reads and decodes images in threads of its own; from `compute` on, runs an engine on them.

    Parameters
    ----------
    paths : list of str
        Of the rows that items name.
    preprocessing : Preprocessing
    settings : Settings
    claims : Claims
    threads : int
        That decode.
    """

    def __init__(
        self, paths: list[str], preprocessing: Preprocessing, settings: Settings, claims: Claims, threads: int
    ) -> None:
        self.events: Channel[Read | Started | Computed | Crashed] = Channel(_FEATURES_BYTES)
        self._paths = paths
        self._preprocessing = preprocessing
        self._max_pixels = settings.max_pixels
        self._claims = claims
        self._decoders = threads
        self._files: Channel[_File] = Channel(_FILES_BYTES)
        self._pixels: Channel[Pixels] = Channel(_PIXELS_BYTES)
        self._room = Room(_DECODING_BYTES)
        self._filling = threading.Lock()
        self._threads: list[threading.Thread] = []

    def read(self, items: list[Item]) -> None:
        """Begin to read and decode; of each item comes one `Read`."""
        source = _Source(items)
        self._start("read", min(_READERS, len(items)), lambda: self._read_all(source), self._files)
        self._start("decode", self._decoders, self._decode_all, self._pixels)

    def start(self, start_engine: "StartEngine") -> None:
        """Begin to start an engine, which comes as `Started`; it is shown some of the images, if it wants to.

        In a thread, too: importing and converting a network takes seconds, and swallows a Ctrl-C that falls into it.
        """

        def body() -> None:
            engine = start_engine(self._sample)
            try:
                self.events.put(Started(engine))
            except Cancelled:
                engine.close()
                raise

        self._start("engine", 1, body, None)

    def _sample(self) -> NDArray[np.uint8]:
        """Return some of the images; of many files that are no images, those that have come by now."""
        found = some_images(self._paths, self._preprocessing, self._max_pixels, self._room)
        found = found or [pixels for _, pixels in self._pixels.waiting()[:SAMPLE]]
        if not found:
            raise Cancelled
        return np.stack(found)

    def compute(self, engine: "Engine") -> None:
        """Begin to run the engine on what has been decoded; of each batch comes one `Computed`."""
        self._start("compute", engine.parallel, lambda: self._compute_all(engine), None)

    def stop(self, patience: float) -> None:
        """End all threads, those that are in the middle of something within `patience` seconds, if they can.

        They are daemons: one that cannot is left to itself.
        """
        for channel in (self.events, self._files, self._pixels):
            channel.cancel()
        until = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _start(
        self, name: str, count: int, body: Callable[[], None], following: "Channel[_File] | Channel[Pixels] | None"
    ) -> None:
        """Run `body` in some threads; the last to end closes the channel that follows."""
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
            self._claims.look()
            if item.digest is not None and self._claims.has(item.digest):
                self.events.put(Read(item))
                continue
            found = self._file(item, tuple(item.rows))
            if isinstance(found, Read):
                self.events.put(found)
            else:
                self._files.put(found, len(found.data))

    def _file(self, item: Item, rows: tuple[int, ...], problem: ImageError | None = None) -> "_File | Read":
        """Read the first of the rows that can be read."""
        for place, row in enumerate(rows):
            now = time.time()
            try:
                data, signature = read_file(self._paths[row])
            except ImageError as error:
                problem = _without_history(error)
                continue
            return _File(item, row, data, signature, now, rows[place + 1 :])
        return Read(item, problem=problem or ImageError("unreadable", "no path"))

    def _decode_all(self) -> None:
        while (file := self._files.get()) is not None:
            read, pixels = self._named(file)
            if pixels is not None:
                self._pixels.put((read.digest, pixels), pixels.nbytes)
            self.events.put(read)

    def _named(self, file: _File) -> tuple[Read, NDArray[np.uint8] | None]:
        """Return what comes of the first file with the digest that is expected; digest and pixels are of its bytes."""
        item = file.item
        while True:
            digest = hashlib.sha256(file.data).digest()
            if item.digest in (None, digest):
                read = Read(item, file.row, digest, file.signature, file.when)
                found = self._decoded(file.data, digest)
                if isinstance(found, Decoded):
                    return replace(read, has_pixels=True, note=found.note), found.pixels
                return replace(read, undecodable=found), None
            changed = ImageError("changed", "the file changed since it was scanned; run the command again")
            following = self._file(item, file.left, changed)
            if isinstance(following, Read):
                return following, None
            file = following

    def _decoded(self, data: bytes, digest: bytes) -> Decoded | ImageError | None:
        if not self._claims.take(digest):
            return None
        try:
            return decode(data, self._preprocessing, self._max_pixels, self._room)
        except ImageError as error:
            return _without_history(error)

    def _compute_all(self, engine: "Engine") -> None:
        while batch := self._batch(engine.batch_size):
            digests = [digest for digest, _ in batch]
            self._claims.look()
            others = self._claims.settled(digests).tolist()
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


def _without_history(error: ImageError) -> ImageError:
    """Take from an error what led to it: a traceback keeps a file's bytes and its half-decoded picture in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class _Source:
    """Gives out items, each once, to whichever thread asks."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def next(self) -> Item | None:
        with self._lock:
            return next(self._items, None)

"""What the tests of the pipeline share: a store, spies on reading and decoding, and one pass over a folder."""

import hashlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import ImageError
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.job import ExtractionJob, Limits, Outcomes
from bottleneck.extraction.loop import run_pass
from bottleneck.extraction.memory import LEAST_MEMORY, ByteBudget, MemoryBudget, size_waiting
from bottleneck.extraction.plan import EngineStart
from bottleneck.images.decode import decode
from bottleneck.images.digest import read_file
from bottleneck.images.file_index import FileIndex, index_files
from bottleneck.images.splits import Shares
from tests import tiny
from tests.conftest import photo
from tests.tiny import TinyEngine

Tools = dict[str, Any]  # parameters of `Collaborators`
SOON = 10.0  # seconds after which what should happen at once has not happened
PIXELS = 12 * 12 * 3  # bytes that an image takes before the tiny engine


@pytest.fixture
def store() -> Store:
    return FeatureCache("cache").store(tiny.SPEC)


@pytest.fixture(autouse=True)
def remembered(settled: None) -> None:
    """Let files that were written just now be remembered."""


@pytest.fixture(autouse=True)
def heard() -> None:
    """Let Ctrl-C be heard, as where the tests run in the foreground: in the background of a script it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tools() -> Tools:
    """Return what a pass works with besides its images, by name; other fixtures add to it, and so may a test."""
    return {}


@pytest.fixture
def reads(tools: Tools) -> Counter[str]:
    """Return how often each file is read, by name."""
    found: Counter[str] = Counter()

    def counted(path: str, *args: object) -> object:
        found[Path(path).name] += 1
        return read_file(path, *args)

    tools["read_file"] = counted
    return found


@pytest.fixture
def decodes(tools: Tools) -> Counter[str]:
    """Return how often each image is decoded, by digest."""
    found: Counter[str] = Counter()

    def counted(data: bytes, *args: object) -> object:
        found[hashlib.sha256(data).hexdigest()] += 1
        return decode(data, *args)

    tools["decode"] = counted
    return found


@pytest.fixture
def limited(tools: Tools) -> Callable[..., MemoryBudget]:
    """Return a function that makes a memory budget with other limits, for all stages."""

    def limit(
        *, files: int = 1 << 20, pixels: int = 1 << 20, decoding: int = 1 << 24, small: int | None = None
    ) -> MemoryBudget:
        memory = MemoryBudget(LEAST_MEMORY)
        memory.files, memory.decoding, memory.waiting_pixels = ByteBudget(files), ByteBudget(decoding), pixels
        memory.small = files if small is None else small
        tools["budget"] = lambda total: memory
        return memory

    return limit


@pytest.fixture
def go(tools: Tools) -> Callable[..., Outcomes]:
    """Return `one_pass` with the tools of the test."""
    return partial(one_pass, tools)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Return an event for threads to wait at; it is set at the latest when the test has ended."""
    event = threading.Event()
    yield event
    event.set()


WHOLE = {"read_file": read_file, "decode": decode}
ONE_FILE = size_waiting(max(len(photo(seed)) for seed in range(60)))  # bytes: room for a photo, and not for two


def found_in(source: Path) -> FileIndex:
    return index_files(source, labels=False, shares=Shares(), cache="cache", exclude=())


def one_pass(
    tools: Tools,
    source: Path | FileIndex,
    store: Store,
    engine: TinyEngine | None = None,
    known: dict[bytes, ImageError] | None = None,
    progress: Callable[[str, int, int], object] | None = None,
    start: Callable[[Callable[[], np.ndarray]], TinyEngine] | None = None,
    outcomes: Outcomes | None = None,
    share: tuple[int, int] = (0, 1),
    **limits: object,
) -> Outcomes:
    """Run one pass over some images; `start` returns the engine, by default `engine`."""
    images = source if isinstance(source, FileIndex) else found_in(source)
    outcomes, start = outcomes or Outcomes(), start or (lambda sample: engine or TinyEngine())
    job = ExtractionJob(
        images=images,
        limits=Limits(**limits),
        undecodable=known or {},
        share=share,
        progress=progress,
        collaborators=Collaborators(**tools),
    )
    run_pass(job, store, outcomes, lambda sample: EngineStart(start(sample)))
    return outcomes


def many(count: int) -> dict[str, int]:
    return {f"{number:03}.jpg": number for number in range(count)}


def broken(store: Store, *errors: BaseException | None) -> Store:
    """Return a store whose appends raise these errors, one after the other; then it works."""
    left = iter(errors)

    class Broken(Store):
        def append(self, digests: np.ndarray, features: np.ndarray) -> list[str]:
            if error := next(left, None):
                raise error
            return super().append(digests, features)

    return Broken(store.folder, store.spec)


def by_digest(store: Store) -> dict[bytes, bytes]:
    digests = store.digests()
    return {row.tobytes(): x.tobytes() for row, x in zip(digests, store.read(digests), strict=True)}


def expected(*seeds: int) -> dict[bytes, bytes]:
    return {tiny.digest(photo(seed)).tobytes(): tiny.features(photo(seed)).tobytes() for seed in seeds}


def soon(true: Callable[[], object]) -> bool:
    """Wait until something is true, and return whether it ever was."""
    until = time.monotonic() + SOON
    while not true() and time.monotonic() < until:
        time.sleep(0.002)
    return bool(true())


def steady(count: Callable[[], int], seconds: float = 0.15) -> int:
    """Return a number once it has not grown for some time."""
    last, since, until = count(), time.monotonic(), time.monotonic() + SOON
    while time.monotonic() - since < seconds and time.monotonic() < until:
        time.sleep(0.005)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


def in_a_thread(body: Callable[[], object]) -> threading.Thread:
    """Run something beside the test, in a thread that keeps no process alive."""
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread) -> bool:
    """Whether a thread comes to its end."""
    thread.join(SOON)
    return not thread.is_alive()

"""Several devices of one machine: a process for each, all writing shards into one cache.

This process has the first device and the first share of the images; each other process has the next.
"""

import csv
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import Index
from bottleneck.engines.engine import Engine
from bottleneck.engines.hardware import gpu_possible
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import Sample
from bottleneck.errors import ImageError, ModelError
from bottleneck.extraction.items import Settings, Work
from bottleneck.extraction.lazy_backbone import LazyBackbone, until_settled
from bottleneck.extraction.loop import run
from bottleneck.images.file_index import FileIndex
from bottleneck.images.keys import as_digests
from bottleneck.images.scan import Progress

# Not with -m, for which the current folder, perhaps one of images, would be searched for modules first.
_CHECKOUT = str(Path(__file__).parents[2])  # the folder that the package lies in
_MAIN = f"import sys; sys.path[0] = {_CHECKOUT!r}; from bottleneck.extraction.worker_main import main; main()"

_PATIENCE = 0.5  # seconds that the others have to end in after Ctrl-C


def devices_of(wish: EngineOptions) -> tuple[str | None, ...]:
    """Return the devices to use: those named, with commas between; by default all CUDA devices that are visible.

    Raises
    ------
    ModelError
        If one of several has no name.
    """
    if wish.device is not None:
        return _names(wish.device)
    if wish.engine != "openvino" and gpu_possible():
        from bottleneck.engines.torch_engine import cuda_devices

        if len(found := cuda_devices()) > 1:
            return found
    return (None,)


def may_be_several(wish: EngineOptions) -> bool:
    """Whether there may be several devices to use, found without torch."""
    if wish.device is not None:
        return "," in wish.device
    return wish.engine != "openvino" and gpu_possible()


def own(wish: EngineOptions) -> EngineOptions:
    """Return the wish of this process: the first of several devices.

    Raises
    ------
    ModelError
        If one of several has no name.
    """
    return replace(wish, device=_names(wish.device)[0]) if wish.device is not None else wish


def _names(devices: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in devices.split(","))
    if not all(names):
        raise ModelError(f"expected devices with commas between, such as cuda:0,cuda:1, got {devices!r}")
    return names


class WorkerPool:
    """The other processes; without other devices there are none.

    Parameters
    ----------
    wish : EngineOptions
        With the devices of all.
    request : Request
    cache : path
    found : FileIndex
        Of the images of all.
    settings : Settings
        Of a process that works alone; each of the others has its part of the images and of the memory.
    """

    def __init__(
        self, wish: EngineOptions, request: Request, cache: Path, found: FileIndex, settings: Settings
    ) -> None:
        self._devices = devices_of(wish)
        self._request = request
        self._cache = cache
        self._paths = found.paths
        self.settings = replace(settings.divided(len(self._devices)), share=(0, len(self._devices)))  # of this process
        self._processes: list[tuple[str | None, subprocess.Popen[str]]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()  # `start` is called in a thread of the engine's
        self._stopped = False
        self._wish = wish

    @property
    def others(self) -> bool:
        """Whether there are other processes."""
        return len(self._devices) > 1

    def start(self, precision: str) -> None:
        """Start the other processes, once the precision is known."""
        with self._lock:
            if not self._processes and not self._stopped and self.others:
                self._start(precision)

    def _start(self, precision: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bottleneck-")
        table = Path(self._folder.name) / "images.csv"
        with open(table, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([["path"], *([str(Path(path).absolute())] for path in self._paths)])
        for number, device in enumerate(self._devices[1:], 1):
            job = {
                "images": str(table),
                "request": replace(self._request, precision=precision).to_json(),
                "wish": asdict(replace(self._wish, device=device)),
                "cache": str(self._cache),
                "settings": asdict(replace(self.settings, share=(number, len(self._devices)))),
            }
            with open(self._words(number), "wb") as words:  # a pipe that nobody reads would fill up
                process = subprocess.Popen(
                    [sys.executable, "-c", _MAIN], stdin=subprocess.PIPE, stderr=words, text=True
                )
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended; `finish` tells why
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()  # it stays open: its end is how the others learn that this process has ended
            self._processes.append((device, process))

    def finish(self) -> tuple[str, ...]:
        """Wait for the others; return what went wrong with them, whose images are then left to this process."""
        remarks = []
        for number, (device, process) in enumerate(self._processes, 1):
            if process.wait():
                words = self._words(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                last = words[-1] if words else "no word"
                remarks.append(f"the process on {device} ended early ({last}); its images were left to this one")
            _hang_up(process)
        self._processes = []
        return tuple(remarks)

    def stop(self) -> None:
        """End the others, if they still work; what they have committed is kept."""
        with self._lock:
            self._stopped = True
        for _, process in self._processes:
            if sys.platform != "win32":
                process.send_signal(signal.SIGINT)  # upon which they commit what they have
        until = time.monotonic() + _PATIENCE
        for _, process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()
            _hang_up(process)
        if self._folder:
            self._folder.cleanup()

    def _words(self, number: int) -> Path:
        """Return the file for what a process says."""
        assert self._folder
        return Path(self._folder.name) / f"{number}.txt"


@dataclass(frozen=True)
class Shared:
    """What came of working together.

    Parameters
    ----------
    before : Index
        What was cached when the first features were computed.
    remarks : tuple of str
        What went wrong with the others.
    """

    before: Index
    remarks: tuple[str, ...]


def work_together(
    found: FileIndex,
    wish: EngineOptions,
    request: Request,
    home: FeatureCache,
    pending: LazyBackbone,
    known: dict[bytes, ImageError],
    settings: Settings,
    done: Work,
    progress: Progress | None,
) -> Shared | None:
    """Compute a share of the images while other processes compute theirs, if there are devices for them.

    What is missing afterwards (a process has failed, say) is the caller's to compute.

    Parameters
    ----------
    found : FileIndex
        Of the images of all.
    wish : EngineOptions
        With the devices of all.
    request, home
        What the others are told.
    pending : LazyBackbone
        The backbone of this process.
    known, settings, done, progress
        As for `bottleneck.extraction.loop.run`.

    Returns
    -------
    Shared or None
        None where this process is to work alone.

    Raises
    ------
    ModelError, CacheError
        As `bottleneck.extract`; the others are ended.
    """
    if not may_be_several(wish) or not _lacks_something(found, before := pending.store.index(), known):
        return None
    crew = WorkerPool(wish, request, home.root, found, settings)
    if not crew.others:
        return None

    def engine(sample: Sample) -> Engine:
        nonlocal before
        started = pending.engine(sample)
        before = pending.store.index()  # of the spec that it is now
        crew.start(pending.spec.precision)
        return started

    try:
        until_settled(pending, lambda store: run(found, store, engine, known, crew.settings, done, progress))
        return Shared(before, crew.finish())
    finally:
        crew.stop()


def _lacks_something(found: FileIndex, index: Index, known: dict[bytes, ImageError]) -> bool:
    """Whether there may be anything to compute, for which it pays to look for devices."""
    digests = [digest for digest in found.digests if digest is not None and digest not in known]
    return bool(found.unknown()) or not index.has(as_digests(digests)).all()


def _hang_up(process: "subprocess.Popen[str]") -> None:
    """Close this end of a process's stdin."""
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()

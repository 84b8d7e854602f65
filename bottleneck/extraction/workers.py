"""Use several devices of one machine: a process for each, all writing shards into one cache.

This process uses the first device and the first share of the images; each worker uses the next ones.
"""

import csv
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bottleneck.cache.index import Index
from bottleneck.engines.hardware import gpu_possible
from bottleneck.engines.options import EngineOptions
from bottleneck.engines.parity import Sample
from bottleneck.errors import ModelError
from bottleneck.extraction.job import ExtractionJob, Outcomes
from bottleneck.extraction.loop import run_until_settled
from bottleneck.extraction.plan import EngineStart, Plan, StartEngine
from bottleneck.images.keys import as_digests

# Without -m, which would search the current folder, perhaps one of images, for modules first.
_CHECKOUT = str(Path(__file__).parents[2])  # the folder that contains the package
_MAIN = f"import sys; sys.path[0] = {_CHECKOUT!r}; from bottleneck.extraction.worker_main import main; main()"

_PATIENCE = 0.5  # seconds to wait for the workers after Ctrl-C


def _cuda_devices() -> tuple[str, ...]:
    """Return the names of all visible CUDA devices; import torch only if there may be one."""
    if not gpu_possible():
        return ()
    from bottleneck.engines.torch_engine import cuda_devices

    return cuda_devices()


def devices_of(
    options: EngineOptions, visible: Callable[[], tuple[str, ...]] = _cuda_devices
) -> tuple[str | None, ...]:
    """Return the devices to use: those named, separated by commas; by default all visible CUDA devices.

    Parameters
    ----------
    options : EngineOptions
    visible : callable
        Returns the names of all visible CUDA devices.

    Raises
    ------
    ModelError
        If one of several has no name.
    """
    if options.device is not None:
        return _names(options.device)
    if options.engine != "openvino" and len(found := visible()) > 1:
        return found
    return (None,)


def may_be_several(options: EngineOptions) -> bool:
    """Return whether there may be several devices to use, without importing torch."""
    if options.device is not None:
        return "," in options.device
    return options.engine != "openvino" and gpu_possible()


def on_first_device(options: EngineOptions) -> EngineOptions:
    """Return the options of this process, which uses the first of several devices.

    Raises
    ------
    ModelError
        If one of several has no name.
    """
    return replace(options, device=_names(options.device)[0]) if options.device is not None else options


def _names(devices: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in devices.split(","))
    if not all(names):
        raise ModelError(f"expected devices separated by commas, such as cuda:0,cuda:1, got {devices!r}")
    return names


class WorkerPool:
    """The worker processes, one for each device except the first.

    Parameters
    ----------
    job : ExtractionJob
        The job that a single process would have.
    plan : Plan
    devices : tuple of str or None
        The devices of all processes.
    start_process : callable
        `subprocess.Popen`, or one in its place.
    """

    def __init__(
        self,
        job: ExtractionJob,
        plan: Plan,
        devices: tuple[str | None, ...],
        start_process: "Callable[..., subprocess.Popen[str]]" = subprocess.Popen,
    ) -> None:
        self.job = job
        self._plan = plan
        self._devices = devices
        self._start_process = start_process
        self._processes: list[tuple[str | None, subprocess.Popen[str]]] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()  # `start` is called in the thread that starts the engine
        self._stopped = False

    def share(self, number: int) -> ExtractionJob:
        """Return the job of one of the processes; this process is number 0."""
        return self.job.divided(number, len(self._devices))

    def start(self, precision: str) -> None:
        """Start the workers, once the precision is known."""
        with self._lock:
            if not self._processes and not self._stopped and len(self._devices) > 1:
                self._start(precision)

    def _start(self, precision: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bottleneck-")
        table = Path(self._folder.name) / "images.csv"
        with open(table, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            csv.writer(file).writerows([["path"], *([str(Path(path).absolute())] for path in self.job.images.paths)])
        request = replace(self._plan.request, precision=precision)
        for number, device in enumerate(self._devices[1:], 1):
            share = self.share(number)
            job = {
                "images": str(table),
                "request": request.to_json(),
                "options": asdict(replace(self._plan.options, device=device)),
                "cache": str(self._plan.cache.root),
                "limits": asdict(share.limits),
                "share": share.share,
            }
            with open(self._log(number), "wb") as log:  # a pipe that is not read would fill up
                process = self._start_process(
                    [sys.executable, "-c", _MAIN], stdin=subprocess.PIPE, stderr=log, text=True
                )
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has ended; `finish` reports why
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()  # it stays open: a worker ends when its stdin is closed
            self._processes.append((device, process))

    def finish(self) -> tuple[str, ...]:
        """Wait for the workers, and return messages about those that failed, whose images this process must compute."""
        remarks = []
        for number, (device, process) in enumerate(self._processes, 1):
            if process.wait():
                lines = self._log(number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
                last = lines[-1] if lines else "without an error message"
                remarks.append(f"the process on {device} ended early ({last}); this process computes its images")
            _close_stdin(process)
        self._processes = []
        return tuple(remarks)

    def stop(self) -> None:
        """Stop the workers that still run; features that they have committed are kept."""
        with self._lock:
            self._stopped = True
        for _, process in self._processes:
            if sys.platform != "win32":
                process.send_signal(signal.SIGINT)  # they then commit the features that they have computed
        until = time.monotonic() + _PATIENCE
        for _, process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()
            _close_stdin(process)
        if self._folder:
            self._folder.cleanup()

    def _log(self, number: int) -> Path:
        """Return the file of a worker's error messages."""
        assert self._folder
        return Path(self._folder.name) / f"{number}.txt"


@dataclass(frozen=True)
class SharedWork:
    """The result of working together with other processes.

    Parameters
    ----------
    plan : Plan
        With the engine of this process.
    before : Index
        The index of the cache when the first features were computed.
    remarks : tuple of str
        Messages about processes that failed.
    """

    plan: Plan
    before: Index
    remarks: tuple[str, ...]


def work_together(
    job: ExtractionJob,
    plan: Plan,
    outcomes: Outcomes,
    start_engine: StartEngine,
    options: EngineOptions,
) -> SharedWork | None:
    """Compute a share of the images while other processes compute theirs, if there are several devices.

    Features that are missing afterwards, for example because a worker failed, are left to the caller.

    Parameters
    ----------
    job, plan, outcomes, start_engine
        See `bottleneck.extraction.loop.run_until_settled`.
    options : EngineOptions
        With the devices of all processes.

    Returns
    -------
    SharedWork or None
        None if this process must work alone.

    Raises
    ------
    ModelError, CacheError
        See `bottleneck.extract`; the workers are stopped.
    """
    before = plan.store.index()
    if not may_be_several(options) or not _lacks_features(job, before):
        return None
    devices = devices_of(options)
    if len(devices) < 2:
        return None
    pool = WorkerPool(job, plan, devices)

    def start_all(plan: Plan, sample: Sample) -> EngineStart:
        nonlocal before
        start = start_engine(plan, sample)
        if start.engine:
            before = plan.store.index()
            pool.start(plan.spec.precision)
        return start

    try:
        plan = run_until_settled(pool.share(0), plan, outcomes, start_all)
        return SharedWork(plan, before, pool.finish())
    finally:
        pool.stop()


def _lacks_features(job: ExtractionJob, index: Index) -> bool:
    """Return whether there may be features to compute, so that it is worth looking for devices."""
    digests = [digest for digest in job.images.digests if digest is not None and digest not in job.undecodable]
    return bool(job.images.unknown()) or not index.has(as_digests(digests)).all()


def _close_stdin(process: "subprocess.Popen[str]") -> None:
    if process.stdin:
        with suppress(BrokenPipeError):
            process.stdin.close()

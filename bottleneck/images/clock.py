"""Decide whether the timestamps of a file guarantee that its bytes have not changed since they were read."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bottleneck.utils.files import make_folder, temporary_path

IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs"})
_TICK = 0.02  # seconds; the resolution of a kernel's file clock is 1 to 10 ms
_UNKNOWN_LAG = 30.0  # seconds that the clock of a file server is assumed to lag
_LIFETIME = 10.0  # seconds for which a comparison of clocks is valid
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has only the latter
_DIRTY_SECONDS = 3600.0  # after which every page is written back: Linux does so after 35 s, laptops after 10 minutes


class FileClock:
    """Compares the clock of this machine with that of a file system.

    The clock of a file system may be that of another machine, and timestamps may be rounded down, to 2 s (FAT) or 1 s
    (ext3, HFS+). A new file on the same file system reveals both.

    Parameters
    ----------
    folder : Path
        Where to write a test file; created if it is missing.
    now : callable, optional
        The clock of this machine, in seconds since the epoch.
    lifetime : float
        Seconds for which a comparison of the clocks is valid.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time, lifetime: float = _LIFETIME) -> None:
        self._folder, self._now, self._lifetime = folder, now, lifetime
        self._compared = -lifetime  # monotonic time of the last comparison
        self._device: int | None = None
        self._lag = _UNKNOWN_LAG

    def lag(self, path: str) -> float:
        """Return an upper bound on the seconds by which the file system's clock lags behind `time.time`.

        It is infinite if a file can change without a new timestamp: a file system in memory never writes back the pages
        of a memory map, and updates the timestamp only at the first write to each. It is 30 s on a file system on which
        no test file can be written.
        """
        if time.monotonic() - self._compared >= self._lifetime:
            self._compare()
        try:
            device = os.stat(path).st_dev
        except (OSError, ValueError):
            return _UNKNOWN_LAG
        if _in_memory(device):
            return float("inf")
        return self._lag if device == self._device else _UNKNOWN_LAG

    def _compare(self) -> None:
        self._compared, self._device = time.monotonic(), None
        with suppress(OSError):
            make_folder(self._folder)
            probe = temporary_path(self._folder / "clock")
            before = self._now()
            with open(probe, "xb", buffering=0) as file:
                file.write(b"\0")
                status = os.fstat(file.fileno())
            probe.unlink()
            lag = before - status.st_mtime_ns / 1e9
            self._device, self._lag = status.st_dev, lag if lag > _TICK else 0.0


def written_back(
    descriptor: int, *, now: Callable[[], float] = time.time, sync: Callable[[int], object] = _sync
) -> os.stat_result:
    """Write back the dirty pages of an open file, and return its status.

    After a change through a memory map, further changes to the same page do not update the timestamp until the page is
    written back.
    """
    status = os.fstat(descriptor)
    if now() - max(status.st_mtime, status.st_ctime) > _DIRTY_SECONDS:
        return status
    with suppress(OSError):  # Windows syncs only files that are open for writing
        sync(descriptor)
    return os.fstat(descriptor)


@lru_cache
def _in_memory(device: int) -> bool:
    """Return whether a device is a file system in memory; known only on Linux."""
    number = f"{os.major(device)}:{os.minor(device)}" if hasattr(os, "major") else ""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            place, _, kind = line.partition(" - ")
            if place.split()[2] == number:
                return kind.split()[0] in IN_MEMORY
    return False

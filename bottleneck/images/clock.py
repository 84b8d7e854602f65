"""When the time stamps of a file prove that its bytes are those that were read."""

import os
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from bottleneck.utils.files import make_folder, temporary_beside

IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs", "hugetlbfs"})
_TICK = 0.02  # seconds; a kernel stamps files with a clock that moves every 1 to 10 ms
_UNKNOWN_LAG = 30.0  # seconds that the clock of a file server may be behind
_LIFETIME = 10.0  # seconds that a comparison of clocks holds
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only
_DIRTY_SECONDS = 3600.0  # after which every page was written back: Linux does so after 35 s, laptops after 10 minutes


class FileClock:
    """Compares the clock of this machine with the one that stamps files.

    The clock of a file system may be another machine's, and time stamps may be rounded down, to 2 s (FAT) or 1 s (ext3,
    HFS+). A file just written to the same file system shows both.

    Parameters
    ----------
    folder : Path
        Where a file may be written; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._compared = -_LIFETIME  # when, on a clock that never jumps
        self._device: int | None = None
        self._lag = _UNKNOWN_LAG

    def lag(self, path: str) -> float:
        """Return by how many seconds the clock that stamps a file may be behind `time.time`.

        It is infinite where a file can change without a new time stamp at all: a file system in memory never writes the
        pages of a memory map back, and stamps only the first write to each. It is 30 s on a file system where nothing
        can be written to compare the clocks.
        """
        if time.monotonic() - self._compared >= _LIFETIME:
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
            probe = temporary_beside(self._folder / "clock")
            before = time.time()
            with open(probe, "xb", buffering=0) as file:
                file.write(b"\0")
                status = os.fstat(file.fileno())
            probe.unlink()
            lag = before - status.st_mtime_ns / 1e9
            self._device, self._lag = status.st_dev, lag if lag > _TICK else 0.0


def written_back(descriptor: int) -> os.stat_result:
    """Return the status of an open file of which no page is dirty.

    A page that a memory map has changed takes more changes without a new time stamp until it is written back; the next
    change then stamps the file again.
    """
    status = os.fstat(descriptor)
    if time.time() - max(status.st_mtime, status.st_ctime) > _DIRTY_SECONDS:
        return status
    with suppress(OSError):  # Windows syncs only what is open for writing
        _sync(descriptor)
    return os.fstat(descriptor)


@lru_cache
def _in_memory(device: int) -> bool:
    """Whether a device is a file system that lives in memory; known on Linux only."""
    number = f"{os.major(device)}:{os.minor(device)}" if hasattr(os, "major") else ""
    with suppress(OSError), open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            place, _, kind = line.partition(" - ")
            if place.split()[2] == number:
                return kind.split()[0] in IN_MEMORY
    return False

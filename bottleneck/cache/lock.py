"""The lock of maintenance jobs, which delete shards: one runs at a time. Extracting and reading need no lock."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bottleneck.cache.kinds import tree_of
from bottleneck.errors import CacheError

LOCK = "maintenance.lock"
PATIENCE = 5.0  # seconds that a command waits; joining small shards after a commit takes less
_STEP = 0.05  # seconds


@contextmanager
def maintenance(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a store's folder; the system releases it when the process ends, even if it is killed.

    Parameters
    ----------
    folder : Path
    patience : float
        Seconds to wait for another job to finish.

    Raises
    ------
    CacheError
        If another process holds the lock, the lock file cannot be opened, or the file system has no locks.

    Notes
    -----
    This uses ``flock`` directly: filelock opens its file by path, which follows links to folders, and some versions
    fall back to a lock file that a killed process leaves behind.
    """
    if os.name == "nt":
        raise CacheError("expected a system with file locks for cache maintenance; Windows is not supported yet")
    try:
        descriptor = tree_of(folder).open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise CacheError(f"cannot write to the cache {folder}: {error.strerror or error}") from error
    try:
        _acquire(descriptor, folder, patience)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path, patience: float) -> None:
    import fcntl

    deadline = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                break
            time.sleep(_STEP)
        except OSError as error:
            raise CacheError(f"cannot lock {folder}: {error.strerror or error}") from error
    raise CacheError(f"expected no other maintenance job on {folder}, found one running: try again later")

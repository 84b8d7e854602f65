"""One maintenance job at a time. Extracting and reading need no lock; deleting what another job relies on would."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bottleneck.cache.kinds import tree_of
from bottleneck.errors import CacheError

LOCK = "maintenance.lock"
PATIENCE = 5.0  # seconds that a job of the user waits for one that joins small shards, which takes less
_STEP = 0.05  # seconds


@contextmanager
def maintenance(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a store's folder; the system frees it when the process ends, however it ends.

    Parameters
    ----------
    folder : Path
    patience : float
        Seconds to wait for another job to end.

    Raises
    ------
    CacheError
        If another process holds it, or the file system has no locks.
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

    until = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                break
            time.sleep(_STEP)
        except OSError as error:
            raise CacheError(f"cannot lock {folder}: {error.strerror or error}") from error
    raise CacheError(f"expected no other maintenance of {folder}, one is at work: try again later")

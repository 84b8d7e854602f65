"""One maintenance job at a time. Extracting and reading need no lock; deleting what another job relies on would."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bottleneck.errors import CacheError


@contextmanager
def maintenance(folder: Path) -> Iterator[None]:
    """Hold the lock of a store's folder; the system frees it when the process ends, however it ends.

    Raises
    ------
    CacheError
        If another process holds it, or the file system has no locks.
    """
    if os.name == "nt":
        raise CacheError("expected a system with file locks for cache maintenance; Windows is not supported yet")
    try:
        descriptor = os.open(folder / "maintenance.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise CacheError(f"cannot write to the cache {folder}: {error.strerror or error}") from error
    try:
        _acquire(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CacheError(f"expected no other maintenance of {folder}, one is at work: try again later") from None
    except OSError as error:
        raise CacheError(f"cannot lock {folder}: {error.strerror or error}") from error

"""A lock to decode images in parallel, or one exclusively: a failure in parallel may be due to lack of memory."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SharedLock:
    """A lock that many threads hold together, or one exclusively."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._sharing = 0
        self._exclusive = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the lock together with other threads."""
        with self._changed:
            while self._exclusive:
                self._changed.wait()
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock exclusively; threads that come later wait."""
        with self._changed:
            while self._exclusive:
                self._changed.wait()
            self._exclusive = True
            while self._sharing:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()


def can_allocate(size: int) -> bool:
    """Return whether this process can allocate `size` more bytes of memory."""
    try:
        with mmap.mmap(-1, max(1, size)):
            return True
    except (OSError, MemoryError, ValueError, OverflowError):
        return False

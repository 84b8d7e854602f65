"""Decoding with others, and alone: what failed beside others may have failed for lack of memory."""

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class SharedExclusiveLock:
    """Lets many through together, or one alone."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """Be inside with others."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be inside alone; whoever comes later waits."""
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


def has_room(size: int) -> bool:
    """Whether the system gives this process `size` more bytes of memory."""
    try:
        with mmap.mmap(-1, max(1, size)):
            return True
    except (OSError, MemoryError, ValueError, OverflowError):
        return False

"""A queue between two stages that is limited in bytes."""

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Cancelled(BaseException):
    """Raised in a thread when the work is stopped. It is a BaseException, so that no error handler catches it."""


class ByteBoundedQueue(Generic[T]):
    """Passes items from some threads to others.

    Parameters
    ----------
    limit : int, optional
        Maximum number of waiting bytes; a single item is always accepted. By default there is no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = self._cancelled = False
        self._changed = Condition()

    def put(self, item: T, size: int = 0) -> None:
        """Add an item of `size` bytes, once it fits.

        Raises
        ------
        Cancelled
            If the work was stopped.
        """
        with self._changed:
            while not self._cancelled and self._items and self._limit is not None and self._bytes + size > self._limit:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            self._items.append((item, size))
            self._bytes += size
            self._changed.notify_all()

    def get(self) -> T | None:
        """Return the next item; None once the queue is closed and empty.

        Raises
        ------
        Cancelled
            If the work was stopped.
        """
        with self._changed:
            while not self._items and not self._closed and not self._cancelled:
                self._changed.wait()
            if self._cancelled:
                raise Cancelled
            if not self._items:
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return item

    def waiting(self) -> list[T]:
        """Return the waiting items without removing them."""
        with self._changed:
            return [item for item, _ in self._items]

    def rest(self) -> list[T]:
        """Remove and return all waiting items."""
        with self._changed:
            items = [item for item, _ in self._items]
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """Declare that no more items will be added."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Raise `Cancelled` in every thread that waits here or calls later."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

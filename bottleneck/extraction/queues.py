"""What stands between two stages: a queue that holds so many bytes."""

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class Cancelled(BaseException):
    """The work has been stopped; a thread that meets this ends, and nothing on its way takes it for an error."""


class ByteBoundedQueue(Generic[T]):
    """Hands items from some threads to others.

    Parameters
    ----------
    limit : int, optional
        How many bytes may wait in it; one item may always. By default there is no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = self._cancelled = False
        self._changed = Condition()

    def put(self, item: T, size: int = 0) -> None:
        """Add an item of `size` bytes, when there is room for it.

        Raises
        ------
        Cancelled
            If the work has been stopped.
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
        """Return the next item, or None where no more will come.

        Raises
        ------
        Cancelled
            If the work has been stopped.
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
        """Return the items that are here; they stay."""
        with self._changed:
            return [item for item, _ in self._items]

    def rest(self) -> list[T]:
        """Take out all items that are here, without waiting."""
        with self._changed:
            items = [item for item, _ in self._items]
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
            return items

    def close(self) -> None:
        """Say that no more items will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop all that wait here, and all that come."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

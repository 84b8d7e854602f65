"""The memory budget of all stages: how it is divided, and how threads reserve parts of it without a deadlock.

File contents, images that are being decoded, and waiting pixels and features share one budget. There is no deadlock,
because threads reserve memory in the order of the stages, and a thread that holds memory of a later stage never waits
for that of an earlier one:

1. A thread that reads a small file reserves its bytes from `MemoryBudget.files` while it holds nothing. They are
   released when the image is decoded.
2. A thread that decodes a small file reserves the memory for decoding from `MemoryBudget.decoding`. It releases it
   before it waits for the next stage to take the pixels.
3. A large file is read and decoded by one thread, with memory from `MemoryBudget.decoding` alone.

In 2 and 3, a thread that needs more memory releases all of it before it waits, and then starts again; a large file is
read again (`bottleneck.extraction.loading`). It never waits inside the decoder, which may hold locks. So a thread that
holds memory from `MemoryBudget.decoding` never waits for memory, and always releases it. Threads are served in order of
arrival, so many small images never block a large one.
"""

import threading
from collections import deque
from collections.abc import Callable

from bottleneck.errors import ImageError
from bottleneck.extraction.queues import Cancelled
from bottleneck.utils.memory import free_memory, shown_size

LEAST_MEMORY = 32_000_000  # bytes
_NETWORK = 1 << 30  # bytes of a typical network and the libraries that run it
_SHARE = 2 / 3  # of the free memory without that of the networks
_MOST_WAITING = 64 << 20  # bytes between two stages; more would not be faster
_COMMIT_COPIES = 3  # of committed features: the batches, one array, and the shard
_SMALL_FILES = 4  # minimum number of small files in memory at once
_FILE = 1 << 10  # bytes that describe a waiting file
_LARGE = 64 << 20  # bytes; an image that takes more also needs that much free memory when it is decoded


class NoRoom(ImageError):
    """An image that needs more memory than its limit.

    Parameters
    ----------
    message : str
    """

    def __init__(self, message: str) -> None:
        super().__init__("no-memory", message)


class ByteBudget:
    """A number of bytes that several threads share.

    Parameters
    ----------
    limit : int
        In bytes.
    free : callable
        Returns the free memory in bytes, which also limits images of 64 MiB or more.
    """

    def __init__(self, limit: int, free: Callable[[], int] = free_memory) -> None:
        self.limit = limit
        self._free = free
        self._taken = 0
        self._waiting: deque[object] = deque()
        self._cancelled = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Reserve `size` bytes, waiting until they are free.

        Raises
        ------
        NoRoom
            If `size` is above the limit, or more than the free memory.
        Cancelled
            If the work was stopped.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while not self._cancelled and not (self._waiting[0] is ticket and self._fits(size)):
                    self._changed.wait()
                if self._cancelled:
                    raise Cancelled
                self._taken += size
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def try_to_take(self, size: int) -> bool:
        """Reserve `size` bytes if they are free now; return whether they were.

        Raises
        ------
        NoRoom, Cancelled
            See `take`.
        """
        with self._changed:
            if self._cancelled:
                raise Cancelled
            if self._waiting or not self._fits(size):
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Release `size` bytes."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def cancel(self) -> None:
        """Raise `Cancelled` in every thread that waits here or calls later."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def check(self, size: int) -> None:
        """Refuse a size above the limit.

        Raises
        ------
        NoRoom
            If `size` is above the limit.
        """
        if size > self.limit:
            raise NoRoom(
                f"expected an image that takes at most {shown_size(self.limit)} of memory to decode, found one that "
                f"takes {shown_size(size)}: --memory sets the limit"
            )

    def _fits(self, size: int) -> bool:
        self.check(size)
        if self._taken + size > self.limit:
            return False
        if size < _LARGE or (free := self._free()) >= size:
            return True
        if self._taken:
            return False  # the memory that other threads hold may be enough
        raise NoRoom(
            f"expected {shown_size(size)} of free memory to decode the image, found {shown_size(free)}: run the "
            f"command again when more is free"
        )


class Reservation:
    """The bytes of a budget that one image holds; a context manager that releases them on exit.

    Parameters
    ----------
    budget : ByteBudget
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.size = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def grow(self, size: int) -> None:
        """Hold `size` bytes in total; the image holds nothing while it waits for them.

        Raises
        ------
        NoRoom, Cancelled
            See `ByteBudget.take`.
        """
        if size > self.size:
            self.release()
            self._budget.take(size)
            self.size = size

    def grow_at_once(self, size: int) -> bool:
        """Hold `size` bytes in total if they are free now; return whether they were.

        Raises
        ------
        NoRoom, Cancelled
            See `ByteBudget.take`.
        """
        if size <= self.size:
            return True
        self._budget.check(size)
        if not self._budget.try_to_take(size - self.size):
            return False
        self.size = size
        return True

    def release(self) -> None:
        """Release all bytes; do nothing if they are already released."""
        size, self.size = self.size, 0
        if size:
            self._budget.give(size)


class MemoryBudget:
    """The memory budget, divided among the stages.

    Parameters
    ----------
    total : int
        In bytes, at least `LEAST_MEMORY`.
    """

    def __init__(self, total: int) -> None:
        files, pixels, features, commit = (min(_MOST_WAITING, total // part) for part in (8, 16, 16, 32))
        self.files = ByteBudget(files)
        self.decoding = ByteBudget(total - files - pixels - features - _COMMIT_COPIES * commit)
        self.waiting_pixels = pixels
        self.waiting_features = features
        self.committed = commit  # bytes of features committed at once
        self.small = files // _SMALL_FILES - _FILE  # bytes; a larger file is read only when it is decoded

    def cancel(self) -> None:
        """Raise `Cancelled` in every thread that waits for memory."""
        self.files.cancel()
        self.decoding.cancel()


def size_waiting(size: int) -> int:
    """Return the memory that a waiting file of `size` bytes takes, in bytes."""
    return size + _FILE


def usual_memory(processes: int = 1, free_memory: Callable[[], int] = free_memory) -> int:
    """Return the default budget, in bytes, of each of several processes on this machine.

    It is two thirds of the free memory that the networks leave. A network is assumed to take 1 GiB, or half of the free
    memory if that is less than 2 GiB, for example in a container.
    """
    free = free_memory() // processes
    return max(LEAST_MEMORY, int((free - min(_NETWORK, free // 2)) * _SHARE))

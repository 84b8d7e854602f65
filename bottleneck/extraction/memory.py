"""The memory of all stages together: how it is divided, who has how much of it, and who waits for more.

Bytes of files, images that are being decoded, and pixels and features that wait are parts of one budget. No thread
waits for ever, because each asks for its parts in the order of the stages, and whoever has a later part never waits for
an earlier one:

1. A thread that reads a small file asks for its bytes in `MemoryBudget.files` while it has nothing. They are given
   back when the image is decoded.
2. A thread that decodes a small file asks for what decoding takes in `MemoryBudget.decoding`. It gives that back
   before it waits for the next stage to take the pixels.
3. One thread reads and decodes a large file, with memory of `MemoryBudget.decoding` alone.

In 2 and 3 a thread gives back what it has before it waits for more; then it begins again, and reads a large file again
(`bottleneck.extraction.loading`). It never waits within the decoder, which may have locks of its own. So a thread that
has memory of `MemoryBudget.decoding` waits for no memory, and gives it back. Threads are served in the order in which
they came: many small images never keep a large one waiting.
"""

import threading
from collections import deque
from collections.abc import Callable

from bottleneck.errors import ImageError
from bottleneck.extraction.queues import Cancelled
from bottleneck.utils.memory import free_memory, shown_size

LEAST_MEMORY = 32_000_000  # bytes
_NETWORK = 1 << 30  # bytes that a usual network takes, with the libraries that run it
_SHARE = 2 / 3  # of what is free besides
_MOST_WAITING = 64 << 20  # bytes that wait between two stages: more would make nothing faster
_COMMIT_COPIES = 3  # of features that are committed: as they came, in one array, and as a shard
_SMALL_FILES = 4  # that have room at once, at the least
_FILE = 1 << 10  # bytes of what is known of a file that waits
_LARGE = 64 << 20  # bytes; an image that takes more is decoded only if there is so much free memory at that moment


class NoRoom(ImageError):
    """An image that takes more memory than it may.

    Parameters
    ----------
    message : str
    """

    def __init__(self, message: str) -> None:
        super().__init__("no-memory", message)


class ByteBudget:
    """So many bytes, for several threads.

    Parameters
    ----------
    limit : int
        In bytes.
    free : callable
        Says how many bytes of memory are free. An image of 64 MiB or more also needs that.
    """

    def __init__(self, limit: int, free: Callable[[], int] = free_memory) -> None:
        self.limit = limit
        self._free = free
        self._taken = 0
        self._waiting: deque[object] = deque()
        self._cancelled = False
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room for `size` bytes, and have it until it is given back.

        Raises
        ------
        NoRoom
            If there never will be.
        Cancelled
            If the work has been stopped.
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
        """Take `size` bytes if they can be had at once, and say whether.

        Raises
        ------
        NoRoom, Cancelled
            As `take`.
        """
        with self._changed:
            if self._cancelled:
                raise Cancelled
            if self._waiting or not self._fits(size):
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def cancel(self) -> None:
        """Stop all that wait here, and all that come."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def check(self, size: int) -> None:
        """Refuse what would never have room.

        Raises
        ------
        NoRoom
            If it is more than the limit.
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
            return False  # those that work now may leave enough
        raise NoRoom(
            f"expected {shown_size(size)} of free memory to decode the image, found {shown_size(free)}: run the "
            f"command again when there is more"
        )


class Reservation:
    """What one image has of a room; a context manager, at whose end it is given back.

    Parameters
    ----------
    room : ByteBudget
    """

    def __init__(self, room: ByteBudget) -> None:
        self._room = room
        self.size = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def grow(self, size: int) -> None:
        """Have `size` bytes in all, waiting for them with nothing.

        Raises
        ------
        NoRoom, Cancelled
            As `ByteBudget.take`.
        """
        if size > self.size:
            self.release()
            self._room.take(size)
            self.size = size

    def grow_at_once(self, size: int) -> bool:
        """Have `size` bytes in all if they can be had at once, and say whether.

        Raises
        ------
        NoRoom, Cancelled
            As `ByteBudget.take`.
        """
        if size <= self.size:
            return True
        self._room.check(size)
        if not self._room.try_to_take(size - self.size):
            return False
        self.size = size
        return True

    def release(self) -> None:
        """Give all back; a second time nothing."""
        size, self.size = self.size, 0
        if size:
            self._room.give(size)


class MemoryBudget:
    """One budget, divided among the stages.

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
        self.committed = commit  # features that are committed at once
        self.small = files // _SMALL_FILES - _FILE  # bytes of the largest file that is read before its turn

    def cancel(self) -> None:
        """Stop all that wait for memory."""
        self.files.cancel()
        self.decoding.cancel()


def size_waiting(size: int) -> int:
    """Return what a file of `size` bytes takes while it waits."""
    return size + _FILE


def usual_memory(processes: int = 1) -> int:
    """Return the budget of each of some processes here: two thirds of the free memory that their networks leave.

    A network usually takes up to 1 GiB; of less than 2 GiB (in a container, say) it is left a half.
    """
    free = free_memory() // processes
    return max(LEAST_MEMORY, int((free - min(_NETWORK, free // 2)) * _SHARE))

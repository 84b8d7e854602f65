"""An image's file becomes pixels within the memory that there is for it."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bottleneck.engines.memory import return_freed_memory
from bottleneck.errors import ImageError
from bottleneck.extraction.memory import MemoryBudget, NoRoom, Reservation
from bottleneck.images.beginning import refusal
from bottleneck.images.decode import MAX_PIXELS, Decoded, decode
from bottleneck.images.digest import ImageFile, Signature
from bottleneck.images.preprocessing import Preprocessing

_COPIES = 2  # of a large file: a codec, or what leaves its metadata out, makes another
_RETURNED = 1 / 16  # of the room for decoding: what takes more goes back to the system, and is not kept for the next


@dataclass(frozen=True)
class Loaded:
    """What came of a file; digest and pixels are of the same bytes.

    Parameters
    ----------
    digest : bytes
    signature : Signature
    when : float
        When it was read, in seconds since the epoch.
    found : Decoded, ImageError or None
        Its pixels, or why there are none; None where they are not wanted.
    """

    digest: bytes
    signature: Signature
    when: float
    found: Decoded | ImageError | None


class Loader:
    """Reads and decodes images, as many at once as there is memory for.

    Parameters
    ----------
    memory : MemoryBudget
    preprocessing : Preprocessing
    max_pixels : int
    """

    def __init__(self, memory: MemoryBudget, preprocessing: Preprocessing, max_pixels: int = MAX_PIXELS) -> None:
        self.memory = memory
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels

    def decode(self, data: bytes) -> Decoded | ImageError:
        """Decode the bytes of a small file, which have their room already."""
        with Reservation(self.memory.decoding) as share:
            while True:
                asked = _Asked(share, len(data))
                found = self._decode(data, asked)
                if not asked.lacks:
                    return found
                try:
                    share.grow(asked.lacks)
                except NoRoom as error:
                    return without_history(error)

    def load(self, path: str, wanted: Callable[[bytes], bool] = lambda _: True) -> Loaded:
        """Read and decode one file; the caller has no part of the memory.

        A large file that cannot be decoded by its header, or for which there will never be memory, is only read in
        pieces, for its digest.

        Parameters
        ----------
        path : str
        wanted : callable
            Takes the digest, once, and says whether the image is to be decoded.

        Raises
        ------
        ImageError
            If the file cannot be read.
        Cancelled
            If the work has been stopped.
        """
        answers: dict[bytes, bool] = {}

        def is_wanted(digest: bytes) -> bool:
            if digest not in answers:
                answers[digest] = wanted(digest)
            return answers[digest]

        when = time.time()
        with ImageFile(path) as file:
            refused = refusal(file, self._max_pixels) if file.size > self.memory.small else None
            if refused:
                digest, error = file.digest(refused.read), refused.error
            else:
                try:
                    digest, found = self._whole(file, is_wanted)
                    return Loaded(digest, file.signature, when, found)
                except NoRoom as no_room:
                    digest, error = file.digest(), no_room
            return Loaded(digest, file.signature, when, without_history(error) if is_wanted(digest) else None)

    def _whole(self, file: ImageFile, wanted: Callable[[bytes], bool]) -> tuple[bytes, Decoded | ImageError | None]:
        """Read a whole file and decode it; where there is no room for both at once, wait for it with neither.

        Raises
        ------
        NoRoom
            If there is no room to read it.
        """
        needed, known = _COPIES * file.size, b""
        with Reservation(self.memory.decoding) as share:
            while True:
                share.grow(needed)
                asked = _Asked(share, _COPIES * file.size)
                digest, found = self._once(file, asked, wanted)
                if known not in (b"", digest):
                    raise ImageError("changed", "the file changed while it was being read; run the command again")
                if not asked.lacks:
                    return digest, found
                needed, known = asked.lacks, digest

    def _once(
        self, file: ImageFile, asked: "_Asked", wanted: Callable[[bytes], bool]
    ) -> tuple[bytes, Decoded | ImageError | None]:
        data = file.read()
        digest = hashlib.sha256(data).digest()
        return digest, self._decode(data, asked) if wanted(digest) else None

    def _decode(self, data: bytes, asked: "_Asked") -> Decoded | ImageError:
        try:
            return decode(data, self._preprocessing, self._max_pixels, asked)
        except ImageError as error:
            return without_history(error)
        finally:
            if asked.most > _RETURNED * self.memory.decoding.limit:
                return_freed_memory()


class _Asked:
    """What `decode` asks for room, and gets at once or not at all: it may hold what others wait for.

    Parameters
    ----------
    share : Reservation
        Of this image, which keeps it until the image is done and its memory is free again.
    beside : int
        Bytes that it needs besides.
    """

    def __init__(self, share: Reservation, beside: int) -> None:
        self._share = share
        self._beside = beside
        self.most = beside
        self.lacks = 0  # bytes that the share would need

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        size += self._beside
        self.most = max(self.most, size)
        if not self._share.grow_at_once(size):
            self.lacks = size
            raise NoRoom("no room for all of it at once")
        yield


def without_history(error: ImageError) -> ImageError:
    """Take from an error what led to it: a traceback keeps a file's bytes and its half-decoded picture in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

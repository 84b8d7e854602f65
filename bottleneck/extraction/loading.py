"""Read and decode one image within the memory budget."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bottleneck.engines.memory import return_freed_memory
from bottleneck.errors import ImageError
from bottleneck.extraction.memory import MemoryBudget, NoRoom, Reservation
from bottleneck.images.decode import MAX_PIXELS, Decoded, decode
from bottleneck.images.digest import ImageFile, Signature
from bottleneck.images.header_check import header_failure
from bottleneck.images.preprocessing import Preprocessing

_COPIES = 2  # of a large file: a codec makes a second one, and so does removing metadata
_RETURNED = 1 / 16  # of the budget for decoding: larger amounts are returned to the system, not kept for the next image


@dataclass(frozen=True)
class Loaded:
    """A file that was read; digest and pixels are of the same bytes.

    Parameters
    ----------
    digest : bytes
    signature : Signature
    when : float
        When it was read, in seconds since the epoch.
    found : Decoded, ImageError or None
        The pixels, or the reason why there are none; None if they were not requested.
    """

    digest: bytes
    signature: Signature
    when: float
    found: Decoded | ImageError | None


class Loader:
    """Reads and decodes images, as many at once as the memory allows.

    Parameters
    ----------
    memory : MemoryBudget
    preprocessing : Preprocessing
    max_pixels : int
    decode : callable
        `bottleneck.images.decode.decode`, or one in its place.
    open_file : callable
        `bottleneck.images.digest.ImageFile`, or one in its place.
    """

    def __init__(
        self,
        memory: MemoryBudget,
        preprocessing: Preprocessing,
        max_pixels: int = MAX_PIXELS,
        *,
        decode: Callable[..., Decoded] = decode,
        open_file: Callable[[str], ImageFile] = ImageFile,
    ) -> None:
        self.memory = memory
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._to_pixels = decode
        self._open_file = open_file

    def decode(self, data: bytes) -> Decoded | ImageError:
        """Decode the bytes of a small file, for which memory is already reserved."""
        with Reservation(self.memory.decoding) as reservation:
            while True:
                grant = _MemoryGrant(reservation, len(data))
                found = self._decode(data, grant)
                if not grant.lacks:
                    return found
                try:
                    reservation.grow(grant.lacks)
                except NoRoom as error:
                    return without_history(error)

    def load(self, path: str, wanted: Callable[[bytes], bool] = lambda _: True) -> Loaded:
        """Read and decode one file; the caller holds no memory of the budget.

        A large file is read in pieces, only to compute its digest, if its header shows that it cannot be decoded or if
        it needs more memory than the limit.

        Parameters
        ----------
        path : str
        wanted : callable
            Called once with the digest; returns whether to decode the image.

        Raises
        ------
        ImageError
            If the file cannot be read.
        Cancelled
            If the work was stopped.
        """
        answers: dict[bytes, bool] = {}

        def is_wanted(digest: bytes) -> bool:
            if digest not in answers:
                answers[digest] = wanted(digest)
            return answers[digest]

        when = time.time()
        with self._open_file(path) as file:
            refused = header_failure(file, self._max_pixels) if file.size > self.memory.small else None
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
        """Read a whole file and decode it; if there is not enough memory, release all of it, wait, and start again.

        Raises
        ------
        NoRoom
            If it needs more memory than the limit.
        """
        needed, known = _COPIES * file.size, b""
        with Reservation(self.memory.decoding) as reservation:
            while True:
                reservation.grow(needed)
                grant = _MemoryGrant(reservation, _COPIES * file.size)
                digest, found = self._once(file, grant, wanted)
                if known not in (b"", digest):
                    raise ImageError("changed", "the file changed while it was being read; run the command again")
                if not grant.lacks:
                    return digest, found
                needed, known = grant.lacks, digest

    def _once(
        self, file: ImageFile, grant: "_MemoryGrant", wanted: Callable[[bytes], bool]
    ) -> tuple[bytes, Decoded | ImageError | None]:
        data = file.read()
        digest = hashlib.sha256(data).digest()
        return digest, self._decode(data, grant) if wanted(digest) else None

    def _decode(self, data: bytes, grant: "_MemoryGrant") -> Decoded | ImageError:
        try:
            return self._to_pixels(data, self._preprocessing, self._max_pixels, grant)
        except ImageError as error:
            return without_history(error)
        finally:
            if grant.most > _RETURNED * self.memory.decoding.limit:
                return_freed_memory()


class _MemoryGrant:
    """Grants the memory that `decode` requests immediately or not at all: the decoder may hold locks of other threads.

    Parameters
    ----------
    reservation : Reservation
        Held until the image is decoded and its memory is free again.
    extra : int
        Bytes that the image needs in addition.
    """

    def __init__(self, reservation: Reservation, extra: int) -> None:
        self._reservation = reservation
        self._extra = extra
        self.most = extra
        self.lacks = 0  # bytes that the reservation would need; 0 if it was large enough

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        size += self._extra
        self.most = max(self.most, size)
        if not self._reservation.grow_at_once(size):
            self.lacks = size
            raise NoRoom("not enough memory for all of it at once")
        yield


def without_history(error: ImageError) -> ImageError:
    """Remove an error's traceback and causes, which keep a file's bytes and a half-decoded image in memory."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

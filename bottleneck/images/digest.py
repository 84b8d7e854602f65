"""The name of an image is the SHA-256 of its bytes; a memo saves reading unchanged files again.

A digest is remembered where any later change of the file would change its time stamps, as far as that can be known:
both are older than the coarsest grain of a file system's clock (`FRESH_SECONDS`), by the clock that stamps the file
(`bottleneck.images.clock.FileClock`), and no page was dirty when the file was read
(`bottleneck.images.clock.written_back`). No signature shows who sets the clock back and writes within the same tick,
who writes to the disk below the file system, or what a network file system has not yet told this machine.
`DigestMemo.forget` makes the next command read again.
"""

import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bottleneck.errors import ImageError
from bottleneck.images.clock import FileClock, written_back
from bottleneck.images.memo import Memo
from bottleneck.utils.files import open_regular

LARGEST_FILE = 2 << 30  # bytes; no image of a size that can be decoded is larger
FRESH_SECONDS = 2.0  # a file this young may change again within one tick of its clock, which is 2 s on FAT
_PIECE = 1 << 20  # bytes that are hashed at once
_DIGEST = 32  # bytes
# Versions that wrote entries in little endian did not look for dirty pages: their entries match nothing.
_ENTRY = struct.Struct(f">4Q{_DIGEST}s")
_BITS = 2**64 - 1  # a time before 1970 is negative, and one after 2262 has more than 63 bits

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


def signature(status: os.stat_result) -> Signature:
    """Return what must be unchanged for a memo of the file to hold."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(signature: Signature, now: float) -> bool:
    """Whether a file read at `now` (seconds since the epoch) was old enough for its digest to be remembered."""
    # A modification in the future was set by hand, or came with the file; the change time cannot be set.
    modified, changed = signature[1] / 1e9, signature[2] / 1e9
    return now - (max(modified, changed) if modified <= now else changed) >= FRESH_SECONDS


class ImageFile:
    """One regular file of at most `largest` bytes, open for reading; a context manager.

    Parameters
    ----------
    path : str or Path
    largest : int
        In bytes.

    Raises
    ------
    ImageError
        With code ``unreadable`` or ``too-large``.
    """

    def __init__(self, path: str | Path, largest: int = LARGEST_FILE) -> None:
        with _as_image_errors():
            self._file = open(path, "rb", buffering=0, opener=open_regular)  # noqa: SIM115
            self.signature = signature(written_back(self._file.fileno()))
        self.size = self.signature[0]
        if self.size > largest:
            self._file.close()
            raise ImageError("too-large", f"expected at most {largest >> 30} GiB, found {self.size:,} bytes")

    def __enter__(self) -> "ImageFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self) -> bytes:
        """Return all bytes.

        Raises
        ------
        ImageError
            With code ``unreadable``, ``empty``, ``no-memory`` or ``changed`` (while it was being read).
        """
        try:
            return b"".join(self._pieces(max(self.size, 1)))  # of one piece: no copy
        except MemoryError as error:
            raise ImageError("no-memory", f"no memory for {self.size:,} bytes") from error

    def digest(self, known: Iterable[tuple[int, bytes]] = ()) -> bytes:
        """Return the SHA-256 of all bytes, of which at most 1 MiB is held at a time.

        Parameters
        ----------
        known : iterable of (int, bytes)
            Where in the file, and what, has been read of it before: it must still be so.

        Raises
        ------
        ImageError
            As `read`.
        """
        found, place, known = hashlib.sha256(), 0, list(known)
        for piece in self._pieces(_PIECE):
            found.update(piece)
            if any(_differs(piece, place, *other) for other in known):
                raise _changed()
            place += len(piece)
        return found.digest()

    def read_at(self, place: int, count: int) -> bytes:
        """Return up to `count` bytes from a place on.

        Raises
        ------
        OSError
            If they cannot be read.
        """
        self._file.seek(place)
        return self._file.read(count) or b""

    def _pieces(self, most: int) -> Iterator[bytes]:
        """Yield the bytes in pieces, each of `most` but the last, and prove that they are those of one file."""
        left = self.size
        with _as_image_errors():
            self._file.seek(0)
            while left and (piece := self._file.read(min(most, left))):
                left -= len(piece)
                yield piece
            grown = self._file.read(1)
            after = signature(os.fstat(self._file.fileno()))
        if left or grown or after != self.signature:
            raise _changed()
        if not self.size:
            raise ImageError("empty", "the file has no bytes")


def read_file(
    path: str | Path, largest: int = LARGEST_FILE, admit: Callable[[int], object] | None = None
) -> tuple[bytes, Signature]:
    """Read one regular file of at most `largest` bytes whole.

    Parameters
    ----------
    path : str or Path
    largest : int
        In bytes.
    admit : callable, optional
        Called with the number of bytes before they are read; no more are. What it raises is passed on.

    Raises
    ------
    ImageError
        With code ``unreadable``, ``empty``, ``too-large``, ``no-memory`` or ``changed`` (while it was being read).
    """
    with ImageFile(path, largest) as file:
        if admit:
            admit(file.size)
        return file.read(), file.signature


def digest_file(path: str | Path, largest: int = LARGEST_FILE) -> tuple[bytes, Signature, float]:
    """Return the digest of a file, its signature, and when it was read; little of it is held at a time.

    Raises
    ------
    ImageError
        As `read_file`.
    """
    now = time.time()
    with ImageFile(path, largest) as file:
        return file.digest(), file.signature, now


@contextmanager
def _as_image_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error


def _differs(piece: bytes, place: int, start: int, part: bytes) -> bool:
    """Whether a part of a file, from `start` on, is not what a piece from `place` on says, where they overlap."""
    first, last = max(place, start), min(place + len(piece), start + len(part))
    return first < last and piece[first - place : last - place] != part[first - start : last - start]


def _changed() -> ImageError:
    return ImageError("changed", "the file changed while it was being read; run the command again")


class DigestMemo:
    """(path, size, mtime, ctime, inode) -> digest. It can always be deleted."""

    def __init__(self, path: str | Path) -> None:
        self._memo = Memo(path, "digests_2")
        self._clock = FileClock(Path(path).parent)

    @property
    def path(self) -> Path:
        """Its file."""
        return self._memo.path

    @property
    def is_ours_to_write(self) -> bool:
        """Whether the system lets this user write it."""
        return self._memo.is_ours_to_write

    def lookup(self, signatures: Mapping[str, Signature]) -> dict[str, bytes]:
        """Return the digests of those files that are unchanged since they were remembered."""
        names = {os.fsencode(path): path for path in signatures}
        found: dict[str, bytes] = {}
        for key, value in self._memo.get(list(names)).items():
            path = names[key]
            digest = value[-_DIGEST:]
            if value == _entry(signatures[path], digest):
                found[path] = digest
        return found

    def settles(self, path: str, found: Signature, when: float) -> bool:
        """Whether a digest of the file may be remembered that was read at `when`, seconds since the epoch."""
        return is_settled(found, when) and is_settled(found, when - self._clock.lag(path))

    def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
        """Keep the digests of files (path, signature, digest, when read) that were settled when they were read."""
        self._memo.put(
            (os.fsencode(path), _entry(found, digest))
            for path, found, digest, when in read
            if self.settles(path, found, when)
        )

    def forget(self, paths: Iterable[str]) -> None:
        """Recall none of these files until they are read again."""
        known = self._memo.get([os.fsencode(path) for path in paths])
        self._memo.put((key, b"") for key in known)


def _entry(signature: Signature, digest: bytes) -> bytes:
    return _ENTRY.pack(*(number & _BITS for number in signature), digest)

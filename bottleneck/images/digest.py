"""Digests of images, the SHA-256 of their bytes, with a memo that avoids reading unchanged files again.

A digest is stored only if any later change of the file would change its timestamps: both are older than the coarsest
resolution of file systems (`FRESH_SECONDS`), by the clock of the file system (`bottleneck.images.clock.FileClock`), and
no page was dirty when the file was read (`bottleneck.images.clock.written_back`). Changes that no signature can reveal
are those after setting the clock back to the same tick, those below the file system, and those that a network file
system has not yet propagated. `DigestMemo.forget` makes the next command read the files again.
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

LARGEST_FILE = 2 << 30  # bytes; no image that can be decoded is larger
FRESH_SECONDS = 2.0  # a more recent file may change again within the same tick of its clock, 2 s on FAT
_CHUNK = 1 << 20  # bytes that are hashed at once
_DIGEST = 32  # bytes
# Entries of older versions, which did not check for dirty pages, are little endian and never match.
_ENTRY = struct.Struct(f">4Q{_DIGEST}s")
_BITS = 2**64 - 1  # times before 1970 are negative, those after 2262 have more than 63 bits

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


def signature(status: os.stat_result) -> Signature:
    """Return the attributes of a file that must be unchanged for its digest to be valid."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def is_settled(signature: Signature, now: float) -> bool:
    """Return whether a file read at `now` (seconds since the epoch) was old enough for its digest to be stored."""
    # A modification time in the future was set explicitly; the change time cannot be set.
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
            return b"".join(self._chunks(max(self.size, 1)))  # a single chunk is not copied
        except MemoryError as error:
            raise ImageError("no-memory", f"no memory for {self.size:,} bytes") from error

    def digest(self, known: Iterable[tuple[int, bytes]] = (), chunk_size: int = _CHUNK) -> bytes:
        """Return the SHA-256 of all bytes, with at most 1 MiB in memory.

        Parameters
        ----------
        known : iterable of (int, bytes)
            Offsets and contents of parts that were read before, which must be unchanged.
        chunk_size : int
            Bytes that are hashed at once.

        Raises
        ------
        ImageError
            As `read`.
        """
        found, place, known = hashlib.sha256(), 0, list(known)
        for chunk in self._chunks(chunk_size):
            found.update(chunk)
            if any(_differs(chunk, place, *other) for other in known):
                raise _changed()
            place += len(chunk)
        return found.digest()

    def read_at(self, place: int, count: int) -> bytes:
        """Return up to `count` bytes from an offset.

        Raises
        ------
        OSError
            If they cannot be read.
        """
        self._file.seek(place)
        return self._file.read(count) or b""

    def _chunks(self, most: int) -> Iterator[bytes]:
        """Yield the bytes in chunks of `most`, and check that the file did not change meanwhile."""
        left = self.size
        with _as_image_errors():
            self._file.seek(0)
            while left and (chunk := self._file.read(min(most, left))):
                left -= len(chunk)
                yield chunk
            grown = self._file.read(1)
            after = signature(os.fstat(self._file.fileno()))
        if left or grown or after != self.signature:
            raise _changed()
        if not self.size:
            raise ImageError("empty", "the file has no bytes")


def read_file(
    path: str | Path, largest: int = LARGEST_FILE, admit: Callable[[int], object] | None = None
) -> tuple[bytes, Signature]:
    """Read a regular file of at most `largest` bytes.

    Parameters
    ----------
    path : str or Path
    largest : int
        In bytes.
    admit : callable, optional
        Called with the number of bytes before they are read. Its exceptions are propagated.

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
    """Return the digest of a file, its signature, and the time when it was read, with little memory.

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


def _differs(chunk: bytes, place: int, start: int, part: bytes) -> bool:
    """Return whether a part at offset `start` differs from a chunk at offset `place` where they overlap."""
    first, last = max(place, start), min(place + len(chunk), start + len(part))
    return first < last and chunk[first - place : last - place] != part[first - start : last - start]


def _changed() -> ImageError:
    return ImageError("changed", "the file changed while it was being read; run the command again")


class DigestMemo:
    """(path, size, mtime, ctime, inode) -> digest. It can always be deleted.

    Parameters
    ----------
    path : str or Path
        Path of the database.
    clock : FileClock, optional
        Clock of the file system; by default that of the folder of the database.
    """

    def __init__(self, path: str | Path, clock: FileClock | None = None) -> None:
        self._memo = Memo(path, "digests_2")
        self._clock = clock or FileClock(Path(path).parent)

    @property
    def path(self) -> Path:
        """The file of the memo."""
        return self._memo.path

    @property
    def is_writable(self) -> bool:
        """Whether this user may write the file."""
        return self._memo.is_writable

    def lookup(self, signatures: Mapping[str, Signature]) -> dict[str, bytes]:
        """Return the digests of the files that are unchanged since they were stored."""
        names = {os.fsencode(path): path for path in signatures}
        found: dict[str, bytes] = {}
        for key, value in self._memo.get(list(names)).items():
            path = names[key]
            digest = value[-_DIGEST:]
            if value == _entry(signatures[path], digest):
                found[path] = digest
        return found

    def settles(self, path: str, found: Signature, when: float) -> bool:
        """Return whether the digest of a file that was read at `when` (seconds since the epoch) may be stored."""
        return is_settled(found, when) and is_settled(found, when - self._clock.lag(path))

    def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
        """Store the digests of files (path, signature, digest, time of reading) that were settled when read."""
        self._memo.put(
            (os.fsencode(path), _entry(found, digest))
            for path, found, digest, when in read
            if self.settles(path, found, when)
        )

    def forget(self, paths: Iterable[str]) -> None:
        """Delete the digests of these files, so that they are read again."""
        known = self._memo.get([os.fsencode(path) for path in paths])
        self._memo.put((key, b"") for key in known)


def _entry(signature: Signature, digest: bytes) -> bytes:
    return _ENTRY.pack(*(number & _BITS for number in signature), digest)

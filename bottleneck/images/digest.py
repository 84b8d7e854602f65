"""The name of an image is the SHA-256 of its bytes; a memo saves reading unchanged files again."""

import hashlib
import os
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from bottleneck.errors import ImageError
from bottleneck.files import open_regular
from bottleneck.images.memo import Memo

LARGEST_FILE = 2 << 30  # bytes; no image of a size that can be decoded is larger
FRESH_SECONDS = 2.0  # a file this young may change again within one tick of its clock
_DIGEST = 32  # bytes
_ENTRY = struct.Struct(f"<4Q{_DIGEST}s")
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


def read_file(path: str | Path, largest: int = LARGEST_FILE) -> tuple[bytes, Signature]:
    """Read one regular file of at most `largest` bytes whole.

    Raises
    ------
    ImageError
        With code ``unreadable``, ``empty``, ``too-large``, ``no-memory`` or ``changed`` (while it was being read).
    """
    try:
        descriptor = open_regular(path)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error
    try:
        before = os.fstat(descriptor)
        if before.st_size > largest:
            raise ImageError("too-large", f"expected at most {largest >> 30} GiB, found {before.st_size:,} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read()
        after = os.fstat(descriptor)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("no-memory", f"no memory for {before.st_size:,} bytes") from error
    finally:
        os.close(descriptor)
    if signature(before) != signature(after):
        raise ImageError("changed", "the file changed while it was being read; run the command again")
    if not data:
        raise ImageError("empty", "the file has no bytes")
    return data, signature(before)


def digest_file(path: str | Path, largest: int = LARGEST_FILE) -> tuple[bytes, Signature, float]:
    """Return the digest of a file, its signature, and when it was read.

    Raises
    ------
    ImageError
        As `read_file`.
    """
    now = time.time()
    data, found = read_file(path, largest)
    return hashlib.sha256(data).digest(), found, now


class DigestMemo:
    """(path, size, mtime, ctime, inode) -> digest. It can always be deleted."""

    def __init__(self, path: str | Path) -> None:
        self._memo = Memo(path, "digests_2")

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

    def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
        """Keep the digests of files (path, signature, digest, when read) that were settled when they were read."""
        self._memo.put(
            (os.fsencode(path), _entry(found, digest)) for path, found, digest, now in read if is_settled(found, now)
        )


def _entry(signature: Signature, digest: bytes) -> bytes:
    return _ENTRY.pack(*(number & _BITS for number in signature), digest)

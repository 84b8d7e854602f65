"""The name of an image is the SHA-256 of its bytes; a memo saves reading unchanged files again."""

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from bottleneck.errors import ImageError

LARGEST_FILE = 2 << 30  # bytes; no image of a size that can be decoded is larger
FRESH_SECONDS = 2.0  # a file this young may change again within one tick of its clock
_SCHEMA = """
create table if not exists digests_1 (
    path blob primary key, size integer, mtime_ns integer, ctime_ns integer, inode integer, digest blob, seal blob
) without rowid
"""

_SELECT = "select path, size, mtime_ns, ctime_ns, inode, digest, seal from digests_1 where path in"
_DAMAGE = (sqlite3.Error, OSError, UnicodeDecodeError)  # the last when SQLite quotes damaged bytes

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


def signature(status: os.stat_result) -> Signature:
    """Return what must be unchanged for a memo of the file to hold."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)  # SQLite's largest


def is_settled(signature: Signature, now: float) -> bool:
    """Whether a file read at `now` (seconds since the epoch) was old enough for its digest to be remembered."""
    return now - max(signature[1], signature[2]) / 1e9 >= FRESH_SECONDS


def read_file(path: str | Path, largest: int = LARGEST_FILE) -> tuple[bytes, Signature]:
    """Read one regular file of at most `largest` bytes whole.

    Raises
    ------
    ImageError
        With code ``unreadable``, ``empty``, ``too-large`` or ``changed`` (while it was being read).
    """
    try:
        # Without O_NONBLOCK a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError("unreadable", getattr(error, "strerror", None) or str(error)) from error
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise ImageError("unreadable", "not a regular file")
        if before.st_size > largest:
            raise ImageError("too-large", f"expected at most {largest >> 30} GiB, found {before.st_size:,} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read()
        after = os.fstat(descriptor)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error
    except MemoryError as error:
        raise ImageError("too-large", f"no memory for {before.st_size:,} bytes") from error
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


def _seal(key: bytes, digest: object) -> bytes | None:
    """Return what tells a row that was written from one whose bits have flipped: SQLite has no checksums."""
    if not isinstance(digest, bytes) or len(digest) != 32:
        return None
    return hashlib.blake2b(key + digest, digest_size=8).digest()


class DigestMemo:
    """(path, size, mtime, ctime, inode) -> digest, in SQLite. It can always be deleted.

    A memo that cannot be opened, read or written is done without: it saves time and decides nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def lookup(self, signatures: Mapping[str, Signature]) -> dict[str, bytes]:
        """Return the digests of those files that are unchanged since they were remembered."""
        if not os.path.exists(self.path):
            return {}
        names = {os.fsencode(path): path for path in signatures}
        found: dict[str, bytes] = {}
        with suppress(*_DAMAGE), closing(self._connect(read_only=True)) as connection:
            keys = list(names)
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                for key, *numbers, digest, seal in connection.execute(f"{_SELECT} ({marks})", some):
                    path = names.get(key)
                    if path is not None and tuple(numbers) == signatures[path] and seal == _seal(key, digest):
                        found[path] = digest
        return found

    def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
        """Keep the digests of files (path, signature, digest, when read) that were settled when they were read."""
        rows = [
            (key := os.fsencode(path), *found, digest, _seal(key, digest))
            for path, found, digest, now in read
            if is_settled(found, now)
        ]
        if not rows:
            return
        try:
            self._write(rows)
        except (OSError, sqlite3.OperationalError):
            return  # locked, read-only or full: the digests are computed again next time
        except _DAMAGE:
            with suppress(*_DAMAGE):
                self.path.unlink()
                self._write(rows)

    def _write(self, rows: Sequence[tuple[object, ...]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect(read_only=False)) as connection, connection:
            connection.execute(_SCHEMA)
            connection.executemany("insert or replace into digests_1 values (?, ?, ?, ?, ?, ?, ?)", rows)

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)

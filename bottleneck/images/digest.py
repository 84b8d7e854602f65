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

FRESH_SECONDS = 2.0  # a file this young may change again within one tick of its clock
_SCHEMA = """
create table if not exists digests (
    path blob primary key, size integer, mtime_ns integer, ctime_ns integer, inode integer, digest blob
) without rowid
"""

Signature = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode


def signature(status: os.stat_result) -> Signature:
    """Return what must be unchanged for a memo of the file to hold."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & (2**63 - 1)  # SQLite's largest


def is_settled(signature: Signature, now: float) -> bool:
    """Whether a file read at `now` (seconds since the epoch) was old enough for its digest to be remembered."""
    return now - max(signature[1], signature[2]) / 1e9 >= FRESH_SECONDS


def read_file(path: str | Path) -> tuple[bytes, Signature]:
    """Read one regular file whole.

    Raises
    ------
    ImageError
        With code ``unreadable``, ``empty`` or ``changed`` (while it was being read).
    """
    try:
        # Without O_NONBLOCK a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise ImageError("unreadable", "not a regular file")
            data = file.read()
            after = os.fstat(descriptor)
    except OSError as error:
        raise ImageError("unreadable", error.strerror or str(error)) from error
    if signature(before) != signature(after):
        raise ImageError("changed", "the file changed while it was being read; run the command again")
    if not data:
        raise ImageError("empty", "the file has no bytes")
    return data, signature(before)


def digest_file(path: str | Path) -> tuple[bytes, Signature, float]:
    """Return the digest of a file, its signature, and when it was read.

    Raises
    ------
    ImageError
        As `read_file`.
    """
    now = time.time()
    data, found = read_file(path)
    return hashlib.sha256(data).digest(), found, now


class DigestMemo:
    """(path, size, mtime, ctime, inode) -> digest, in SQLite. It can always be deleted.

    A memo that cannot be opened, read or written is done without: it saves time and decides nothing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def lookup(self, signatures: Mapping[str, Signature]) -> dict[str, bytes]:
        """Return the digests of those files that are unchanged since they were remembered."""
        if not self.path.exists():
            return {}
        names = {os.fsencode(path): path for path in signatures}
        found: dict[str, bytes] = {}
        with suppress(sqlite3.Error), closing(self._connect(read_only=True)) as connection:
            keys = list(names)
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                query = f"select path, size, mtime_ns, ctime_ns, inode, digest from digests where path in ({marks})"
                for key, *numbers, digest in connection.execute(query, some):
                    path = names[key]
                    if tuple(numbers) == signatures[path] and len(digest) == 32:
                        found[path] = digest
        return found

    def remember(self, read: Iterable[tuple[str, Signature, bytes, float]]) -> None:
        """Keep the digests of files (path, signature, digest, when read) that were settled when they were read."""
        rows = [(os.fsencode(path), *found, digest) for path, found, digest, now in read if is_settled(found, now)]
        if not rows:
            return
        try:
            self._write(rows)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                return  # locked, read-only or full: the digests are computed again next time
            with suppress(OSError, sqlite3.Error):
                self.path.unlink()
                self._write(rows)

    def _write(self, rows: Sequence[tuple[object, ...]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect(read_only=False)) as connection, connection:
            connection.execute(_SCHEMA)
            connection.executemany("insert or replace into digests values (?, ?, ?, ?, ?, ?)", rows)

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)

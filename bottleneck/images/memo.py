"""Memos in SQLite: results that are expensive to compute again."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from bottleneck.images.database import COLUMNS, LARGEST_VALUE, NotAPlainFile, opened, remove
from bottleneck.utils.files import replacing
from bottleneck.utils.warn import warn

# The last two occur when SQLite quotes damaged bytes, and when a row claims an absurd length.
_DAMAGE = (sqlite3.Error, OSError, UnicodeDecodeError, MemoryError)
_AT_ONCE = 500  # keys of one query
_MOST = 1_000_000  # rows that `all` reads
_LARGEST = 256 << 20  # bytes that `all` reads
# SQLite checks the lengths before it loads the values.
_PLAIN = (
    f"typeof(key) = 'blob' and typeof(value) = 'blob' and typeof(seal) = 'blob' and length(seal) = 8 "
    f"and length(key) <= {LARGEST_VALUE} and length(value) <= {LARGEST_VALUE}"
)


class Memo:
    """A table of keys and values that can always be deleted.

    A memo that cannot be opened, read or written is ignored, and so is a row with flipped bits: a memo saves time and
    never changes a result. The permissions of its file follow the umask.

    Parameters
    ----------
    path : path
        Path of the database; several memos may share one.
    table : str
        Name and version of the table of this memo.
    """

    def __init__(self, path: str | Path, table: str) -> None:
        self.path = Path(path)
        self._table = table

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of the keys that are stored."""
        found: dict[bytes, bytes] = {}
        if not os.path.lexists(self.path):
            return found
        with suppress(*_DAMAGE), opened(self.path, "ro", len(keys)) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                query = f"select key, value, seal from {self._table} where key in ({marks}) and {_PLAIN}"
                wanted = set(some)  # a damaged tree may yield other keys
                rows = connection.execute(query, some)
                found.update((key, value) for key, value, seal in rows if key in wanted and _intact(key, value, seal))
        return found

    def all(self) -> dict[bytes, bytes]:
        """Return all rows, up to a million rows and 256 MiB."""
        found: dict[bytes, bytes] = {}
        if not os.path.lexists(self.path):
            return found
        size = 0
        with suppress(*_DAMAGE), opened(self.path, "ro", _MOST) as connection:
            query = f"select key, value, seal from {self._table} where {_PLAIN} limit {_MOST}"
            for key, value, seal in connection.execute(query):
                size += len(key) + len(value)
                if size > _LARGEST:
                    break
                if _intact(key, value, seal):
                    found[key] = value
        return found

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Store keys and values.

        Warns
        -----
        BottleneckWarning
            If the path is a link or a device.
        """
        sealed = [(key, value, _seal(key, value)) for key, value in rows]
        sealed = [row for row in sealed if max(len(row[0]), len(row[1])) <= LARGEST_VALUE]
        if not sealed:
            return
        try:
            self._write(sealed)
        except NotAPlainFile:
            self._warn()
        except (OSError, MemoryError, sqlite3.OperationalError):
            self._replace(sealed)  # if it is locked, read-only or full, nothing is stored
        except _DAMAGE:
            with suppress(*_DAMAGE):
                remove(self.path)
                self._write(sealed)

    @property
    def is_writable(self) -> bool:
        """Whether this user may write the file and its folder, where SQLite needs a journal."""
        folder = next(one for one in self.path.absolute().parents if os.path.exists(one))
        return os.access(folder, os.W_OK) and (not os.path.exists(self.path) or os.access(self.path, os.W_OK))

    def _replace(self, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        """Replace a read-only file of another user with a copy, in a folder that both may write to."""
        if not os.path.exists(self.path) or os.access(self.path, os.W_OK):
            return
        with suppress(*_DAMAGE), replacing(self.path) as fresh:
            with opened(self.path, "ro", 0) as old, opened(fresh, "rwc", 0) as new:
                old.backup(new)
            Memo(fresh, self._table)._write(rows)

    def _write(self, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with opened(self.path, "rwc", len(rows)) as connection, connection:
            connection.execute(f"create table if not exists {self._table} {COLUMNS}")
            connection.executemany(f"insert or replace into {self._table} values (?, ?, ?)", rows)

    def _warn(self) -> None:
        if not self.path.is_dir() or self.path.is_symlink():
            warn(
                f"expected a regular file at {self.path}, found a link or a device. It is left unchanged, and nothing "
                f"is stored in it, so each command computes the results again. Remove it"
            )


def _seal(key: bytes, value: bytes) -> bytes:
    """Return the checksum of a row: SQLite has none."""
    return hashlib.blake2b(len(key).to_bytes(4, "little") + key + value, digest_size=8).digest()


def _intact(key: object, value: object, seal: object) -> bool:
    return isinstance(key, bytes) and isinstance(value, bytes) and seal == _seal(key, value)

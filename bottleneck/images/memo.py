"""Memos in SQLite: what was found out once and would cost time to find out again."""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from bottleneck.files import replacing

_DAMAGE = (sqlite3.Error, OSError, UnicodeDecodeError)  # the last when SQLite quotes damaged bytes
_AT_ONCE = 500  # keys of one query


class Memo:
    """A table of keys and values that can always be deleted.

    One that cannot be opened, read or written is done without, and a row whose bits have flipped is as if it were not
    there: a memo saves time and decides nothing. Its file has the permissions that the umask gives.

    Parameters
    ----------
    path : path
        Of the database; several memos may share one.
    table : str
        Name and version of this one's table.
    """

    def __init__(self, path: str | Path, table: str) -> None:
        self.path = Path(path)
        self._table = table

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are known."""
        found: dict[bytes, bytes] = {}
        if not os.path.exists(self.path):
            return found
        with suppress(*_DAMAGE), closing(_connect(self.path, "ro")) as connection:
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"select key, value, seal from {self._table} where key in ({marks})", some)
                found.update((key, value) for key, value, seal in rows if _intact(key, value, seal))
        return found

    def all(self) -> dict[bytes, bytes]:
        """Return everything that is known."""
        found: dict[bytes, bytes] = {}
        if not os.path.exists(self.path):
            return found
        with suppress(*_DAMAGE), closing(_connect(self.path, "ro")) as connection:
            rows = connection.execute(f"select key, value, seal from {self._table}")
            found.update((key, value) for key, value, seal in rows if _intact(key, value, seal))
        return found

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep values of keys."""
        sealed = [(key, value, _seal(key, value)) for key, value in rows]
        if not sealed:
            return
        try:
            self._write(sealed)
        except (OSError, sqlite3.OperationalError):
            self._replace(sealed)  # or locked, read-only or full: it is found out again next time
        except _DAMAGE:
            with suppress(*_DAMAGE):
                self.path.unlink()
                self._write(sealed)

    @property
    def is_ours_to_write(self) -> bool:
        """Whether the system lets this user write it; the folder too, where SQLite keeps a journal meanwhile."""
        folder = next(one for one in self.path.absolute().parents if os.path.exists(one))
        return os.access(folder, os.W_OK) and (not os.path.exists(self.path) or os.access(self.path, os.W_OK))

    def _replace(self, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        """Put a copy in the place of a file that belongs to another user of a folder that both may write to."""
        if not os.path.exists(self.path) or os.access(self.path, os.W_OK):
            return
        with suppress(*_DAMAGE), replacing(self.path) as fresh:
            with closing(_connect(self.path, "ro")) as old, closing(_connect(fresh, "rwc")) as new:
                old.backup(new)
            Memo(fresh, self._table)._write(rows)

    def _write(self, rows: list[tuple[bytes, bytes, bytes]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(self.path, "rwc")) as connection, connection:
            connection.execute(
                f"create table if not exists {self._table} (key blob primary key, value blob, seal blob) without rowid"
            )
            connection.executemany(f"insert or replace into {self._table} values (?, ?, ?)", rows)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    if mode == "rwc":  # SQLite would make a file that only its owner may write, whatever the umask
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT, 0o666))
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=10)


def _seal(key: bytes, value: bytes) -> bytes:
    """Return what tells a row that was written from one whose bits have flipped: SQLite has no checksums."""
    return hashlib.blake2b(len(key).to_bytes(4, "little") + key + value, digest_size=8).digest()


def _intact(key: object, value: object, seal: object) -> bool:
    return isinstance(key, bytes) and isinstance(value, bytes) and seal == _seal(key, value)

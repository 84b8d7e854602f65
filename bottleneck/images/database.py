"""Open SQLite files of memos from untrusted sources, such that nothing in them can run code, block or write."""

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from bottleneck.utils.files import open_regular

LARGEST_FILE = 2 << 30  # bytes; the row of an image has about 200
LARGEST_VALUE = 1 << 16  # bytes of a key or of a value
_TIMEOUT = 10  # seconds to wait for a lock
_STEPS = 200_000  # of SQLite's virtual machine, to open a connection and read the schema
_STEPS_OF_A_ROW = 100
_AT_ONCE = 1000  # steps between two checks of their number
_MAGIC = b"SQLite format 3\0"
_SIDE_FILES = ("-journal", "-wal", "-shm")  # SQLite would use them silently
_TABLE = re.compile(r"[a-z]+_[0-9]+")
COLUMNS = "(key blob primary key, value blob, seal blob) without rowid"  # of each table
_TABLES = 100  # in one file, at most
_PRAGMAS = (
    "trusted_schema = off",
    "cell_size_check = on",
    "mmap_size = 0",
    # A journal on disk could come from someone else, and makes SQLite change and delete the files it names.
    "journal_mode = memory",
    "synchronous = off",  # a power loss may damage the memo, but every row has a checksum
)
_DEFENSIVE = ("SQLITE_DBCONFIG_DEFENSIVE", True), ("SQLITE_DBCONFIG_TRUSTED_SCHEMA", False)
_OFF = "SQLITE_DBCONFIG_ENABLE_VIEW", "SQLITE_DBCONFIG_ENABLE_TRIGGER"


class NotAMemo(sqlite3.DatabaseError):
    """The file does not contain exactly our tables. It can be deleted."""


class NotAPlainFile(OSError):
    """The path is a link, a FIFO or a device. It is left unchanged."""


@contextmanager
def opened(path: Path, mode: str, rows: int) -> Iterator[sqlite3.Connection]:
    """Open a file of memos and close it again.

    Parameters
    ----------
    path : Path
    mode : str
        ``ro``, or ``rwc`` to create a missing file.
    rows : int
        Maximum number of rows to read or write; statements that need many more steps are interrupted.

    Raises
    ------
    NotAPlainFile
        If the path is not a regular file.
    NotAMemo
        If it contains anything but our tables, is too large, or exceeds the number of steps.
    sqlite3.Error, OSError
        If it is damaged, locked, or cannot be opened.
    """
    check_file(path)
    if mode == "rwc":  # SQLite would ignore the umask
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666))
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_TIMEOUT)
    with closing(connection):
        budget = _Budget(_STEPS + _STEPS_OF_A_ROW * rows)
        connection.set_progress_handler(budget.spend, _AT_ONCE)
        try:
            _restrict(connection, read_only=mode == "ro")
            _check_schema(connection, path)
            yield connection
        except sqlite3.OperationalError as error:
            if budget.spent:
                raise NotAMemo(f"expected a memo in {path}, found one that takes too long to read") from error
            raise


def check_file(path: Path) -> None:
    """Check a file before SQLite opens it; a missing or empty file is a new memo.

    Raises
    ------
    NotAPlainFile, NotAMemo, OSError
        As `opened`.
    """
    for ending in _SIDE_FILES:
        if os.path.lexists(f"{path}{ending}"):
            raise NotAMemo(f"expected no {path.name}{ending} next to {path}")
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise NotAPlainFile(f"expected a regular file at {path}")
    if status.st_size > LARGEST_FILE:
        raise NotAMemo(f"expected a memo of at most {LARGEST_FILE:,} bytes in {path}, found {status.st_size:,}")
    with open(path, "rb", opener=open_regular) as file:
        head = file.read(20)
    if head and (head[:16] != _MAGIC or head[18:20] != b"\1\1"):  # 2 means a log next to the file
        raise NotAMemo(f"expected a database in {path}")


def remove(path: Path) -> None:
    """Delete a file of memos and SQLite's side files; links are not followed.

    Raises
    ------
    OSError
        If a file cannot be deleted.
    """
    for ending in ("", *_SIDE_FILES):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")


class _Budget:
    """The remaining number of steps of a connection."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    @property
    def spent(self) -> bool:
        return self._left < 0

    def spend(self) -> bool:
        """Return whether to stop."""
        self._left -= _AT_ONCE
        return self.spent


def _restrict(connection: sqlite3.Connection, *, read_only: bool) -> None:
    """Disable features that memos do not need, before the schema is read."""
    if hasattr(connection, "setlimit"):  # since Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * LARGEST_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if hasattr(connection, "setconfig"):  # since Python 3.12
        for name, value in (*_DEFENSIVE, *((name, False) for name in _OFF)):
            with suppress(sqlite3.Error):  # unknown to this SQLite
                connection.setconfig(getattr(sqlite3, name), value)
    for pragma in (*_PRAGMAS, *(["query_only = on"] if read_only else [])):
        connection.execute(f"pragma {pragma}").fetchall()


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Reject a file with a view, a trigger, an index, or a table whose definition is not ours."""
    found = connection.execute("select type, name, tbl_name, sql from sqlite_master").fetchmany(_TABLES)
    for kind, name, table, sql in found:
        plain = isinstance(name, str) and _TABLE.fullmatch(name) and (kind, table) == ("table", name)
        if not plain or sql != f"CREATE TABLE {name} {COLUMNS}":
            raise NotAMemo(f"expected tables of a memo in {path}, found {kind} {name!r:.100}")
    if len(found) == _TABLES:
        raise NotAMemo(f"expected fewer than {_TABLES} tables of memos in {path}")

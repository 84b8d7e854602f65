"""One SQLite file of memos that anybody may have written: opened only where nothing in it can run, wait or write."""

import os
import re
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from bottleneck.utils.files import open_regular

LARGEST_FILE = 2 << 30  # bytes; a row of about 200 is that of one image
LARGEST_VALUE = 1 << 16  # bytes of a key or of a value
_PATIENCE = 10  # seconds that another process may hold the file
_STEPS = 200_000  # of SQLite's virtual machine, for the schema and what else a connection needs
_STEPS_OF_A_ROW = 100
_AT_ONCE = 1000  # steps between two looks at how many there were
_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-journal", "-wal", "-shm")  # files that SQLite would take over without asking
_TABLE = re.compile(r"[a-z]+_[0-9]+")
COLUMNS = "(key blob primary key, value blob, seal blob) without rowid"  # of each table
_TABLES = 100  # in one file, at most
_PRAGMAS = (
    "trusted_schema = off",
    "cell_size_check = on",
    "mmap_size = 0",
    # A journal on disk could be a stranger's, and makes SQLite change and delete the files that it names.
    "journal_mode = memory",
    "synchronous = off",  # of a memo that a loss of power may damage: its rows are sealed
)
_DEFENSIVE = ("SQLITE_DBCONFIG_DEFENSIVE", True), ("SQLITE_DBCONFIG_TRUSTED_SCHEMA", False)
_OFF = "SQLITE_DBCONFIG_ENABLE_VIEW", "SQLITE_DBCONFIG_ENABLE_TRIGGER"


class NotAMemo(sqlite3.DatabaseError):
    """A file that holds something else than our tables. It can be deleted."""


class NotAPlainFile(OSError):
    """A link, a FIFO or a device in the place of the file, which is nobody's memo: it is left as it is."""


@contextmanager
def opened(path: Path, mode: str, rows: int) -> Iterator[sqlite3.Connection]:
    """Open a file of memos and close it again.

    Parameters
    ----------
    path : Path
    mode : str
        ``ro``, or ``rwc`` to make it where it is missing.
    rows : int
        How many are read or written at most: a statement that takes far more steps than they need is stopped.

    Raises
    ------
    NotAPlainFile
        If something else than a regular file is in its place.
    NotAMemo
        If it holds anything else than tables of ours, is too large, or needs more steps.
    sqlite3.Error, OSError
        If it is damaged, locked, or cannot be opened.
    """
    check_file(path)
    if mode == "rwc":  # SQLite would make a file that only its owner may write, whatever the umask
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666))
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_PATIENCE)
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
    """Refuse what is no memo by its looks, before SQLite sees it; nothing at all and an empty file are a new one.

    Raises
    ------
    NotAPlainFile, NotAMemo, OSError
        As `opened`.
    """
    for ending in _BESIDE:
        if os.path.lexists(f"{path}{ending}"):
            raise NotAMemo(f"expected no {path.name}{ending} beside {path}")
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
    if head and (head[:16] != _MAGIC or head[18:20] != b"\1\1"):  # 2 is that of a log beside the file
        raise NotAMemo(f"expected a database in {path}")


def remove(path: Path) -> None:
    """Delete a file of memos with what SQLite may have left beside it; a link is deleted, and nothing behind it.

    Raises
    ------
    OSError
        If the system does not let us.
    """
    for ending in ("", *_BESIDE):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")


class _Budget:
    """How many steps a connection may still take."""

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
    """Switch off what no memo needs, before the first look at the schema."""
    if hasattr(connection, "setlimit"):  # since Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * LARGEST_VALUE)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if hasattr(connection, "setconfig"):  # since Python 3.12
        for name, value in (*_DEFENSIVE, *((name, False) for name in _OFF)):
            with suppress(sqlite3.Error):  # of an SQLite that does not know it
                connection.setconfig(getattr(sqlite3, name), value)
    for pragma in (*_PRAGMAS, *(["query_only = on"] if read_only else [])):
        connection.execute(f"pragma {pragma}").fetchall()


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file with a view, a trigger, an index, or a table that is not exactly one of ours."""
    found = connection.execute("select type, name, tbl_name, sql from sqlite_master").fetchmany(_TABLES)
    for kind, name, table, sql in found:
        plain = isinstance(name, str) and _TABLE.fullmatch(name) and (kind, table) == ("table", name)
        if not plain or sql != f"CREATE TABLE {name} {COLUMNS}":
            raise NotAMemo(f"expected tables of a memo in {path}, found {kind} {name!r:.100}")
    if len(found) == _TABLES:
        raise NotAMemo(f"expected fewer than {_TABLES} tables of memos in {path}")

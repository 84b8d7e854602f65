"""The log of edits: a line of JSON for each, appended and fsynced before the edit is acknowledged."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from bottleneck.errors import OutputError
from bottleneck.utils.files import fsync_folder, make_folder, parse_json, read_whole
from bottleneck.utils.output_file import check_output

FORMAT = "bottleneck edits"
VERSION = 1
_LARGEST = 4 << 30  # bytes


class EditLog:
    """An append-only file that one process at a time may use.

    The lock is the system's, on the open file: it is released when the process ends, even if it is killed. A last line
    that was written only partly, because the machine or the process stopped, is dropped: its edit was never
    acknowledged.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    entries : list of dict
        What was in the log when it was opened.
    is_empty : bool
        Whether there is no entry now.

    Raises
    ------
    OutputError
        If it is not such a log, is damaged, is of a newer version, is in use, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = check_output(path)
        try:
            make_folder(path.parent)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            self._lock()
            self.entries = self._read()
            if not os.fstat(self._descriptor).st_size:
                self.append({"format": FORMAT, "version": VERSION})
                with suppress(PermissionError):
                    fsync_folder(path.parent)
            self.is_empty = not self.entries
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, entry: dict[str, Any]) -> None:
        """Append an entry; when this returns, it is on disk.

        Raises
        ------
        OutputError
            If it cannot be written; the log is then as before.
        """
        self._expect_in_place()
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        size = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}; nothing was changed") from error
        self.is_empty = False

    def close(self, *, remove: bool = False) -> None:
        """Release the lock; with `remove`, delete the file first."""
        if remove:
            with suppress(OSError):
                os.unlink(self.path)
        os.close(self._descriptor)

    def _expect_in_place(self) -> None:
        """Check that the file at the path is still the open one, so that nothing is written to a deleted file."""
        own, found = os.fstat(self._descriptor), None
        with suppress(OSError):
            found = os.stat(self.path)
        if found is None or (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino):
            raise OutputError(
                f"expected the log of edits in {self.path}, found that it was moved or deleted: nothing was changed. "
                f"Put it back, or start `explore` again"
            )

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"expected labels that no other explorer edits, found {self.path} in use: close the other one, or name "
                f"another file with --labels FILE.csv"
            ) from error
        except OSError as error:
            raise OutputError(f"cannot lock {self.path}: {error.strerror or error}") from error

    def _read(self) -> list[dict[str, Any]]:
        """Return the entries after the first line; a last line that is not whole is removed."""
        try:
            data = read_whole(self.path, _LARGEST)
        except OSError as error:
            raise OutputError(f"cannot read {self.path}: {error.strerror or error}") from error
        *lines, torn = data.split(b"\n")
        found: list[dict[str, Any]] = []
        size = 0
        for number, line in enumerate(lines):
            entry = _parsed(line)
            if entry is None and number == len(lines) - 1 and not torn and number:
                torn = line  # written as a whole, but not all of it reached the disk
                break
            if entry is None:
                raise OutputError(
                    f"expected a log of edits in {self.path}, found something else in line {number + 1}: name another "
                    f"file with --labels FILE.csv"
                )
            found.append(entry)
            size += len(line) + 1
        if found:
            self._check(found[0])
        elif torn and not (FORMAT in torn.decode(errors="replace") or torn.startswith(b'{"format"'[: len(torn)])):
            raise OutputError(f"expected a log of edits in {self.path}, found something else: name another file")
        if torn:
            os.ftruncate(self._descriptor, size)
        return found[1:]

    def _check(self, header: dict[str, Any]) -> None:
        if header.get("format") != FORMAT:
            raise OutputError(f"expected a log of edits in {self.path}, found something else: name another file")
        if header.get("version") != VERSION:
            raise OutputError(
                f"expected version {VERSION} of the log {self.path}, found {header.get('version')}: update bottleneck"
            )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None

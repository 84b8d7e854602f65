"""An open folder. Operations apply to this folder even if its path changes meanwhile, and follow no link."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from bottleneck.utils.files import TEMPORARY, NotRegularError, temporary_path, write_new

# Without these, for example on Windows, a name is checked and then used, so it may change in between.
BY_DESCRIPTOR = (
    {os.open, os.stat, os.mkdir, os.unlink, os.rmdir, os.rename} <= os.supports_dir_fd
    and os.listdir in os.supports_fd
    and hasattr(os, "O_NOFOLLOW")
    and hasattr(os, "O_DIRECTORY")
)
_NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_PASSED = getattr(os, "O_PATH", os.O_RDONLY) | _FOLDER  # flags for a folder that is only traversed or changed
_REGULAR = _NOT_A_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class LinkError(OSError):
    """A link is in the place of a folder."""


class Folder:
    """An open folder, and the files and folders in it by name.

    Parameters
    ----------
    path : Path
        Path for messages.
    descriptor : int, optional
        Descriptor of the folder, closed by `close`; None if the system has no operations on descriptors.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def of(cls, path: Path, by_descriptor: bool | None = None) -> "Folder":
        """Open a folder named by the user; it may be a link."""
        if BY_DESCRIPTOR if by_descriptor is None else by_descriptor:
            return cls(path, os.open(path, _PASSED))
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        return cls(path, None)

    def close(self) -> None:
        """Close it, at most once even after Ctrl-C: the descriptor's number may then belong to another file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> "Folder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def for_others(self) -> Path:
        """A path for libraries that need one; it refers to this open folder if the system allows that."""
        own = Path(f"/proc/self/fd/{self._descriptor}")
        return own if self._descriptor is not None and own.exists() else self.path

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        if self._descriptor is None:
            return sorted(os.listdir(self.path))
        listing = self._readable()
        try:
            return sorted(os.listdir(listing))
        finally:
            os.close(listing)

    def status(self, name: str) -> os.stat_result:
        """Return the status of an entry, without following links."""
        found: os.stat_result = self._called(os.stat, name, follow_symlinks=False)
        return found

    def folder(self, name: str, *, make: bool = False) -> "Folder":
        """Open a subfolder; with `make`, create it durably if it is missing.

        Raises
        ------
        LinkError
            If it is a link.
        OSError
            If it cannot be opened.
        """
        try:
            return self._opened(name)
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            self._called(os.mkdir, name)
        self.sync()
        return self._opened(name)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Return the descriptor of a regular file.

        Raises
        ------
        NotRegularError
            If it is anything else, including a link.
        OSError
            If it cannot be opened.
        """
        if self._descriptor is None:
            self.expect_regular(name)
        try:
            descriptor: int = self._called(os.open, name, flags | _REGULAR, 0o666)
        except OSError:
            self.expect_regular(name)
            raise
        if stat.S_ISREG(mode := os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        raise self._not_regular(name, mode)

    def expect_regular(self, name: str) -> None:
        """Do nothing if an entry is a regular file or does not exist.

        Raises
        ------
        NotRegularError
            If it is anything else.
        """
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(mode := self.status(name).st_mode):
                raise self._not_regular(name, mode)

    def write(self, name: str, data: bytes, *, durable: bool) -> None:
        """Write a file like `bottleneck.utils.files.write_atomic`; only a regular file is replaced."""
        self.expect_regular(name)
        temporary = temporary_path(Path(name)).name
        try:
            path = self.path / temporary
            write_new(path, data, durable=durable, opener=lambda _, flags: self.open(temporary, flags))
            self.rename(temporary, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(temporary)
            raise
        if durable:
            self.sync()

    def rename(self, name: str, new: str, into: "Folder | None" = None) -> None:
        """Rename or move an entry, here or into another folder, replacing an existing file."""
        target = into or self
        if self._descriptor is None or target._descriptor is None:
            os.replace(self.path / name, target.path / new)
            return
        try:
            os.rename(name, new, src_dir_fd=self._descriptor, dst_dir_fd=target._descriptor)
        except OSError as error:
            error.filename, error.filename2 = str(self.path / name), str(target.path / new)
            raise

    def unlink(self, name: str) -> None:
        """Delete a file, or a link (not its target)."""
        self._called(os.unlink, name)

    def rmdir(self, name: str) -> None:
        """Delete an empty folder."""
        self._called(os.rmdir, name)

    def sync(self) -> None:
        """Make the names in it durable. Windows needs no such call."""
        if os.name == "nt":
            return
        descriptor = os.open(self.path, os.O_RDONLY) if self._descriptor is None else self._readable()
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _opened(self, name: str) -> "Folder":
        if self._descriptor is None:
            mode = self.status(name).st_mode
            if stat.S_ISLNK(mode):
                raise self._link(name)
            if not stat.S_ISDIR(mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path / name))
            return Folder(self.path / name, None)
        try:
            return Folder(self.path / name, self._called(os.open, name, _PASSED | _NOT_A_LINK))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP) and stat.S_ISLNK(self.status(name).st_mode):
                raise self._link(name) from None
            raise

    def _readable(self) -> int:
        """Return a descriptor that can be listed and synced."""
        descriptor: int = self._called(os.open, ".", os.O_RDONLY | _FOLDER)
        return descriptor

    def _called(self, call: Callable[..., Any], name: str, *args: Any, **options: Any) -> Any:
        """Call a function of `os` on a name in this folder; errors have the full path."""
        if "/" in name or name == "..":
            raise ValueError(f"expected a name in {self.path}, got {name!r}")
        if self._descriptor is None:
            return call(self.path / name, *args, **options)
        try:
            return call(name, *args, dir_fd=self._descriptor, **options)
        except OSError as error:
            error.filename = str(self.path / name)
            raise

    def _link(self, name: str) -> LinkError:
        return LinkError(
            f"expected a folder at {self.path / name}, found a link: nothing is read, written or deleted through it. "
            f"Remove the link, or replace it with the folder that it points to"
        )

    def _not_regular(self, name: str, mode: int) -> NotRegularError:
        return NotRegularError(f"expected a regular file at {self.path / name}, found {kind_of(mode)}: move it away")


def kind_of(mode: int) -> str:
    """Return the kind of file that a mode describes, in words."""
    kinds = (
        (stat.S_ISREG, "a regular file"),
        (stat.S_ISLNK, "a link"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
    )
    return next((words for test, words in kinds if test(mode)), "a device")


def is_temporary(name: str) -> bool:
    """Return whether a name has the form of `bottleneck.utils.files.temporary_path`."""
    process, _, rest = name.removeprefix(TEMPORARY).partition("-")
    return (
        name.startswith(TEMPORARY)
        and process.isascii()
        and process.isdigit()
        and len(rest) == 8
        and all(digit in "0123456789abcdef" for digit in rest)
    )

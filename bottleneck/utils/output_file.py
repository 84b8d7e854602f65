"""Write output files named by the user: atomically, and only to a regular file or a new name."""

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn, TextIO

from bottleneck.errors import OutputError, PathError
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.files import fsync_folder, make_folder, temporary_path
from bottleneck.utils.paths import expanded

_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
)
_ACL = "system.posix_acl_access"
_KEPT = ("user.", "system.")  # prefixes of extended attributes; security modules of the kernel set their own


def check_output(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> Path:
    """Check and return the path of an output file; call this before the work too.

    Parameters
    ----------
    path : path
        A writable regular file, or a new name. The folder may be a link, or missing; `write_output` then creates it.
    inputs : iterable of paths
        Files that are read; none of them may be the output.

    Raises
    ------
    OutputError
        If it is anything else (a link, even a broken one, a folder, device, FIFO or socket), is one of the inputs, or
        cannot be written.
    """
    text = Arguments(OutputError).path("the output", path)
    try:
        place = expanded(path)
    except PathError as error:
        raise OutputError(f"the output: {error}") from error
    if text.endswith(("/", os.sep)):
        raise OutputError(f"expected the name of an output file, found the folder {text}")
    try:
        _check_kind(place)
        _check_writable(place)
    except OSError as error:
        _fail(place, error)
    for other in inputs:
        if _same_file(place, other):
            raise OutputError(f"expected an output file that is not an input, found {text}. Choose a new name")
    return place


def write_output(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> None:
    """Write an output file atomically: readers see the old file or the new one.

    Parameters
    ----------
    path : path
        See `check_output`; it is checked again before it is replaced.
    write : callable
        Writes to its argument, a binary file that is also readable and seekable.

    Raises
    ------
    OutputError
        If it cannot be written; the old file is unchanged.

    Notes
    -----
    The bytes are written to a temporary file in the same folder, fsynced, and renamed over the old file. If there is an
    old file, only the owner may read the temporary one; at the end it gets the permissions of the old file, and its
    owner, group, extended attributes and POSIX ACL if the system allows that. If the group cannot be set, the new group
    gets the permissions of others. A new file gets the permissions of the umask. Other hard links to the old file keep
    the old content. Ctrl-C and errors remove the temporary file; only a killed process leaves it.
    """
    place = check_output(path)
    temporary = temporary_path(place)
    try:
        make_folder(place.parent)
        private = os.path.lexists(place)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o600 if private else 0o666), "wb+") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            _check_kind(place)
            if os.path.lexists(place):
                _take_over(place, file.fileno())
        os.replace(temporary, place)
    except OutputError:
        raise
    except OSError as error:
        _fail(place, error)
    finally:
        with suppress(OSError):
            os.unlink(temporary)
    with suppress(PermissionError):  # a folder that is writable but not readable
        fsync_folder(place.parent)


def _check_kind(place: Path) -> None:
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), None)
    if kind is None and stat.S_ISREG(mode):
        return
    stdout = place in (Path("/dev/stdout"), Path("/dev/stderr")) or Path("/dev/fd") in place.parents
    hint = "Results go to stdout without --out" if stdout else "Choose a new name"
    raise OutputError(f"expected a regular file or a new name to write to, found {place}, {kind or 'neither'}. {hint}")


def _check_writable(place: Path) -> None:
    """Raise OSError if writing is bound to fail."""
    if os.path.lexists(place) and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected", str(place))
    folder = next(one for one in place.absolute().parents if os.path.lexists(one))
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is not a folder", str(place))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {folder} is write-protected", str(place))


def _same_file(place: Path, other: str | os.PathLike[str]) -> bool:
    with suppress(OSError, ValueError):
        return os.path.samefile(place, expanded(other))
    return False


def _take_over(place: Path, descriptor: int) -> None:
    """Copy owner, attributes and permissions of `place` to an open file, without granting anybody more."""
    old = os.stat(place, follow_symlinks=False)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if hasattr(os, "fchown") and not _owned(descriptor, old):
        mode &= 0o707 | (mode & 0o007) << 3
    if hasattr(os, "listxattr") and not _attributed(place, descriptor):
        mode &= 0o707  # with an ACL these bits are its mask, not the group's permissions
    if hasattr(os, "fchmod"):
        with suppress(OSError):  # a file system without permissions
            os.fchmod(descriptor, mode)


def _owned(descriptor: int, old: os.stat_result) -> bool:
    """Set owner and group; return whether the group is that of the old file."""
    for owner in (old.st_uid, -1):
        with suppress(OSError):
            os.fchown(descriptor, owner, old.st_gid)
            break
    return os.fstat(descriptor).st_gid == old.st_gid


def _attributed(place: Path, descriptor: int) -> bool:
    """Copy the extended attributes; return False if an ACL is lost."""
    with suppress(OSError):  # a file system without attributes
        kept = [name for name in os.listxattr(place, follow_symlinks=False) if name.startswith(_KEPT)]
        if _ACL in os.listxattr(descriptor) and _ACL not in kept:
            os.removexattr(descriptor, _ACL)  # the folder's default
        for name in kept:
            try:
                os.setxattr(descriptor, name, os.getxattr(place, name, follow_symlinks=False))
            except OSError:
                if name == _ACL:
                    return False
    return True


def _fail(place: Path, error: OSError) -> NoReturn:
    if isinstance(error, OutputError):
        raise error
    why = error.strerror or str(error)
    if error.errno in _FULL:
        advice = "Free some space there, raise the limit, or choose another folder"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "Choose a folder in which you can write"
    else:
        advice = "Choose another folder"
    unchanged = " The old file is unchanged." if os.path.lexists(place) else ""
    raise OutputError(f"cannot write {place}: {why}.{unchanged} {advice}") from error


def in_utf8(write: Callable[[TextIO], object]) -> Callable[[BinaryIO], None]:
    """Wrap a writer of text for `write_output`; file names that are not UTF-8 are written as their bytes."""

    def write_bytes(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        write(text)
        text.detach()  # its destructor would close the file

    return write_bytes

"""Write small files atomically, read regular files, and parse and hash JSON."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"  # prefix of the names of unfinished files and folders
LARGEST_TEXT = 64 << 20  # bytes of a card, a memo or another small file
_DIGITS = 300  # of an integer, which then fits into a float
_DEEPEST = 32  # levels of nested JSON values
_BLOCK = 1 << 20  # bytes hashed at once


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` atomically: a reader sees the old file or the new one, even after a kill.

    The bytes are written under a temporary name in the same folder, fsynced and renamed; then the folder is fsynced.
    Errors, including those of fsync, are raised and never retried; they leave no temporary file.

    Parameters
    ----------
    path : Path
    data : bytes
    durable : bool
        Whether the file must also survive a power failure. A memo need not, which saves the two fsyncs.
    """
    make_folder(path.parent)
    temporary = temporary_path(path)
    try:
        write_new(temporary, data, durable=durable)
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    if durable:
        fsync_folder(path.parent)


def write_new(path: Path, data: bytes, *, durable: bool, opener: Callable[[str, int], int] | None = None) -> None:
    """Write a file that must not exist yet; `opener` is as for `open`."""
    with open(path, "xb") if opener is None else open(path, "xb", opener=opener) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces `path` at the end.

    As with `write_atomic`, a reader sees the old file or the new one, and an error leaves the old one unchanged.
    """
    make_folder(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    fsync_folder(path.parent)


def temporary_path(path: Path) -> Path:
    """Return a unique temporary path in the folder of `path`, which readers ignore."""
    return path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> None:
    """Make a folder and its parents durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows needs no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NotRegularError(OSError):
    """A path is a folder, a FIFO, a socket or a device instead of a regular file."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a regular file; can be used as the ``opener`` of `open`.

    Opening a FIFO would wait for a writer, and reading a device may never end.

    Raises
    ------
    NotRegularError
        If it is not a regular file.
    OSError
        If it cannot be opened.
    ValueError
        If the path contains a null character.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def expect_regular(path: str | os.PathLike[str]) -> None:
    """Refuse anything but a regular file, for libraries that open the path themselves and might never return.

    Raises
    ------
    OSError
        As `open_regular`.
    """
    os.close(open_regular(path))


def read_whole(
    path: str | os.PathLike[str], largest: int = LARGEST_TEXT, opener: Callable[[str, int], int] = open_regular
) -> bytes:
    """Return the content of a regular file of at most `largest` bytes.

    Parameters
    ----------
    path : path
    largest : int
    opener : callable
        As for `open`; use `bottleneck.utils.tree.Tree.open` for a file in a folder named by the user.

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is not a regular file.
    """
    with open(path, "rb", opener=opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise OSError(errno.EFBIG, f"expected at most {largest:,} bytes, found {size:,}", os.fspath(path))
        return file.read(size)


def read_json(path: Path, largest: int = LARGEST_TEXT, opener: Callable[[str, int], int] = open_regular) -> Any:
    """Return the JSON value in `path`; for parameters see `read_whole`.

    Raises
    ------
    ValueError
        If it is not valid JSON, see `parse_json`.
    OSError
        If it cannot be read, has more than `largest` bytes, or is not a regular file.
    """
    return parse_json(read_whole(path, largest, opener))


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text that every parser reads in the same way.

    Raises
    ------
    ValueError
        If it is not JSON, repeats a name in an object, is nested too deeply, has a number that is not a float, or
        a lone surrogate in a text, except for those that represent bytes of a file name.
    """
    text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    halves = "\\ud" in text or "\\uD" in text
    wanted = (dict, list, str) if halves else (dict, list)
    level = [value] if isinstance(value, wanted) else []
    for _ in range(_DEEPEST):
        if halves:
            _expect_text(level)
        level = [inside for one in level for inside in _inside(one) if isinstance(inside, wanted)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"expected a number of at most {_DIGITS} digits, found {text:.20}...")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"expected each name once, found {twice!r:.100} again")
    return value


def _inside(value: dict[str, Any] | list[Any] | str) -> Iterable[Any]:
    return () if isinstance(value, str) else value.values() if isinstance(value, dict) else value


def _expect_text(values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, list):  # of a dict the names
            "".join(value).encode("utf-8", "surrogateescape")


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of `value`: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | os.PathLike[str], opener: Callable[[str, int], int] = open_regular) -> str:
    """Return the SHA-256 of a file of any size, 64 hexadecimal digits; for `opener` see `read_whole`."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=opener) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()

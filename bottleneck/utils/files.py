"""Small files written whole or not at all, and the one way in which JSON is hashed."""

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

TEMPORARY = ".tmp-"  # how the name of an unfinished file or folder begins
LARGEST_TEXT = 64 << 20  # bytes of a card, a memo or another small file of ours
_DIGITS = 300  # of a whole number, which then fits into a float
_DEEPEST = 32  # levels of a JSON value of ours
_BLOCK = 1 << 20  # bytes that are hashed at once


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, after any kill.

    The bytes go to a temporary name beside `path`, are fsynced and renamed; then the folder is fsynced.
    An error, from fsync too, is raised, never retried, and leaves no temporary file.

    Parameters
    ----------
    path : Path
    data : bytes
    durable : bool
        Whether the file must survive a loss of power too; a memo need not, and saves the two fsyncs.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        write_new(temporary, data, durable=durable)
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    if durable:
        fsync_folder(path.parent)


def write_new(path: Path, data: bytes, *, durable: bool, opener: Callable[[str, int], int] | None = None) -> None:
    """Write a file that is not there yet; `opener` is as for `open`."""
    with open(path, "xb") if opener is None else open(path, "xb", opener=opener) as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`, for a writer that needs one; what it wrote takes the place of `path`.

    As with `write_atomic`, a reader sees the old file or the new one, and an error leaves the old one alone.
    """
    make_folder(path.parent)
    temporary = temporary_beside(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        _remove(temporary)
        raise
    fsync_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return a name in the folder of `path` that nobody else uses and no reader looks at."""
    return path.parent / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each of them durably."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NotRegularError(OSError):
    """A path leads to a folder, a FIFO, a socket or a device where a regular file belongs."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Return the descriptor of a regular file; as `open`'s ``opener`` it takes that one's flags.

    A FIFO would wait for a writer, a device may never end, and neither is a file that anybody meant.

    Raises
    ------
    NotRegularError
        If it is something else.
    OSError
        If it cannot be opened.
    ValueError
        If there is a null character in the path.
    """
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(errno.EINVAL, "not a regular file", os.fspath(path))
    return descriptor


def expect_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, for libraries that open it themselves, and would wait or read without end.

    Raises
    ------
    OSError
        As `open_regular`.
    """
    os.close(open_regular(path))


def read_whole(
    path: str | os.PathLike[str], largest: int = LARGEST_TEXT, opener: Callable[[str, int], int] = open_regular
) -> bytes:
    """Return the bytes of a regular file of at most `largest` bytes.

    Parameters
    ----------
    path : path
    largest : int
    opener : callable
        As for `open`; of a file below a folder that the user named, `bottleneck.utils.tree.Tree.open`.

    Raises
    ------
    OSError
        If it cannot be read, is larger, or is no regular file.
    """
    with open(path, "rb", opener=opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise OSError(errno.EFBIG, f"expected at most {largest:,} bytes, found {size:,}", os.fspath(path))
        return file.read(size)


def read_json(path: Path, largest: int = LARGEST_TEXT, opener: Callable[[str, int], int] = open_regular) -> Any:
    """Return the value that `path` holds; parameters as of `read_whole`.

    Raises
    ------
    ValueError
        If it is no JSON, or nested too deeply.
    OSError
        If it cannot be read, has more than `largest` bytes, or is no regular file.
    """
    return parse_json(read_whole(path, largest, opener))


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text that no reader can take for another, or choke on.

    Raises
    ------
    ValueError
        If it is no JSON, names something twice, is nested deeper than anything of ours, has a number that is no float,
        or half a character in a text, except for those that stand for the bytes of a file's name.
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
    """Return the one byte string that stands for `value`: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256_hex(data: bytes | memoryview) -> str:
    """Return the SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | os.PathLike[str], opener: Callable[[str, int], int] = open_regular) -> str:
    """Return the SHA-256 of a file of any size, 64 hexadecimal digits; parameters as of `read_whole`."""
    digest = hashlib.sha256()
    with open(path, "rb", opener=opener) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()

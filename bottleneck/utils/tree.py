"""A folder named by the user with everything in it; links in it are never followed."""

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottleneck.utils.files import LARGEST_TEXT, make_folder, read_json, read_whole
from bottleneck.utils.folder import Folder, LinkError
from bottleneck.utils.warn import warn


class Tree:
    """A folder named by the user, and the files and folders in it by path.

    Each call opens the root and descends folder by folder, so that nothing is read, written or deleted through a link,
    not even through one that replaces a folder meanwhile. The root itself may be a link.

    Parameters
    ----------
    root : Path
    by_descriptor : bool, optional
        Whether to work in folders by their descriptors; by default if the operating system can.

    Raises
    ------
    LinkError
        In every method, if a folder on the way is a link.
    NotRegularError
        If a link, a folder, a FIFO, a socket or a device is in the place of a file.
    OSError
        If the operating system reports an error.
    """

    def __init__(self, root: Path, by_descriptor: bool | None = None) -> None:
        self.root = root
        self._by_descriptor = by_descriptor

    @classmethod
    def above(cls, path: Path, levels: int) -> "Tree":
        """Return the tree whose root is `levels` folders above a path."""
        return cls(path.parents[min(levels, len(path.parents)) - 1])

    def at(self, path: Path, *, make: bool = False) -> Folder:
        """Open a folder; with `make`, create missing folders durably."""
        parts = self._parts(path)
        try:
            here = Folder.of(self.root, self._by_descriptor)
        except FileNotFoundError:
            if not make:
                raise
            make_folder(self.root)
            here = Folder.of(self.root, self._by_descriptor)
        try:
            for part in parts:
                inner = here.folder(part, make=make)
                here.close()
                here = inner
        except BaseException:
            here.close()
            raise
        return here

    def _parts(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path relative to the root."""
        mine, parts = self.root.parts, path.parts
        if parts[: len(mine)] != mine or ".." in parts[len(mine) :]:
            raise ValueError(f"expected a path below {self.root}, got {path}")
        return parts[len(mine) :]

    def names(self, path: Path) -> list[str]:
        """Return the names of all entries of a folder, sorted; none if it does not exist."""
        try:
            with self.at(path) as folder:
                return folder.names()
        except FileNotFoundError:
            return []

    def folders(self, path: Path) -> list[str]:
        """Return the names of the subfolders of a folder, sorted, without links."""
        try:
            with self.at(path) as folder:
                return [name for name in folder.names() if stat.S_ISDIR(_mode(folder, name))]
        except FileNotFoundError:
            return []

    def links(self, path: Path) -> list[Path]:
        """Return the links in a folder that lead to folders."""
        try:
            with self.at(path) as folder:
                names = [name for name in folder.names() if stat.S_ISLNK(_mode(folder, name))]
        except FileNotFoundError:
            return []
        return [path / name for name in names if (path / name).is_dir()]

    def status(self, path: Path) -> os.stat_result:
        """Return the status of a file or folder, without following links."""
        with self.at(path.parent) as folder:
            return folder.status(path.name)

    def exists(self, path: Path) -> bool:
        """Return whether a path exists."""
        try:
            self.status(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
        """Return the descriptor of a regular file; can be used as the ``opener`` of `open`."""
        file = Path(path)
        with self.at(file.parent) as folder:
            return folder.open(file.name, flags)

    def read(self, path: Path, largest: int = LARGEST_TEXT) -> bytes:
        """Return the content of a file of at most `largest` bytes."""
        return read_whole(path, largest, self.open)

    def read_json(self, path: Path, largest: int = LARGEST_TEXT) -> Any:
        """Return the JSON value of a file, see `bottleneck.utils.files.read_json`."""
        return read_json(path, largest, self.open)

    def write(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Write a file like `bottleneck.utils.files.write_atomic`, and create missing folders."""
        with self.at(path.parent, make=True) as folder:
            folder.write(path.name, data, durable=durable)

    def write_changed(self, path: Path, data: bytes) -> None:
        """Write a file if its content differs, so that a memo that is up to date is not touched."""
        with contextlib.suppress(OSError):
            if self.read(path, len(data)) == data:
                return
        self.write(path, data)

    def write_json(self, path: Path, value: Any) -> None:
        """Write a value as indented JSON, if the content differs."""
        self.write_changed(path, (json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode())

    def rename(self, path: Path, new: Path, *, make: bool = False) -> Path:
        """Move a file or folder, replacing an existing file, and return its new path."""
        with self.at(path.parent) as source, self.at(new.parent, make=make) as target:
            source.rename(path.name, new.name, target)
        return new

    def unlink(self, path: Path) -> None:
        """Delete a regular file; do nothing if there is none."""
        with contextlib.suppress(FileNotFoundError), self.at(path.parent) as folder:
            folder.expect_regular(path.name)
            folder.unlink(path.name)

    def make(self, path: Path) -> None:
        """Make a folder and its parents durably."""
        self.at(path, make=True).close()

    def sync(self, path: Path) -> None:
        """Make the names in a folder durable."""
        with self.at(path) as folder:
            folder.sync()


@contextlib.contextmanager
def memo(*errors: type[Exception]) -> Iterator[None]:
    """Suppress errors of reading or writing a memo; warn about a link in its place.

    Parameters
    ----------
    *errors : type
        Errors to suppress besides OSError, raised by invalid content.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LinkError):
            warn(str(error))
        elif not isinstance(error, (OSError, *errors)):
            raise


def _mode(folder: Folder, name: str) -> int:
    """Return the mode of an entry; 0 if it no longer exists."""
    try:
        return folder.status(name).st_mode
    except FileNotFoundError:
        return 0

"""A folder that the user named, and all below it: no link in it is ever followed."""

import contextlib
import json
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bottleneck.errors import BottleneckWarning
from bottleneck.utils.files import LARGEST_TEXT, make_folder, read_json, read_whole
from bottleneck.utils.folder import Folder, LinkError


class Tree:
    """A folder that the user named, and files and folders below it, by their paths.

    Each call opens the root and goes down from there, folder by folder, so that nothing is read, written or deleted
    through a link, not even through one that takes a folder's place meanwhile. The root itself may be a link.

    Parameters
    ----------
    root : Path

    Raises
    ------
    LinkError
        From every method, if a folder on the way is a link.
    NotRegularError
        If a link, a folder, a FIFO, a socket or a device is in a file's place.
    OSError
        For the system's reasons.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def above(cls, path: Path, levels: int) -> "Tree":
        """Return the tree whose root is so many folders above a path."""
        return cls(path.parents[min(levels, len(path.parents)) - 1])

    def at(self, path: Path, *, make: bool = False) -> Folder:
        """Open a folder; those that are missing may be made, durably."""
        parts = self._parts(path)
        try:
            here = Folder.of(self.root)
        except FileNotFoundError:
            if not make:
                raise
            make_folder(self.root)
            here = Folder.of(self.root)
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
        """Return the names on the way to a path below the root."""
        mine, parts = self.root.parts, path.parts
        if parts[: len(mine)] != mine or ".." in parts[len(mine) :]:
            raise ValueError(f"expected a path below {self.root}, got {path}")
        return parts[len(mine) :]

    def names(self, path: Path) -> list[str]:
        """Return the names of all that is in a folder, sorted; none where there is no folder."""
        try:
            with self.at(path) as folder:
                return folder.names()
        except FileNotFoundError:
            return []

    def folders(self, path: Path) -> list[str]:
        """Return the names of the folders in a folder, sorted; links are none."""
        try:
            with self.at(path) as folder:
                return [name for name in folder.names() if stat.S_ISDIR(_mode(folder, name))]
        except FileNotFoundError:
            return []

    def links(self, path: Path) -> list[Path]:
        """Return the links in a folder that lead to folders, as they are now."""
        try:
            with self.at(path) as folder:
                names = [name for name in folder.names() if stat.S_ISLNK(_mode(folder, name))]
        except FileNotFoundError:
            return []
        return [path / name for name in names if (path / name).is_dir()]

    def status(self, path: Path) -> os.stat_result:
        """Return the status of a file or folder; that of a link is its own."""
        with self.at(path.parent) as folder:
            return folder.status(path.name)

    def exists(self, path: Path) -> bool:
        """Whether there is something of that name."""
        try:
            self.status(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def open(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
        """Return the descriptor of a regular file; as `open`'s ``opener`` it takes that one's flags."""
        file = Path(path)
        with self.at(file.parent) as folder:
            return folder.open(file.name, flags)

    def read(self, path: Path, largest: int = LARGEST_TEXT) -> bytes:
        """Return the bytes of a file of at most `largest` bytes."""
        return read_whole(path, largest, self.open)

    def read_json(self, path: Path, largest: int = LARGEST_TEXT) -> Any:
        """Return the value that a file holds, as `bottleneck.utils.files.read_json` does."""
        return read_json(path, largest, self.open)

    def write(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """Write a file as `bottleneck.utils.files.write_atomic` does; folders that are missing are made."""
        with self.at(path.parent, make=True) as folder:
            folder.write(path.name, data, durable=durable)

    def write_changed(self, path: Path, data: bytes) -> None:
        """Write a file, unless that is what it holds: a memo that is up to date is not touched."""
        with contextlib.suppress(OSError):
            if self.read(path, len(data)) == data:
                return
        self.write(path, data)

    def write_json(self, path: Path, value: Any) -> None:
        """Write a value as indented JSON, unless that is what the file holds."""
        self.write_changed(path, (json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode())

    def rename(self, path: Path, new: Path, *, make: bool = False) -> Path:
        """Move a file or folder and return its new path; a file of that name is replaced."""
        with self.at(path.parent) as source, self.at(new.parent, make=make) as target:
            source.rename(path.name, new.name, target)
        return new

    def unlink(self, path: Path) -> None:
        """Delete a regular file; do nothing where there is none."""
        with contextlib.suppress(FileNotFoundError), self.at(path.parent) as folder:
            folder.expect_regular(path.name)
            folder.unlink(path.name)

    def make(self, path: Path) -> None:
        """Make a folder and those above it, each of them durably."""
        self.at(path, make=True).close()

    def sync(self, path: Path) -> None:
        """Make the names in a folder durable."""
        with self.at(path) as folder:
            folder.sync()


@contextlib.contextmanager
def memo(*errors: type[Exception]) -> Iterator[None]:
    """Go on without a memo that cannot be read or written, for these errors too; a link in its way is told.

    Parameters
    ----------
    *errors : type
        Beside OSError: what reading something else than the memo raises.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LinkError):
            warnings.warn(str(error), BottleneckWarning, stacklevel=4)
        elif not isinstance(error, (OSError, *errors)):
            raise


def _mode(folder: Folder, name: str) -> int:
    """Return the mode of what has a name; 0 where it has gone."""
    try:
        return folder.status(name).st_mode
    except FileNotFoundError:
        return 0

"""Recognise the files of bottleneck by name and content, and delete only these."""

from __future__ import annotations

import errno
import json
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

from bottleneck.utils.files import LARGEST_TEXT, NotRegularError
from bottleneck.utils.folder import Folder, LinkError, is_temporary
from bottleneck.utils.tree import Tree

Test = Callable[[Folder, str], bool]  # whether the content of a regular file is ours
# The content of a folder of ours: patterns of names, each with the test of a file or the layout of a folder.
# Unfinished files may be in any folder. Entries are deleted in the order of the patterns.
Layout = Mapping[str, Union[Test, "Layout"]]


@dataclass
class Sweep:
    """The result of a deletion, or of a dry run.

    Parameters
    ----------
    bytes : int
        Size of the deleted files.
    left : list of Path
        Entries that are not ours, and were kept.
    """

    bytes: int = 0
    left: list[Path] = field(default_factory=list)


def delete(tree: Tree, path: Path, layout: Test | Layout, *, dry_run: bool = False) -> Sweep:
    """Delete a file, or a folder with its content, as far as they are ours; do nothing if there is none.

    Links are never ours, and never followed. A folder is kept if anything in it is kept.

    Parameters
    ----------
    tree : Tree
    path : Path
    layout : callable or mapping
        Test of the file, or layout of the folder.
    dry_run : bool
        Whether to delete nothing and only return what would be deleted.

    Raises
    ------
    OSError
        If something cannot be deleted.
    """
    done = Sweep()
    try:
        with tree.at(path.parent) as folder:
            _delete(folder, path.name, layout, done, dry_run)
    except FileNotFoundError:
        pass
    except LinkError:
        done.left.append(path)
    return done


def is_ours(folder: Folder, name: str, layout: Test | Layout) -> bool:
    """Return whether a file, or a folder with all its content, is ours."""
    done = Sweep()
    _delete(folder, name, layout, done, dry_run=True)
    return not done.left


def rules_of(layout: Layout, name: str) -> list[Test | Layout]:
    """Return the rule of a layout for a name, in a list; an empty list if it has none."""
    return [rule for pattern, rule in layout.items() if re.fullmatch(pattern, name)][:1]


def any_content(folder: Folder, name: str) -> bool:
    """Return True: the name is sufficient."""
    return True


def beginning(*magic: bytes) -> Test:
    """Return a test for files that begin with given bytes; an empty file, left by a power failure, passes."""

    def test(folder: Folder, name: str) -> bool:
        found = _first(folder, name, max(map(len, magic), default=1))
        return not found or found.startswith(magic)

    return test


def json_with(*keys: str) -> Test:
    """Return a test for files with a JSON object that has the given keys; an empty file passes."""

    def test(folder: Folder, name: str) -> bool:
        data = _first(folder, name, LARGEST_TEXT)
        try:
            value = json.loads(data) if data else dict.fromkeys(keys)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and value.keys() >= set(keys)

    return test


def _first(folder: Folder, name: str, size: int) -> bytes:
    with open(folder.path / name, "rb", opener=lambda _, flags: folder.open(name, flags)) as file:
        return file.read(size)


def _delete(folder: Folder, name: str, layout: Test | Layout, done: Sweep, dry_run: bool) -> bool:
    """Delete a file or folder as far as it is ours; return whether it was deleted completely."""
    path = folder.path / name
    try:
        status = folder.status(name)
        if callable(layout):
            mine = stat.S_ISREG(status.st_mode) and layout(folder, name)
        else:
            mine = stat.S_ISDIR(status.st_mode) and _emptied(folder, name, layout, done, dry_run)
            if not mine and stat.S_ISDIR(status.st_mode):
                return False  # its kept entries are listed
        if mine and not dry_run:
            folder.unlink(name) if callable(layout) else folder.rmdir(name)
    except FileNotFoundError:
        return True  # another process deleted it
    except (LinkError, NotRegularError):  # it has just replaced the entry
        mine = False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        mine = False
    if mine:
        done.bytes += status.st_size
    else:
        done.left.append(path)
    return mine


def _emptied(folder: Folder, name: str, layout: Layout, done: Sweep, dry_run: bool) -> bool:
    """Delete the entries of a folder that are ours; return whether it is empty."""
    rules = [*layout.values(), any_content, _foreign]
    with folder.folder(name) as inner:
        found = sorted((_place(layout, each), each) for each in inner.names())
        return all([_delete(inner, each, rules[place], done, dry_run) for place, each in found])


def _place(layout: Layout, name: str) -> int:
    """Return the index of the rule for a name: a rule of the layout, that of unfinished files, or that of others."""
    places = (place for place, pattern in enumerate(layout) if re.fullmatch(pattern, name))
    return next(places, len(layout) if is_temporary(name) else len(layout) + 1)


def _foreign(folder: Folder, name: str) -> bool:
    return False

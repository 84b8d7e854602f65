"""Which files are ours, by name and content; and deletion of these and of nothing else."""

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

Test = Callable[[Folder, str], bool]  # of a regular file, whether its content is ours
# What may be in a folder of ours: the pattern of a name, and the test of the file or the layout of the folder that has
# it. Unfinished files may be in any. What stands first is deleted first.
Layout = Mapping[str, Union[Test, "Layout"]]


@dataclass
class Sweep:
    """What was deleted, or would be.

    Parameters
    ----------
    bytes : int
        That were freed.
    left : list of Path
        What is not ours, and stays.
    """

    bytes: int = 0
    left: list[Path] = field(default_factory=list)


def delete(tree: Tree, path: Path, layout: Test | Layout, *, dry_run: bool = False) -> Sweep:
    """Delete a file, or a folder with all that is in it, as far as it is ours; do nothing where there is none.

    Links are never ours, and never followed. A folder in which something stays, stays too.

    Parameters
    ----------
    tree : Tree
    path : Path
    layout : callable or mapping
        What it is, if it is ours.
    dry_run : bool
        Whether only to say what would be deleted.

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
    """Whether a file, or a folder with all that is in it, is ours."""
    done = Sweep()
    _delete(folder, name, layout, done, dry_run=True)
    return not done.left


def rules_of(layout: Layout, name: str) -> list[Test | Layout]:
    """Return what a layout says of a name, if it says anything."""
    return [rule for pattern, rule in layout.items() if re.fullmatch(pattern, name)][:1]


def any_content(folder: Folder, name: str) -> bool:
    """Return True: the name says enough."""
    return True


def beginning(*magic: bytes) -> Test:
    """Return the test of files that begin with one of some bytes; an empty one, of a loss of power, passes."""

    def test(folder: Folder, name: str) -> bool:
        found = _first(folder, name, max(map(len, magic), default=1))
        return not found or found.startswith(magic)

    return test


def json_with(*keys: str) -> Test:
    """Return the test of files that hold a JSON object with some keys; an empty one passes, too."""

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
    """Delete what is ours of a file or folder; return whether all of it was."""
    path = folder.path / name
    try:
        status = folder.status(name)
        if callable(layout):
            mine = stat.S_ISREG(status.st_mode) and layout(folder, name)
        else:
            mine = stat.S_ISDIR(status.st_mode) and _emptied(folder, name, layout, done, dry_run)
            if not mine and stat.S_ISDIR(status.st_mode):
                return False  # what is in it is named
        if mine and not dry_run:
            folder.unlink(name) if callable(layout) else folder.rmdir(name)
    except FileNotFoundError:
        return True  # another process was quicker
    except (LinkError, NotRegularError):  # it has taken the place of what was there a moment ago
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
    """Delete what is ours in a folder; return whether nothing is left in it."""
    rules = [*layout.values(), any_content, _foreign]
    with folder.folder(name) as inner:
        found = sorted((_place(layout, each), each) for each in inner.names())
        return all([_delete(inner, each, rules[place], done, dry_run) for place, each in found])


def _place(layout: Layout, name: str) -> int:
    """Return which of the rules is for a name: those of the layout, that of unfinished files, that of all others."""
    places = (place for place, pattern in enumerate(layout) if re.fullmatch(pattern, name))
    return next(places, len(layout) if is_temporary(name) else len(layout) + 1)


def _foreign(folder: Folder, name: str) -> bool:
    return False

"""Remove paths, and the names of the user and the machine, from a text that is to be published."""

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.diagnostics.diagnosis import Hide

_PATH = "<path>"
_PUBLIC, _MARK = re.compile(r"/dev/shm(?![\w/-])"), "\0"
_REST = r"[^\s'\"`,;:()<>]*"
_ABSOLUTE = re.compile(rf"(?<![\w/.<>])(?<!http:)(?<!https:)(?:/+(?=[^\s/])|[A-Za-z]:[\\/]|\\\\(?=\w)){_REST}")


@dataclass(frozen=True)
class Person:
    """What must not be published.

    Parameters
    ----------
    places : tuple of str
        Paths, which may contain spaces: the home folder, the current folder, the cache and so on.
    names : tuple of str
        Names of the user and of the machine.
    """

    places: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def here(cls, *folders: str) -> "Person":
        """Return the places and names of this process, and the given folders."""
        places = [*folders, os.path.expanduser("~"), os.curdir, sys.prefix, sys.base_prefix]
        names = [platform.node(), platform.node().partition(".")[0]]
        with suppress(Exception):  # a user without a name, as in some containers; the error depends on the version
            names.append(getpass.getuser())
        with suppress(OSError):  # there is no folder for temporary files
            places.append(tempfile.gettempdir())
        return cls(tuple(_spellings(places)), tuple(name for name in names if len(name) > 1))


@dataclass(frozen=True)
class Privacy(Hide):
    """Replaces what is private in a text.

    Parameters
    ----------
    person : Person

    Examples
    --------
    >>> Privacy(Person(("/home/ann lee",), ("ann",)))("ann has /home/ann lee/x.h5 and /etc/fstab, 3/4 full")
    '<name> has <path> and <path>, 3/4 full'
    """

    person: Person = field(default_factory=Person.here)

    def __call__(self, text: str) -> str:
        """Return the text without paths and names."""
        text = _PUBLIC.sub(_MARK, text)
        for place in sorted(self.person.places, key=len, reverse=True):
            text = re.sub(rf"{re.escape(place)}(?![\w-]){_REST}", _PATH, text)
        text = _ABSOLUTE.sub(_PATH, text)
        for name in self.person.names:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "<name>", text)
        return text.replace(_MARK, "/dev/shm")


def _spellings(places: Iterable[str]) -> Iterable[str]:
    """Yield each path as it is, and without links; none that is as short as ``/`` or a plain name such as ``cache``."""
    for place in places:
        found = {place}
        with suppress(OSError):  # the current folder was deleted
            found |= {os.path.abspath(place), os.path.realpath(place)}
        yield from (one for one in found if len(Path(one).parts) > 1)

"""Compare and format names, and format counts with their nouns."""

import unicodedata
from collections.abc import Iterable, Sequence

from bottleneck.errors import printable

_SHOWN = 4  # names in a message

_SEPARATORS = {ord(char): " " for char in "_-"}


def normal(name: str) -> str:
    """Return the NFC form of a name, which does not depend on how accents are encoded.

    macOS and some archives encode ``é`` as ``e`` and an accent, other systems as one character.
    """
    return name if name.isascii() else unicodedata.normalize("NFC", name)


class Spellings:
    """Normalises names, and records which were spelled in several ways."""

    def __init__(self) -> None:
        self._forms: dict[str, set[str]] = {}
        self._bare: set[str] = set()
        self._padded: set[str] = set()

    def normal(self, name: str) -> str:
        """Return the normal form of a name."""
        if name.isascii():
            return name
        form = normal(name)
        self._forms.setdefault(form, set()).add(name)
        return form

    def bare(self, cell: str) -> str:
        """Return the name in a table cell, without surrounding spaces."""
        name = cell.strip()
        (self._bare if name == cell else self._padded).add(name)
        return name

    def padded(self) -> list[str]:
        """Return the names that occurred in cells both with and without surrounding spaces, sorted."""
        return sorted(self._bare & self._padded)

    def several(self) -> list[str]:
        """Return the normal forms of the names that were spelled in several ways, sorted."""
        return sorted(form for form, spelled in self._forms.items() if len(spelled) > 1)


def is_unicode(text: str) -> bool:
    """Return whether a text decoded with ``surrogateescape`` was valid UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count and its noun: ``1 image``, ``2 images``, ``1 class``, ``2 classes``.

    Parameters
    ----------
    count : int
    noun : str
        Singular.
    plural : str, optional
        By default the noun with an s, or with es after s, x, ch or sh.
    """
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count} {noun if count == 1 else plural or noun + ending}"


def one_line(thing: object, *parts: str) -> str:
    """Return a ``repr`` on one line: the class and the parts that are not empty."""
    return printable(f"<{type(thing).__name__}: {', '.join(part for part in parts if part)}>")


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of names that differ only by case, spaces, underscores or invisible characters, sorted."""
    alike: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        alike.setdefault(_seen(name), []).append(name)
    return [tuple(group) for group in alike.values() if len(group) > 1]


def _seen(name: str) -> str:
    """Return a name without differences that readers overlook. Separators between digits count: 1_1 is not 11."""
    if name.isascii():
        words = name.lower().translate(_SEPARATORS).split()
    else:
        folded = unicodedata.normalize("NFKC", name).casefold()
        words = "".join(_separator_as_space(char) for char in folded).split()
    seen = ""
    for word in words:
        seen += " " + word if seen[-1:].isdigit() and word[0].isdigit() else word
    return seen


def _separator_as_space(char: str) -> str:
    if ord(char) in _SEPARATORS or char.isspace():
        return " "
    return "" if unicodedata.category(char) == "Cf" else char  # joiners and soft hyphens


def first_few(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the remaining ones."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

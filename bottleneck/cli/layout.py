"""Tables and sentences laid out for a width, without knowledge of a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bottleneck.errors import printable

_GAP = 2  # columns between two cells
_INSIDE = "   "  # before each cell of a row that is shown as a list
_TOGETHER = re.compile(  # spaces at which lines are not broken
    r"(?<=\d) (?=(?:%|MB|GB|s\b|x \d))|(?<=\d x) (?=\d)"  # 95 %, 1.2 MB, 14 x 14
    r"|(?<=\d,) (?=\d)| (?=± ?\d)|(?<=±) "  # (3, 3), 95.2% ± 2.8%
    r"|(?<=[^\W\d]) (?=\d[\d.,%]*(?:[\s,;)]|$))"  # accuracy 96.1%
)
_TIE = "\xa0"  # replaces these spaces while lines are broken; in names it is escaped
_BREAKS = f"/\\{_TIE}", "-_.,:;=@+|"  # characters after which long words are broken: best, and next best


def cells(text: str) -> int:
    """Return the width of a text in columns; an ideograph takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Parameters
    ----------
    name : str
    right : bool
        Whether its cells are right-aligned.
    optional : bool
        Whether it is left out if the other columns fit without it.
    """

    name: str
    right: bool = False
    optional: bool = False


def right(*names: str) -> list[Column]:
    """Return right-aligned columns."""
    return [Column(name, right=True) for name in names]


class TextTable:
    """A table that becomes a list if it is too wide. Cells are never truncated.

    Parameters
    ----------
    *columns : Column or str
        The first names the row; in a list it is on a separate line, above the others.
    nothing : tuple of str
        Cells that a list omits.
    heading : str
        Printed above a list, but not above a table.
    """

    def __init__(self, *columns: Column | str, nothing: Sequence[str] = ("",), heading: str = "") -> None:
        self._columns = [Column(one) if isinstance(one, str) else one for one in columns]
        self._nothing = nothing
        self._heading = heading
        self._rows: list[list[str]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row; missing cells are empty."""
        self._rows.append([printable(cell) for cell in cells] + [""] * (len(self._columns) - len(cells)))

    def lines(self, width: int | None = None, rule: str = "─") -> list[str]:
        """Return the lines of the table and an empty line.

        Parameters
        ----------
        width : int, optional
            Available columns; None for an unlimited number.
        rule : str
            The character of the rule below the header.
        """
        whole = range(len(self._columns))
        short = [place for place in whole if not self._columns[place].optional]
        for places in (whole, short):
            widths = self._widths(places)
            if width is None or 1 + sum(widths) + _GAP * (len(widths) - 1) <= width:
                return [*self._side_by_side(places, widths, rule), ""]
        return [*self._as_list(width or 0), ""]

    def _widths(self, places: Sequence[int]) -> list[int]:
        named = [[printable(column.name) for column in self._columns], *self._rows]
        return [max(cells(row[place]) for row in named) for place in places]

    def _side_by_side(self, places: Sequence[int], widths: Sequence[int], rule: str) -> Iterator[str]:
        header = [printable(column.name) for column in self._columns]
        for number, row in enumerate([header, *self._rows]):
            parts = []
            for place, room in zip(places, widths, strict=True):
                space = " " * (room - cells(row[place]))
                parts.append(space + row[place] if self._columns[place].right else row[place] + space)
            yield (" " + (" " * _GAP).join(parts)).rstrip()
            if not number:
                yield " " + rule * (sum(widths) + _GAP * (len(widths) - 1))

    def _as_list(self, width: int) -> Iterator[str]:
        if self._heading:
            yield from fold(printable(self._heading), width)
        for first, *others in self._rows:
            yield from fold(f" {first}", width)
            named = zip(self._columns[1:], others, strict=True)
            pairs = [_pair(column.name, cell) for column, cell in named if cell not in self._nothing]
            yield from _packed(pairs, width)


def _pair(name: str, cell: str) -> str:
    return f"{printable(name)}: {cell}" if name else cell


def _packed(pairs: Sequence[str], width: int) -> Iterator[str]:
    """Yield lines with as many pairs as fit; a pair that is longer than a line is folded."""
    line = ""
    for pair in pairs:
        longer = f"{line}{_INSIDE}{pair}"
        if cells(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *full, line = fold(f"{_INSIDE}{pair}", width)
        yield from full
    if line:
        yield line


class Command:
    """A command to copy, continued after a backslash if it is longer than a line.

    Parameters
    ----------
    lead : str
        Text before the command: empty, or a sentence that ends in a colon.
    *words : str
        Quoted if necessary.
    """

    def __init__(self, lead: str, *words: str) -> None:
        self._lead = lead
        self._words = [shlex.quote(printable(word)) for word in words]

    def lines(self, width: int | None = None) -> list[str]:
        """Return the lines of the text and the command; words of the command are never folded."""
        whole = " ".join([*([self._lead] if self._lead else []), *self._words])
        if width is None or cells(whole) <= width:
            return [whole]
        lines = [f"  {self._words[0]}"]
        for word in self._words[1:]:
            if cells(lines[-1]) + 1 + cells(word) + 2 <= width:
                lines[-1] += f" {word}"
            else:
                lines[-1] += " \\"
                lines.append(f"    {word}")
        return [*(fold(self._lead, width) if self._lead else []), *lines]


def fold(text: str, width: int | None) -> list[str]:
    """Break a line into lines of at most `width` columns, between words; None is an unlimited width.

    A word that is longer than a line, such as a path, is broken after a separator. A number and its unit, or its
    deviation, stay together. Lines after the first are indented by two more spaces.
    """
    if width is None or cells(text) <= width:
        return [text]
    body = text.lstrip(" ")
    indent = text[: len(text) - len(body)]
    line, lines = indent, []
    for word in _TOGETHER.sub(_TIE, body).split(" "):
        longer = f"{line} {word}" if line.strip() else line + word
        if cells(longer) <= width:
            line = longer
            continue
        for part in _parts(word, max(8, width - len(indent) - 2)):
            lines += [line] if line.strip() else []
            line = indent + "  " * bool(lines) + part
    return [line.replace(_TIE, " ").rstrip() for line in [*lines, line]]


def _parts(word: str, room: int) -> Iterator[str]:
    """Yield the parts of a word, each at most `room` columns wide."""
    while cells(word) > room:
        end = room
        while cells(word[:end]) > room:  # some characters take two columns
            end -= 1
        for separators in _BREAKS:
            last = max(word.rfind(one, 0, end) for one in separators)
            if last > end // 3:
                end = last + 1
                break
        yield word[:end]
        word = word[end:]
    yield word

"""Images listed in a table: ``path,label[,split][,group]``, paths relative to the table."""

import csv
import io
import itertools
import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from bottleneck.errors import ImagesError, PathError, printable
from bottleneck.images.columns import Columns, Header, read_header
from bottleneck.images.folders import Found
from bottleneck.utils.csv_text import unescape_cell
from bottleneck.utils.files import read_whole
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import Spellings, is_unicode

TABLES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t")  # used by spreadsheets, depending on their language
_SAMPLED_ROWS = 1000  # rows, to guess the role of unused columns
_LARGEST = 4 << 30  # bytes
_NUL = "\udc00"  # replaces NUL, which Python's csv rejects before 3.11; no byte is decoded to this character
_SHOWN_CHARS = 60  # characters of a line in a message


@dataclass(frozen=True)
class TableRow:
    """One row of a table.

    Parameters
    ----------
    line : int
        Number of its first line, from 1.
    path : str
        The cell.
    file : str
        Path of the image, relative to the current folder.
    label, split, group : str or None
    """

    line: int
    path: str
    file: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class ImageTable:
    """The rows of a table in order, with duplicates and normalized names.

    Parameters
    ----------
    rows : tuple of TableRow
    spellings : Spellings
        Spellings of labels and groups.
    remark : str or None
        A message about its columns.
    """

    rows: tuple[TableRow, ...]
    spellings: Spellings
    remark: str | None = None


def is_table(source: Path) -> bool:
    """Return whether a path is a table of images."""
    return source.suffix.lower() in TABLES and os.path.isfile(source)


def find_listed(path: Path, *, labelled: bool, columns: Columns | None = None) -> Found:
    """Return the distinct images of the table at `path`, in the order of their paths.

    Parameters and errors are those of `read_table`.
    """
    table = read_table(path, labelled=labelled, columns=columns)
    found = Found(spellings=table.spellings, remarks=[table.remark] if table.remark else [])
    normalizer = _PathNormalizer()
    rows = {(normalizer.path(row.file), row.label, row.split, row.group) for row in table.rows}
    for file, label, split, group in sorted(rows, key=lambda row: tuple(cell or "" for cell in row)):
        found.add(file, label, split, group)
    return found


def read_table(path: Path, *, labelled: bool, columns: Columns | None = None, partly: bool = False) -> ImageTable:
    """Read a table of images.

    Parameters
    ----------
    path : Path
        UTF-8 with a header; cells are separated by commas, semicolons or tabs, columns are in any order. Columns
        ``path`` and ``digest`` mark a table written by bottleneck, whose cells are unescaped with `unescape_cell`.
    labelled : bool
        Whether to read labels, splits and groups, or only the paths.
    columns : Columns, optional
        The columns named by the user.
    partly : bool
        Whether labels may be missing.

    Raises
    ------
    ImagesError
        If a column is missing, a row has more or fewer cells than the header, a quotation mark is not closed, a path or
        (with labels) a label is missing, or a split is unknown; the message names the line. Also if the file cannot be
        read, or is not a regular file.
    """
    named = columns or Columns()
    text = _text(path)
    lines = _lines(path, text, _delimiter(path, text, named, labelled=labelled))
    cells = next(lines, _Line(1, 1, [])).cells
    header = read_header(path, cells, named, labelled=labelled)
    is_ours = {"path", "digest"} <= set(header.names)
    spellings = Spellings()
    rows: list[TableRow] = []
    first: list[list[str]] = []
    for line in lines:
        if is_ours:
            line = replace(line, cells=_unescaped(path, line.cells, header))
        rows.append(_row(path, line, header, spellings, partly=partly))
        if len(first) < _SAMPLED_ROWS:
            first.append(line.cells)
    return ImageTable(tuple(rows), spellings, header.remark(path, first))


@dataclass(frozen=True)
class _Line:
    """The cells of a row, with its first and last line."""

    first: int
    last: int
    cells: list[str]


def _text(path: Path) -> str:
    try:
        data = read_whole(path, _LARGEST)
    except OSError as error:
        raise ImagesError(f"cannot read the table {path}: {error.strerror or error}") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ImagesError(f"{path}: expected UTF-8, found UTF-16; save the table as CSV UTF-8")
    text = data.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape").replace("\0", _NUL)
    first, end, rest = text.partition("\n")
    return rest if end and first.strip()[:-1].lower() == "sep=" else text  # Excel's declaration of the delimiter


def _delimiter(path: Path, text: str, columns: Columns, *, labelled: bool) -> str:
    """Return the delimiter with which the header has the required columns; else the comma."""
    header = text.splitlines()[0] if text else ""
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader([header], delimiter=delimiter), [])
            read_header(path, cells, columns, labelled=labelled)
        except (ImagesError, csv.Error):
            continue
        return delimiter
    return ","


def _lines(path: Path, text: str, delimiter: str) -> Iterator[_Line]:
    """Yield the rows without blank ones.

    Raises
    ------
    ImagesError
        If a row has more or fewer cells than the header, or quotation marks are not in pairs around whole cells.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    width = None
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ImagesError(_not_csv(path, text, first, reader.line_num, error)) from error
        line = _Line(first, reader.line_num, [cell.replace(_NUL, "\0") for cell in cells])
        if width is None:
            width = len(cells)
        elif not any(cell.strip() for cell in cells):
            continue
        elif len(cells) != width:
            raise ImagesError(_uneven(path, line, width))
        yield line


def _not_csv(path: Path, text: str, first: int, last: int, error: csv.Error) -> str:
    line = next(itertools.islice(io.StringIO(text, newline=""), first - 1, None), "").strip()
    begins = printable(line[:_SHOWN_CHARS].replace(_NUL, "\0"))
    if last > first or "end of data" in str(error) or "expected after" in str(error):
        return (
            f"{path}, line {first}: expected quotation marks in pairs around whole cells, found one that is not closed "
            f"by line {last}: {begins}. Remove it, or write it twice within a quoted cell"
        )
    return f"{path}, line {first}: expected a CSV with columns path,label; found {begins}: {error}"


def _uneven(path: Path, line: _Line, width: int) -> str:
    if line.last > line.first:
        hint = f"; a quotation mark joins lines {line.first} to {line.last}"
    elif any(cell[:1].isspace() and cell.lstrip().startswith('"') for cell in line.cells):
        hint = "; a quotation mark must follow the separator directly, without a space"
    elif len(line.cells) > width:
        hint = "; quote cells that contain a separator"
    else:
        hint = "; rows need the separator of the header" if len(line.cells) == 1 else ""
    begins = printable(",".join(line.cells)[:_SHOWN_CHARS])
    wanted = f"{width} cell{'s' * (width != 1)}"
    return f"{path}, line {line.first}: expected {wanted}, as in the header, found {len(line.cells)}: {begins}{hint}"


def _unescaped(path: Path, cells: list[str], header: Header) -> list[str]:
    """Return the original cells of a table written by bottleneck; a path that exists with its apostrophe is kept."""
    found, place = [unescape_cell(cell) for cell in cells], header.places["path"]
    if os.path.lexists(_file(path, cells[place])) and not os.path.lexists(_file(path, found[place])):
        found[place] = cells[place]
    return found


def _check_breaks(path: Path, line: _Line, header: Header) -> None:
    """Reject a multi-line cell that is the result of a stray pair of quotation marks around whole rows.

    Notes and existing paths may have several lines; labels, splits and groups may not.

    Raises
    ------
    ImagesError
        If there is such a cell.
    """
    for place, cell in enumerate(line.cells):
        parts = cell.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if len(parts) == 1:
            continue
        role = next((role for role, used in header.places.items() if used == place), None)
        if role == "path":
            broken = not os.path.lexists(_file(path, cell.strip()))
        else:
            broken = role is not None or any(_is_row(path, part, header) for part in parts[1:])
        if broken:
            raise ImagesError(
                f"{path}, line {line.first}: expected the {role or header.names[place]} on one line, found a cell of "
                f"{len(parts)} lines: {printable(cell[:_SHOWN_CHARS])}. Check the quotation marks"
            )


def _is_row(path: Path, text: str, header: Header) -> bool:
    """Return whether a line of a cell looks like a row of the table: its path exists."""
    cells = text.split(",")
    place = header.places["path"]
    return len(cells) == len(header.names) and os.path.lexists(_file(path, cells[place].strip()))


def _row(path: Path, line: _Line, header: Header, spellings: Spellings, *, partly: bool) -> TableRow:
    if line.last > line.first:
        _check_breaks(path, line, header)
    name, given = header.cell(line.cells, "path"), line.cells[header.places["path"]]
    if not name:
        raise ImagesError(f"{path}, line {line.first}: expected a path, found none")
    if given != name and os.path.lexists(path.parent / given):
        name = given  # the file name begins or ends with a space
    file = _file(path, name)
    if "label" not in header.places:
        return TableRow(line.first, given, file)
    split = header.cell(line.cells, "split")
    label, group = (
        spellings.bare(line.cells[place]) if (place := header.places.get(role)) is not None else ""
        for role in ("label", "group")
    )
    if not label and not partly:
        raise ImagesError(f"{path}, line {line.first}: expected a label for {printable(name)}, found none")
    if not is_unicode(label + group):
        raise ImagesError(f"{path}, line {line.first}: expected UTF-8, found other bytes; save the table as CSV UTF-8")
    known = header.split(split) if split else None
    if split and known is None:
        raise ImagesError(f"{path}, line {line.first}: expected a split train, val or test, found {split!r}")
    return TableRow(line.first, given, file, spellings.normal(label) or None, known, spellings.normal(group) or None)


def _file(table: Path, name: str) -> str:
    """Return the path of an image, relative to the current folder."""
    if name.startswith("~") and not os.path.lexists(table.parent / name):
        with suppress(PathError):  # an unknown user: the row fails like a missing file
            return str(expanded(name))
    return str(table.parent / name)


class _PathNormalizer:
    """Removes ``..`` from paths if the result is the same folder on disk; each folder is checked only once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def path(self, path: str) -> str:
        """Return the path without ``..`` if possible."""
        if ".." not in path:
            return path
        folder, name = os.path.split(path)
        if folder not in self._folders:
            short = os.path.normpath(folder)
            self._folders[folder] = short if _are_same(short, folder) else folder
        return os.path.join(self._folders[folder], name)


def _are_same(one: str, other: str) -> bool:
    """Return whether two paths refer to the same file; an invalid path does not refer to any."""
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # a null character
        return False

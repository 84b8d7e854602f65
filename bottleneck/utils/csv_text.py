"""Read and write CSV so that no cell is a formula in a spreadsheet, and every cell can be read back exactly."""

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from bottleneck.utils.files import read_whole

LARGEST = 4 << 30  # bytes of a table
_ESCAPE = "'"
_FORMULA = frozenset("=+-@\N{MINUS SIGN}")  # first characters of formulas; after NFKC, for East Asian spreadsheets
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp", "Zs")  # controls, invisible characters, bytes that are not UTF-8, spaces
_QUOTED = frozenset('",;\t\r\n')
_NUL = "\udc00"  # replaces NUL, which Python's csv rejects before 3.11; no byte is decoded to this character


def escape_cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet might interpret as a formula.

    These are texts that begin with ``=``, ``+``, ``-``, ``@`` (of any width, and after spaces or invisible characters),
    a tab, or a line break. Texts that begin with an apostrophe get another one, so that `unescape_cell` restores every
    text exactly.
    """
    return _ESCAPE + text if _is_escaped(text) else text


def unescape_cell(cell: str) -> str:
    """Return the original text of `escape_cell`, without the apostrophe that it added, if any."""
    return cell[1:] if cell.startswith(_ESCAPE) and _is_escaped(cell[1:]) else cell


def csv_lines(rows: Iterable[Sequence[object]], *, quote_all: bool = False) -> Iterator[str]:
    """Yield a line of CSV for each row: texts escaped by `escape_cell`, numbers unchanged, None as empty.

    Cells with a separator, quotation mark or line break are quoted; or all cells, with `quote_all`.
    """
    for row in rows:
        cells = [_cell(value, quote_all) for value in row]
        yield (",".join(cells) if cells != [""] else '""') + "\n"  # an empty line is no row


def csv_bytes(rows: Iterable[Sequence[object]], *, quote_all: bool = False) -> bytes:
    """Return the table of `csv_lines` in UTF-8; file names that are not UTF-8 are written as their bytes."""
    return "".join(csv_lines(rows, quote_all=quote_all)).encode("utf-8", "surrogateescape")


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a table written by bottleneck, for example ``predictions.csv``, and restore every cell.

    The pandas equivalent is ``pandas.read_csv(path, dtype=str, keep_default_na=False)`` and, for each column of names,
    ``table["path"].str.removeprefix("'")``.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of dict
        For each row, its cells by column.

    Raises
    ------
    ValueError
        If it is not a CSV file, or a row has more or fewer cells than the header.
    OSError
        If it cannot be read.
    """
    return parse_csv(read_whole(path, LARGEST))


def parse_csv(data: bytes) -> list[dict[str, str]]:
    """Return the rows of `read_csv` from the bytes of a table."""
    text = data.decode("utf-8", "surrogateescape").replace("\0", _NUL)
    try:
        header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    except csv.Error as error:
        raise ValueError(f"expected a valid CSV file: {error}") from error
    if any(len(row) != len(header) for row in rows):
        raise ValueError(
            f"expected {len(header)} cells in each row, as in the header, found a row with a different number"
        )
    names = [_original(name) for name in header]
    return [dict(zip(names, map(_original, row), strict=True)) for row in rows]


def _original(cell: str) -> str:
    return unescape_cell(cell.replace(_NUL, "\0"))


def _is_escaped(text: str) -> bool:
    if not text.isascii() or not text[:1].isalnum():  # most names are plain
        return text[:1] in ("'", "\t", "\r", "\n") or _begins_formula(text)
    return False


def _begins_formula(text: str) -> bool:
    first = next((char for char in text if unicodedata.category(char) not in _INVISIBLE), "")
    return unicodedata.normalize("NFKC", first)[:1] in _FORMULA


def _cell(value: object, quote: bool) -> str:
    text = escape_cell(value) if isinstance(value, str) else "" if value is None else str(value)
    if not quote and _QUOTED.isdisjoint(text) and text[:1] != " " and text[-1:] != " ":
        return text
    return '"' + text.replace('"', '""') + '"'

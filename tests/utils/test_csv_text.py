import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.utils.csv_text import csv_bytes, csv_lines, escape_cell, parse_csv, read_csv, unescape_cell
from tests.variants import each

FORMULAS = [
    "=1+1",
    '=HYPERLINK("http://x","y")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tx",
    "\rx",
    "\nx",
    " =1",
    "\u00a0=1",
    "\ufeff=1",
    "\u200b@x",
    "\x00=1",
    "\udcff=1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20x",
    "\ufe661",
    "\u22121",
    "'",
    "'=1",
    "''",
    "'tis",
]
PLAIN = [
    "",
    "cat",
    "1",
    "a=b",
    "a'b",
    "a-b",
    "\u00e9=",
    "caf\udce9.jpg",
    " x",
    ".=",
    "/=x",
    "\u4e2d\u6587",
    "#1",
    "\u00bd",
]


@each("text", FORMULAS)
def test_a_text_that_a_spreadsheet_may_run_is_behind_an_apostrophe(text: str) -> None:
    assert escape_cell(text) == f"'{text}"
    assert unescape_cell(escape_cell(text)) == text


@each("text", PLAIN)
def test_any_other_text_stays(text: str) -> None:
    assert escape_cell(text) == text
    assert unescape_cell(text) == text


def test_an_apostrophe_of_an_older_table_stays() -> None:
    assert unescape_cell("'tis") == "'tis"


def test_numbers_are_not_texts() -> None:
    assert list(csv_lines([[-0.5, -1, None, 1e-7, "-0.5", True]])) == ["-0.5,-1,,1e-07,'-0.5,True\n"]


@each("cell", ["a,b", 'a"b', "a\nb", "a\rb", "a\tb", "a;b", " a", "a "])
def test_a_cell_is_quoted_where_a_reader_would_split_or_strip_it(cell: str) -> None:
    assert list(csv_lines([["x", cell]])) == ['x,"' + cell.replace('"', '""') + '"\n']


def test_a_row_of_one_empty_cell_is_a_row() -> None:
    assert parse_csv(csv_bytes([["path"], [""], ["x"]])) == [{"path": ""}, {"path": "x"}]


PIECES = [
    "=",
    "+",
    "-",
    "@",
    "'",
    '"',
    ",",
    ";",
    "\t",
    "\r",
    "\n",
    "\r\n",
    " ",
    "a",
    "\u00e9",
    "\uff1d",
    "\udcff",
    "\udc80",
]


CELLS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=80), quote_all=st.booleans())
def test_a_reader_gets_any_names_back(rows: list[list[str]], quote_all: bool, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(csv_bytes([["path", "label", "=note"], *rows], quote_all=quote_all))

    assert [list(row.values()) for row in read_csv(path)] == rows
    assert list(read_csv(path)[0]) == ["path", "label", "=note"]
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        _, *cells = csv.reader(file)
    assert [[cell.removeprefix("'") for cell in row] for row in cells] == rows
    assert not any(cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") for row in cells for cell in row)


def test_pandas_joins_as_documented(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "table.csv"
    names = ["=a.jpg", "'b.jpg", "NA", "1.0", "c,d.jpg"]
    path.write_bytes(csv_bytes([["path", "label"], *([name, "x"] for name in names)]))
    table = pandas.read_csv(path, dtype=str, keep_default_na=False)
    assert table["path"].str.removeprefix("'").tolist() == names


@each("data", [b"", b"a,b\n1\n", b"a,b\n1,2,3\n", b'a\n"x', b'a\n"x"y\n'])
def test_what_is_not_a_table_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"expected|unpack"):
        parse_csv(data)


def test_lines_are_what_csv_writes() -> None:
    rows = [["path", "n"], ["a b.jpg", 1], ["c,d", 0.25], ['say "x"', None]]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    assert "".join(csv_lines(rows)) == text.getvalue()

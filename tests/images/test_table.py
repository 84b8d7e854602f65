import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckWarning, ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.scan import scan
from bottleneck.images.table import find_listed
from tests.conftest import photo, write
from tests.variants import each

Rows = list[tuple[str, str | None, str | None, str | None]]
Table = Callable[..., Path]


@pytest.fixture
def table() -> Table:
    """Return a function that writes lines, or bytes, as a CSV and returns its path."""

    def make(*lines: str, data: bytes | None = None) -> Path:
        return write(Path.cwd() / "lists" / "images.csv", "\n".join(lines).encode() if data is None else data)

    return make


def rows(path: Path, *, labelled: bool = True) -> Rows:
    """Return the rows found, each path relative to the CSV's folder."""
    found = find_listed(path, labelled=labelled)
    names = [str(Path(name).relative_to(path.parent)) for name in found.paths]
    return list(zip(names, found.labels, found.splits, found.groups, strict=True))


def test_paths_are_relative_to_the_csv_absolute_or_upwards(table: Table, tmp_path: Path) -> None:
    path = table("path,label", "a.jpg,cat", "sub/b.jpg,dog")
    assert find_listed(path, labelled=True).paths == [str(path.parent / "a.jpg"), str(path.parent / "sub" / "b.jpg")]

    write(tmp_path / "up.jpg", photo(1))
    write(tmp_path / "elsewhere" / "far.jpg", photo(2))
    dataset = scan(table("path,label", "../up.jpg,cat", f"{tmp_path}/elsewhere/far.jpg,dog"))
    assert sorted(dataset.labels) == ["cat", "dog"]
    assert not dataset.failures

    path = table("path", "../up.jpg", "../gone/../far.jpg")
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to(path.parent)
    assert find_listed(path, labelled=False).paths == [str(tmp_path / "far.jpg"), str(tmp_path / "up.jpg")]


def test_a_row_counts_once_in_the_order_of_its_path_with_every_column(table: Table) -> None:
    assert [name for name, *_ in rows(table("path,label", "b.jpg,x", "c.jpg,y", "a.jpg,x"))] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]

    path = table("path,label,split,group", "a.jpg,cat,train,g1", "b.jpg,dog,test,g2", "c.jpg,dog,,")
    assert rows(path) == [
        ("a.jpg", "cat", "train", "g1"),
        ("b.jpg", "dog", "test", "g2"),
        ("c.jpg", "dog", None, None),
    ]

    path = table("path,label", "a.jpg,cat", "b.jpg,dog", "a.jpg,cat", " a.jpg,cat")
    assert rows(path) == [("a.jpg", "cat", None, None), ("b.jpg", "dog", None, None)]

    assert [label for _, label, *_ in rows(table("path,label", "a.jpg,dog", "a.jpg,cat"))] == ["cat", "dog"]

    path = table("path,label", 'a.jpg,"Paris, France"', 'b.jpg,"Paris, Texas"')
    assert [label for _, label, *_ in rows(path)] == ["Paris, France", "Paris, Texas"]


@each(
    "lines",
    [
        ("group,label,split,path", "g,cat,val,a.jpg"),
        ("path,width,label,group,split,note", "a.jpg,640,cat,g,val,nice"),
        (" Path , LABEL,Split,GROUP ", " a.jpg , cat,val, g "),
        ("path,label,split,group", '"a.jpg","cat","val","g"'),
        ("path,label,split,group", "", "a.jpg,cat,val,g", ""),
        ("path,label,split,group", "a.jpg,cat,val,g", ",,,", " , , , ", ""),
        ("path;label;split;group", "a.jpg;cat;val;g"),
        ("path\tlabel\tsplit\tgroup", "a.jpg\tcat\tval\tg"),
        ("sep=;", "path;label;split;group", "a.jpg;cat;val;g"),
        ("path,label,split,group,note", 'a.jpg,cat,val,g,"two\nlines, and a ""quoted"" word"'),
    ],
)
def test_columns_are_found_by_their_names(table: Table, lines: tuple[str, ...]) -> None:
    assert rows(table(*lines)) == [("a.jpg", "cat", "val", "g")]


@each("data", [b"\xef\xbb\xbfpath,label\na.jpg,cat\n", b"path,label\r\na.jpg,cat\r\n", b"path,label\na.jpg,cat"])
def test_what_spreadsheets_write_is_read(table: Table, data: bytes) -> None:
    assert rows(table(data=data)) == [("a.jpg", "cat", None, None)]


@each(
    "word, split",
    [
        ("train", "train"),
        ("training", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("validation", "val"),
        ("Validation", "val"),
        ("test", "test"),
        ("TESTING", "test"),
    ],
)
def test_splits_have_other_names(table: Table, word: str, split: str) -> None:
    assert rows(table("path,label,split", f"a.jpg,cat,{word}")) == [("a.jpg", "cat", split, None)]


@each("header", ["label,split", "file,label", "", "a.jpg,cat", "path|label"])
def test_a_missing_path_column_is_an_error_that_names_what_is_there(table: Table, header: str) -> None:
    with pytest.raises(ImagesError, match="expected the columns path,label") as error:
        find_listed(table(header, "a,b"), labelled=True)
    assert repr(header) in str(error.value)
    assert "images.csv" in str(error.value)


def test_without_labels_only_the_paths_are_read(table: Table) -> None:
    assert rows(table("path", "a.jpg", "b.jpg")) == [("a.jpg", None, None, None), ("b.jpg", None, None, None)]

    path = table("path,label,split,group", "a.jpg,,nonsense,g", "a.jpg,cat,train,h")
    assert rows(path, labelled=False) == [("a.jpg", None, None, None)]

    path = table("path,label,split", "a.jpg,,nonsense")
    write(path.parent / "a.jpg", photo(1))
    dataset = scan(path, labels=False)
    assert dataset.labels == (None,)
    assert dataset.given_splits == (None,)


def test_a_missing_file_is_a_failure_and_the_others_are_used(table: Table) -> None:
    path = table("path,label", "a.jpg,cat", "b.jpg,dog", "gone.jpg,dog", ".,dog")
    write(path.parent / "a.jpg", photo(1))
    write(path.parent / "b.jpg", photo(2))
    dataset = scan(path)
    assert dataset.labels == ("cat", "dog")
    assert {(Path(failure.path).name, failure.code) for failure in dataset.failures} == {
        ("gone.jpg", "unreadable"),
        ("lists", "unreadable"),
    }

    path = table("path,label", "a.gif,cat", "b.jpg,dog")
    write(path.parent / "a.gif", photo(1, kind="GIF"))
    write(path.parent / "b.jpg", photo(2))
    assert scan(path).labels == ("cat", "dog")

    path = table(data=b"path,label\ncaf\xe9.jpg,cat\nb.jpg,dog\n")
    write(path.parent / "b.jpg", photo(2))
    write(path.parent / os.fsdecode(b"caf\xe9.jpg"), photo(1))
    dataset = scan(path)
    assert dataset.labels == ("dog", "cat")
    assert not dataset.failures

    path = table("path,label,split,group", "a.jpg,cat,test,", "b.jpg,dog,,g", "c.jpg,dog,val,g")
    for number, name in enumerate("abc"):
        write(path.parent / f"{name}.jpg", photo(number))
    dataset = scan(path)
    assert dataset.groups == (None, "g", "g")
    assert dataset.splits == ("test", "val", "val")


@each("name", ["x" * 5000, "nul\0", "\0", "a\0\0b", "a\0/../b", "../\0/c", "x/../\0d/e"])
def test_a_path_that_no_file_can_have_is_a_failure_too(table: Table, name: str) -> None:
    path = table("path,label", "a.jpg,cat", "b.jpg,dog", f"{name}.jpg,dog")
    write(path.parent / "a.jpg", photo(1))
    write(path.parent / "b.jpg", photo(2))
    dataset = scan(path)
    assert dataset.labels == ("cat", "dog")
    assert [failure.code for failure in dataset.failures] == ["unreadable"]


def test_a_table_may_have_its_suffix_in_capitals(table: Table) -> None:
    table("path", "a.jpg").rename("LIST.CSV")
    write(Path("a.jpg"), photo(1))
    dataset = scan("LIST.CSV")
    assert [os.path.normpath(path) for path in dataset.paths] == ["a.jpg"]
    assert not dataset.failures


# Rows that are broken


@each(
    "text, said",
    [
        ("path,label,split\na.jpg,cat,\nb.jpg,,train\nc.jpg,dog,", r"images\.csv, line 3: expected a label for b\.jpg"),
        (
            "path,label,split\na.jpg,cat,\nb.jpg,  ,train\nc.jpg,dog,",
            r"images\.csv, line 3: expected a label for b\.jpg",
        ),
        ("path,label,split\na.jpg,cat,\nb.jpg,,\nc.jpg,dog,", r"images\.csv, line 3: expected a label for b\.jpg"),
        ("path,label\na.jpg,cat\n\n,dog", r"images\.csv, line 4: expected a path"),
        (
            "path,label,split\na.jpg,cat,train\nb.jpg,dog,dev",
            r"images\.csv, line 3: expected a split train, val or test, found 'dev'",
        ),
        ("path,label\n" + "x" * 200_000 + ",cat", "expected a CSV"),
        ("a.jpg,cat\nb.jpg,dog", "in the first line"),
        ("path,lable\na.jpg,a", "path,lable"),  # and it is no list of images without labels
        ("path,label\na.jpg,cat", r"at least two classes .* found one: 'cat'"),
        ("path,label", "found none"),
        ("path,label\na.jpg,cat\n".encode("utf-16"), "expected UTF-8, found UTF-16"),
        (b"path,label,group\na.jpg,caf\xe9,g\n", "line 2: expected UTF-8, found other bytes"),
        (b"path,label,group\na.jpg,cat,caf\xe9\n", "line 2: expected UTF-8, found other bytes"),
    ],
)
def test_a_table_that_is_broken_is_an_error_that_names_the_line(table: Table, text: str | bytes, said: str) -> None:
    with pytest.raises(ImagesError, match=said):
        scan(table(data=text.encode() if isinstance(text, str) else text))


@each(
    "row, found",
    [
        ("b.jpg", 1),
        ("x,y.jpg,dog", 3),
        ("b.jpg,dog,", 3),
        ("b.jpg;dog", 1),
        ('"b.jpg,dog"', 1),
        ("b.jpg,dog,train,x", 4),
    ],
)
@each("labelled", [True, False])
def test_a_row_of_another_length_is_an_error_that_names_the_line(
    table: Table, row: str, found: int, labelled: bool
) -> None:
    with pytest.raises(ImagesError, match=rf"images\.csv, line 4: expected 2 cells, .* found {found}:"):
        find_listed(table("path,label", "a.jpg,cat", "", row, "c.jpg,dog"), labelled=labelled)


@each(
    "header, row, hint",
    [
        ("path,label", "b.jpg,Paris, France", "quote cells that contain a separator"),
        ("path;label", "b.jpg;Paris; France", "quote cells that contain a separator"),
        ("path\tlabel", "b.jpg\tParis\tFrance", "quote cells that contain a separator"),
        ("path", "b,c.jpg", "quote cells that contain a separator"),
        ("path,label", "b.jpg,Paris\\, France", "quote cells that contain a separator"),
        ("path,label", 'b.jpg, "Paris, France"', "follow the separator directly, without a space"),
        ("path,label", "b.jpg;Paris", "rows need the separator of the header"),
        ("path;label", "b.jpg,Paris", "rows need the separator of the header"),
    ],
)
def test_a_row_of_another_length_is_an_error_that_says_what_to_do(
    table: Table, header: str, row: str, hint: str
) -> None:
    path = table(header, row)
    for labelled in (True, False):
        with pytest.raises(ImagesError, match=rf"line 2: expected \d cells?, as in the header, found \d: .*; .*{hint}"):
            find_listed(path, labelled=labelled)


@each("column", ["label", "group"])
def test_names_that_differ_by_spaces_around_them_are_one_and_are_reported(table: Table, column: str) -> None:
    other = {"label": "group", "group": "label"}[column]
    path = table(f"path,{column},{other}", "a.jpg,Rome ,x", "b.jpg,Rome,y", 'c.jpg," Rome",x', "d.jpg,Oslo,x")
    for name in "abcd":
        write(path.parent / f"{name}.jpg", photo(ord(name)))
    with pytest.warns(BottleneckWarning, match="with and without spaces around them count as one: Rome$"):
        dataset = scan(path)
    assert set(dataset.labels if column == "label" else dataset.groups) == {"Rome", "Oslo"}


def test_spaces_behind_every_separator_are_no_remark(table: Table, recwarn: pytest.WarningsRecorder) -> None:
    path = table("path, label", "a.jpg, cat", "b.jpg, dog")
    for name in "ab":
        write(path.parent / f"{name}.jpg", photo(ord(name)))
    assert scan(path).classes == ("cat", "dog")
    assert not recwarn.list


# Tables that bottleneck wrote


@each("header", ["path,digest,label", "path,label,digest", "code,path,label,digest"])
def test_cells_of_a_table_written_by_bottleneck_are_restored(table: Table, header: str) -> None:
    cells = {"path": "'=a.jpg", "digest": "00", "label": "''tis", "code": ""}
    path = table(header, ",".join(cells[name] for name in header.split(",")))
    write(path.parent / "=a.jpg", photo(1))
    assert rows(path) == [("=a.jpg", "'tis", None, None)]


def test_an_apostrophe_or_a_line_break_may_be_part_of_a_name(table: Table) -> None:
    assert rows(table("path,label", "'=a.jpg,''tis")) == [("'=a.jpg", "''tis", None, None)]

    path = table("path,digest", "'=a.jpg,")
    write(path.parent / "'=a.jpg", photo(1))
    assert [name for name, *_ in rows(path, labelled=False)] == ["'=a.jpg"]

    path = table("path", '"two\nlines.jpg"')
    write(path.parent / "two\nlines.jpg", photo(1))
    assert [name for name, *_ in rows(path)] == ["two\nlines.jpg"]


@each(
    "lines, first, last",
    [
        (("a.jpg,cat", '"b.jpg,dog', "c.jpg,cat", '"d.jpg,dog'), 3, 5),
        (("a.jpg,cat", 'b.jpg,"dog', "c.jpg,cat"), 3, 4),
        (('a.jpg,"cat"s', "b.jpg,dog"), 2, 2),
        (('a.jpg,"cat', 'b.jpg,"dog"'), 2, 3),
    ],
)
def test_a_stray_quotation_mark_is_an_error_that_names_its_line(
    table: Table, lines: tuple[str, ...], first: int, last: int
) -> None:
    with pytest.raises(ImagesError, match=rf"line {first}: expected quotation marks in pairs .* by line {last}:"):
        find_listed(table("path,label", *lines), labelled=True)


@each(
    "header, lines, said",
    [
        ("path,label", ('a.jpg,"cat', 'b.jpg,dog"'), "line 2: expected the label on one line, found a cell of"),
        ("label,path", ('cat,"a.jpg', 'dog,b.jpg"'), "line 2: expected the path on one line"),
        (
            "path,label,note",
            ('a.jpg,cat,"nice', "b.jpg,dog,x", 'c.jpg,cat,y"'),
            "line 2: expected the note on one",
        ),
        (
            "path,label",
            ('"a.jpg,cat', 'b.jpg,dog"'),
            "line 2: expected 2 cells, .* mark joins lines 2 to 3",
        ),
    ],
)
def test_quotation_marks_that_swallow_rows_are_an_error(
    table: Table, header: str, lines: tuple[str, ...], said: str
) -> None:
    path = table(header, *lines)
    for name in "abc":
        write(path.parent / f"{name}.jpg", photo(1))
    with pytest.raises(ImagesError, match=said):
        find_listed(path, labelled=True)


@each("name", [" a.jpg", "a.jpg ", "a.jpg\u3000"])
def test_a_name_with_a_space_at_its_end_is_found(table: Table, name: str) -> None:
    path = table("path", name)
    write(path.parent / name, photo(1))
    assert [found for found, *_ in rows(path)] == [name]


# Names in any script


@each(
    "label",
    [
        "Canis\u00a0lupus",
        "\u0645\u06cc\u200c\u0634",
        "\u0d28\u0d4d\u200d",
        "\u6771\u4eac\u3000\u99c5",
        "Wald\u00adkauz",
        "\U0001f469\u200d\U0001f680",
        "a\u2028b",
        "\ue000",
        "bell\x07",
    ],
)
def test_every_label_of_valid_utf_8_is_taken(table: Table, label: str) -> None:
    assert rows(table("path,label,group", f"a.jpg,{label},{label}")) == [("a.jpg", label, None, label)]


def test_a_home_in_a_cell_is_found(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = table("path", "~/a.jpg", "~b.jpg", "~no-such-user.jpg")
    write(path.parent / "~b.jpg", photo(1))
    assert find_listed(path, labelled=True).paths == sorted(
        [str(path.parent / "~b.jpg"), str(path.parent / "~no-such-user.jpg"), str(tmp_path / "a.jpg")]
    )


# Columns of other names


def test_a_column_is_chosen_by_its_exact_name_or_an_option(table: Table) -> None:
    path = table("image,species,fold,patient,label", "a.jpg,cat,train,p1,7", "b.jpg,dog,test,p2,8")
    found = find_listed(path, labelled=True, columns=Columns("image", "species", "fold", "patient"))
    assert found.labels == ["cat", "dog"]
    assert found.splits == ["train", "test"]
    assert found.groups == ["p1", "p2"]
    assert found.remarks == []

    found = find_listed(table("path,label,is_valid", "a.jpg,cat,True"), labelled=True)
    assert found.splits == [None]
    assert len(found.remarks) == 1
    assert "column not used: is_valid (a split? --split-column is_valid)" in found.remarks[0]

    found = find_listed(table("path,Label,label", "a.jpg,1,cat", "b.jpg,2,dog"), labelled=True)
    assert found.labels == ["cat", "dog"]
    assert "Label" in found.remarks[0]


@each("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir), lambda path: path.symlink_to("/dev/zero")])
def test_a_table_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "table.csv")
    with pytest.raises(ImagesError, match="cannot read the table"):
        find_listed(tmp_path / "table.csv", labelled=False)

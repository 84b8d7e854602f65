import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import ImagesError
from bottleneck.images.scan import scan
from bottleneck.images.table import find_listed
from tests.conftest import photo, write

Rows = list[tuple[str, str | None, str | None, str | None]]
Table = Callable[..., Path]
NUL_IS_NO_CSV = pytest.mark.skipif(sys.version_info < (3, 11), reason="csv refuses the whole file before Python 3.11")


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Return a function that writes lines, or bytes, as a CSV and returns its path."""

    def make(*lines: str, data: bytes | None = None) -> Path:
        return write(tmp_path / "lists" / "images.csv", "\n".join(lines).encode() if data is None else data)

    return make


def rows(path: Path, *, labelled: bool = True) -> Rows:
    """Return the rows found, each path relative to the CSV's folder."""
    found = find_listed(path, labelled=labelled)
    names = [str(Path(name).relative_to(path.parent)) for name in found.paths]
    return list(zip(names, found.labels, found.splits, found.groups, strict=True))


def test_paths_are_relative_to_the_csv(table: Table) -> None:
    path = table("path,label", "a.jpg,cat", "sub/b.jpg,dog")
    assert find_listed(path, labelled=True).paths == [str(path.parent / "a.jpg"), str(path.parent / "sub" / "b.jpg")]


def test_absolute_paths_and_paths_upwards_are_taken(table: Table, tmp_path: Path) -> None:
    write(tmp_path / "up.jpg", photo(1))
    write(tmp_path / "elsewhere" / "far.jpg", photo(2))
    dataset = scan(table("path,label", "../up.jpg,cat", f"{tmp_path}/elsewhere/far.jpg,dog"))
    assert sorted(dataset.labels) == ["cat", "dog"]
    assert not dataset.failures


def test_rows_are_in_the_order_of_their_paths(table: Table) -> None:
    assert [name for name, *_ in rows(table("path,label", "b.jpg,x", "c.jpg,y", "a.jpg,x"))] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
    ]


def test_every_column_is_read(table: Table) -> None:
    path = table("path,label,split,group", "a.jpg,cat,train,g1", "b.jpg,dog,test,g2", "c.jpg,dog,,")
    assert rows(path) == [
        ("a.jpg", "cat", "train", "g1"),
        ("b.jpg", "dog", "test", "g2"),
        ("c.jpg", "dog", None, None),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("group,label,split,path", "g,cat,val,a.jpg"),
        ("path,width,label,group,split,note", "a.jpg,640,cat,g,val,nice"),
        (" Path , LABEL,Split,GROUP ", " a.jpg , cat,val, g "),
        ("path,label,split,group", '"a.jpg","cat","val","g"'),
        ("path,label,split,group", "", "a.jpg,cat,val,g", ""),
        ("path,label,split,group", "a.jpg,cat,val,g,more,cells"),
    ],
    ids=["order", "extra", "spaces", "quoted", "blank lines", "long rows"],
)
def test_columns_are_found_by_their_names(table: Table, lines: tuple[str, ...]) -> None:
    assert rows(table(*lines)) == [("a.jpg", "cat", "val", "g")]


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbfpath,label\na.jpg,cat\n", b"path,label\r\na.jpg,cat\r\n", b"path,label\na.jpg,cat"],
    ids=["BOM", "CRLF", "no last newline"],
)
def test_what_spreadsheets_write_is_read(table: Table, data: bytes) -> None:
    assert rows(table(data=data)) == [("a.jpg", "cat", None, None)]


@pytest.mark.parametrize(
    ("word", "split"),
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


def test_a_row_that_stands_twice_counts_once(table: Table) -> None:
    path = table("path,label", "a.jpg,cat", "b.jpg,dog", "a.jpg,cat", " a.jpg,cat")
    assert rows(path) == [("a.jpg", "cat", None, None), ("b.jpg", "dog", None, None)]


def test_a_path_under_two_labels_stands_twice(table: Table) -> None:
    assert [label for _, label, *_ in rows(table("path,label", "a.jpg,dog", "a.jpg,cat"))] == ["cat", "dog"]


@pytest.mark.parametrize("header", ["label,split", "file,label", "", "a.jpg,cat", "path;label"])
def test_a_missing_path_column_is_an_error_that_names_what_is_there(table: Table, header: str) -> None:
    with pytest.raises(ImagesError, match="expected the columns path,label") as error:
        find_listed(table(header, "a,b"), labelled=True)
    assert repr(header) in str(error.value)
    assert "images.csv" in str(error.value)


def test_a_csv_without_labels_is_a_list_of_images(table: Table) -> None:
    assert rows(table("path", "a.jpg", "b.jpg")) == [("a.jpg", None, None, None), ("b.jpg", None, None, None)]


def test_without_labels_only_the_paths_are_read(table: Table) -> None:
    path = table("path,label,split,group", "a.jpg,,nonsense,g", "a.jpg,cat,train,h")
    assert rows(path, labelled=False) == [("a.jpg", None, None, None)]


@pytest.mark.parametrize("row", ["b.jpg,,train", "b.jpg,  ,train", "b.jpg"])
def test_an_empty_label_is_an_error_that_names_the_line(table: Table, row: str) -> None:
    with pytest.raises(ImagesError, match=r"images\.csv, line 3: expected a label for b\.jpg"):
        find_listed(table("path,label,split", "a.jpg,cat,", row, "c.jpg,dog,"), labelled=True)


def test_an_empty_path_is_an_error_that_names_the_line(table: Table) -> None:
    with pytest.raises(ImagesError, match=r"images\.csv, line 4: expected a path"):
        find_listed(table("path,label", "a.jpg,cat", "", ",dog"), labelled=True)


def test_an_unknown_split_is_an_error_that_names_the_line(table: Table) -> None:
    with pytest.raises(ImagesError, match=r"images\.csv, line 3: expected a split train, val or test, found 'dev'"):
        find_listed(table("path,label,split", "a.jpg,cat,train", "b.jpg,dog,dev"), labelled=True)


def test_what_is_no_csv_is_an_error(table: Table) -> None:
    with pytest.raises(ImagesError, match="expected a CSV"):
        find_listed(table("path,label", "x" * 200_000 + ",cat"), labelled=True)


def test_a_scan_without_labels_reads_only_the_paths(table: Table) -> None:
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


@pytest.mark.parametrize("name", ["x" * 5000, pytest.param("nul\0", marks=NUL_IS_NO_CSV)])
def test_a_path_that_no_file_can_have_is_a_failure_too(table: Table, name: str) -> None:
    path = table("path,label", "a.jpg,cat", "b.jpg,dog", f"{name}.jpg,dog")
    write(path.parent / "a.jpg", photo(1))
    write(path.parent / "b.jpg", photo(2))
    dataset = scan(path)
    assert dataset.labels == ("cat", "dog")
    assert [failure.code for failure in dataset.failures] == ["unreadable"]


def test_a_gif_that_is_listed_is_used(table: Table) -> None:
    path = table("path,label", "a.gif,cat", "b.jpg,dog")
    write(path.parent / "a.gif", photo(1, kind="GIF"))
    write(path.parent / "b.jpg", photo(2))
    assert scan(path).labels == ("cat", "dog")


def test_a_name_that_is_not_utf_8_is_found(table: Table) -> None:
    path = table(data=b"path,label\ncaf\xe9.jpg,cat\nb.jpg,dog\n")
    write(path.parent / "b.jpg", photo(2))
    write(path.parent / os.fsdecode(b"caf\xe9.jpg"), photo(1))
    dataset = scan(path)
    assert dataset.labels == ("dog", "cat")
    assert not dataset.failures


def test_given_splits_and_groups_reach_the_dataset(table: Table) -> None:
    path = table("path,label,split,group", "a.jpg,cat,test,", "b.jpg,dog,,g", "c.jpg,dog,val,g")
    for number, name in enumerate("abc"):
        write(path.parent / f"{name}.jpg", photo(number))
    dataset = scan(path)
    assert dataset.groups == (None, "g", "g")
    assert dataset.splits == ("test", "val", "val")


def test_one_class_is_an_error(table: Table) -> None:
    path = table("path,label", "a.jpg,cat")
    write(path.parent / "a.jpg", photo(1))
    with pytest.raises(ImagesError, match=r"at least two classes .* found one: 'cat'"):
        scan(path)


def test_a_csv_with_no_rows_is_an_error(table: Table) -> None:
    with pytest.raises(ImagesError, match="found none"):
        scan(table("path,label"))


def test_the_suffix_may_be_written_large(table: Table) -> None:
    table("path", "a.jpg").rename("LIST.CSV")
    write(Path("a.jpg"), photo(1))
    dataset = scan("LIST.CSV")
    assert [os.path.normpath(path) for path in dataset.paths] == ["a.jpg"]
    assert not dataset.failures


def test_a_misspelt_label_column_is_an_error_and_not_a_list_of_images(folder):
    root = folder({"a.jpg": 1, "list.csv": b"path,lable\na.jpg,a\n"})
    with pytest.raises(ImagesError, match="path,lable"):
        scan(root / "list.csv")

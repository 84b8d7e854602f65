import pytest

from bottleneck.errors import ImagesError
from bottleneck.images.columns import Columns, Header, read_header
from tests.variants import each


def header(text: str, columns: Columns | None = None, *, labelled: bool = True) -> Header:
    return read_header("images.csv", text.split(","), columns or Columns(), labelled=labelled)


def remark(text: str, columns: Columns | None = None, *rows: str) -> str | None:
    return header(text, columns).remark("images.csv", [row.split(",") for row in rows])


@each(
    "name",
    ["is_valid", "valid", "subset", "fold", "set", "partition", "phase", "isValid", "Usage", "is test", "data-split"],
)
def test_a_name_that_looks_like_a_split_is_told(name: str) -> None:
    assert f"{name} (a split? --split-column " in str(remark(f"path,label,{name}"))


@each("name", ["class", "category", "target", "species", "y", "Label", "LABEL ", "class_name"])
def test_a_name_that_looks_like_a_label_is_told(name: str) -> None:
    assert f"{name.strip()} (a label? --label-column " in str(remark(f"path,label,{name}"))


@each("name", ["patient", "PatientID", "subject_id", "video", "video id", "Scene", "studyid"])
def test_a_name_that_looks_like_a_group_is_told(name: str) -> None:
    assert f"{name} (a group? --group-column " in str(remark(f"path,label,{name}"))


@each("name", ["width", "note", "id", "date", "image", "", "validity", "bid"])
def test_other_names_are_no_reason_to_speak(name: str) -> None:
    assert remark(f"path,label,{name}") is None


def test_a_role_that_the_user_has_named_is_not_asked_about() -> None:
    text = "path,label,fold,subset"
    assert remark(text, Columns(split="fold")) is None
    assert "2 more" in str(remark("path,label,a,fold,subset,set,phase,patient"))


def test_without_labels_only_the_path_is_looked_for() -> None:
    found = header("path,lable,fold", labelled=False)
    assert found.places == {"path": 0}
    assert not found.unused


@each("name", ["species", "Species", " SPECIES "])
def test_a_named_column_may_be_written_in_another_case(name: str) -> None:
    assert header("path,species", Columns(label=name)).places == {"path": 0, "label": 1}


@each(
    "text, columns, said",
    [
        ("path,label", Columns(split="fold"), "expected a column 'fold' for --split-column, found path, label"),
        ("path,label,label", Columns(), "expected one column 'label', found 2"),
        ("path,a,Species,SPECIES", Columns(label="species"), "expected one column 'species', found 2"),
        ("image,species", Columns(), "--path-column image --label-column species"),
        ("path,the class", Columns(), r"found 'path,the class'$"),
        ("path,Class Name", Columns(), "--label-column 'Class Name'"),
    ],
)
def test_a_column_that_is_missing_or_twice_is_an_error(text: str, columns: Columns, said: str) -> None:
    with pytest.raises(ImagesError, match=said):
        header(text, columns)


@each(
    "column, yes, no",
    [
        ("is_valid", "val", "train"),
        ("valid", "val", "train"),
        ("is_test", "test", "train"),
        ("isTrain", "train", "test"),
    ],
)
def test_a_column_may_say_yes_or_no(column: str, yes: str, no: str) -> None:
    found = header(f"path,label,{column}", Columns(split=column))
    assert [found.split(word) for word in ("True", "1", "yes", " TRUE", "1.0")] == [yes] * 5
    assert [found.split(word) for word in ("False", "0", "no", "f")] == [no] * 4
    assert found.split("validation") == "val"
    assert found.split("2") is None


def test_yes_or_no_means_nothing_in_another_column() -> None:
    assert header("path,label,fold", Columns(split="fold")).split("1") is None


def test_columns_are_written_down_and_read_again() -> None:
    columns = Columns(label="the class", split="fold", path="")
    assert columns.to_json() == {"label": "the class", "split": "fold"}
    assert Columns.from_json(columns.to_json()) == Columns(label="the class", split="fold")
    assert Columns.from_json({"label": None, "other": 1}) == Columns()
    assert columns.options() == "--label-column 'the class' --split-column fold"
    assert columns
    assert not Columns(path="")


@each(
    "column, cells, fits",
    [
        ("fold", ("0", "1", "2"), False),
        ("fold", ("train", "", "Test"), True),
        ("subset", ("train", "dev"), False),
        ("is_valid", ("True", "False"), True),
        ("is_valid", ("0", "1"), True),
    ],
)
def test_a_split_is_offered_where_its_cells_are_splits(column: str, cells: tuple[str, ...], fits: bool) -> None:
    said = str(remark(f"path,label,{column}", None, *(f"a.jpg,cat,{cell}" for cell in cells)))
    offered = column if fits else "takes train, val and test"
    assert f"column not used: {column} (a split? --split-column {offered})" in said

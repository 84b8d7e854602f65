import pytest

from bottleneck.errors import ImagesError
from bottleneck.images.columns import Columns, Header, read_header
from tests.variants import each


def header(text: str, columns: Columns | None = None, *, labelled: bool = True) -> Header:
    return read_header("images.csv", text.split(","), columns or Columns(), labelled=labelled)


def remark(text: str, columns: Columns | None = None, *rows: str) -> str | None:
    return header(text, columns).remark("images.csv", [row.split(",") for row in rows])


ROLES = {
    "split": [
        "is_valid",
        "valid",
        "subset",
        "fold",
        "set",
        "partition",
        "phase",
        "isValid",
        "Usage",
        "data-split",
        "is test",
    ],
    "label": ["class", "category", "target", "species", "y", "Label", "LABEL ", "class_name"],
    "group": ["patient", "PatientID", "subject_id", "video", "video id", "Scene", "studyid"],
}


@each("role, name", [(role, name) for role, names in ROLES.items() for name in names])
def test_an_unused_column_that_looks_like_a_role_is_named(role: str, name: str) -> None:
    assert f"{name.strip()} (a {role}? --{role}-column " in str(remark(f"path,label,{name}"))


@each("name", ["width", "note", "id", "date", "image", "", "validity", "bid"])
def test_other_unused_columns_are_not_named(name: str) -> None:
    assert remark(f"path,label,{name}") is None


def test_only_the_columns_of_unnamed_roles_are_looked_for() -> None:
    text = "path,label,fold,subset"
    assert remark(text, Columns(split="fold")) is None
    assert "2 more" in str(remark("path,label,a,fold,subset,set,phase,patient"))

    found = header("path,lable,fold", labelled=False)
    assert found.places == {"path": 0}
    assert not found.unused

    for name in ["species", "Species", " SPECIES "]:
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


def test_a_column_may_say_yes_or_no() -> None:
    for column, yes, no in [
        ("is_valid", "val", "train"),
        ("valid", "val", "train"),
        ("is_test", "test", "train"),
        ("isTrain", "train", "test"),
    ]:
        found = header(f"path,label,{column}", Columns(split=column))
        assert [found.split(word) for word in ("True", "1", "yes", " TRUE", "1.0")] == [yes] * 5
        assert [found.split(word) for word in ("False", "0", "no", "f")] == [no] * 4
        assert found.split("validation") == "val"
        assert found.split("2") is None

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

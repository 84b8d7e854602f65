import os
from pathlib import Path

import pytest

from bottleneck.errors import ImagesError, PathError
from bottleneck.images.given import given_by, list_given, names_in_table
from bottleneck.images.scan import read_unknown, scan
from tests.variants import each

FILES = {"cat/a.jpg": 1, "cat/deep/b.jpg": 2, "dog/c.jpg": 3, "loose.jpg": 4}
BELOW = ("cat/a.jpg", "cat/deep/b.jpg", "dog/c.jpg", "loose.jpg")


def listed(*images, **options):
    return list_given([str(image) for image in images], exclude=(), **options)


def table(path, *rows, header="path"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@each(
    "text, before",
    [
        ("images", "images/"),
        ("images/", "images/"),
        ("./images", "./images/"),
        ("images//", "images//"),
        ("sub/../images", "sub/../images/"),
        ("link", "link/"),
    ],
)
def test_what_lies_below_a_folder_is_named_from_the_folder_as_it_is_given(folder, text, before):
    folder(FILES)
    Path("sub").mkdir()
    Path("link").symlink_to("images")
    found = listed(text)
    assert found.names == tuple(before + name for name in BELOW)
    assert all(Path(file).is_file() for file in found.files)


def test_an_absolute_folder_and_the_current_one(folder, monkeypatch):
    root = folder(FILES)
    assert listed(root).names == tuple(str(root / name) for name in BELOW)
    monkeypatch.chdir(root)
    assert listed(".").names == tuple(f"./{name}" for name in BELOW)


def test_a_home_is_one_and_stays_written_as_it_is(folder, tmp_path, monkeypatch):
    root = folder(FILES)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = listed("~/images", "~/images/loose.jpg")
    assert found.names == (*(f"~/images/{name}" for name in BELOW), "~/images/loose.jpg")
    assert found.files[-1] == str(root / "loose.jpg")


@each(
    "cell",
    ["../images/loose.jpg", ".././images//loose.jpg", " ../images/loose.jpg ", '"../images/loose.jpg"', "ABSOLUTE"],
)
def test_a_row_of_a_csv_has_the_cell_as_its_name(folder, tmp_path, cell):
    root = folder(FILES)
    written = cell.replace("ABSOLUTE", str(root / "loose.jpg"))
    found = listed(table(tmp_path / "sub" / "list.csv", written))
    assert found.names == (written.strip('"'),)
    assert os.path.samefile(found.files[0], root / "loose.jpg")


def test_rows_keep_their_order_and_repeated_ones_stay(folder, tmp_path):
    folder(FILES)
    rows = ["images/dog/c.jpg", "images/gone.jpg", "images/cat/a.jpg", "images/dog/c.jpg"]
    found = listed(table(tmp_path / "list.csv", *rows))
    assert found.names == tuple(rows)
    index = found.index(None)
    assert index.paths == list(dict.fromkeys(found.files)), "each file is read once"


def test_folders_tables_and_files_may_be_mixed_and_keep_their_order(folder, tmp_path):
    folder(FILES)
    table(tmp_path / "list.csv", "images/cat/a.jpg,ant", "images/loose.jpg,", header="path,label")
    found = listed("images/loose.jpg", "list.csv", "images/cat", "images/loose.jpg")
    assert found.names == (
        "images/loose.jpg", "images/cat/a.jpg", "images/loose.jpg", "images/cat/a.jpg", "images/cat/deep/b.jpg",
        "images/loose.jpg",
    )  # fmt: skip
    assert [(origin.kind, len(origin.labels)) for origin in found.origins] == [
        ("file", 1), ("table", 2), ("folder", 2), ("file", 1)
    ]  # fmt: skip
    assert found.labels == (None, "ant", None, None, "deep", None)


def test_class_folders_are_labels_through_splits_too(folder):
    folder({f"{split}/{name}/{split}.jpg": 1 for split in ("train", "test") for name in ("cat", "dog")})
    assert listed("images").labels == ("cat", "dog", "cat", "dog")
    assert set(listed("images", labelled=False).labels) == {None}


def test_what_cannot_be_read_has_its_place_among_the_files(folder):
    root = folder(FILES)
    (root / "cat" / "b.jpg").symlink_to("nowhere")
    found = listed("images")
    assert found.names == tuple(f"images/{name}" for name in ("cat/a.jpg", "cat/b.jpg", *BELOW[1:]))
    (failure,) = found.failures
    assert failure.path == "images/cat/b.jpg"
    index = found.index(None)
    read_unknown(index)
    assert len(index.dataset()) == 4
    assert [one.path for one in index.dataset().failures] == ["images/cat/b.jpg"]


def test_a_path_that_does_not_exist_is_an_error_alone_and_a_failure_among_others() -> None:
    with pytest.raises(ImagesError, match="does not exist"):
        listed("gone.jpg")
    assert listed("gone.jpg", "lost.jpg").names == ("gone.jpg", "lost.jpg")

    with pytest.raises(PathError, match="no home folder"):
        listed("~nobody-here/x.jpg")
    found = listed("~nobody-here/x.jpg", "lost.jpg")
    assert found.names == ("~nobody-here/x.jpg", "lost.jpg")
    assert [failure.path for failure in found.failures] == ["~nobody-here/x.jpg"]


@each("images", [[], ["empty"], ["none.csv"], ["broken.csv"]])
def test_nothing_and_what_is_broken_are_errors(images, tmp_path):
    (tmp_path / "empty").mkdir()
    table(tmp_path / "none.csv")
    table(tmp_path / "broken.csv", "x.jpg", "", '"",a', header="path,label")
    with pytest.raises(ImagesError, match="expected"):
        listed(*images)


def test_a_dataset_keeps_its_order_and_its_failures_come_last(folder):
    folder({"b/x.jpg": 1, "a/y.jpg": 2})
    Path("images/a/0.jpg").symlink_to("nowhere")
    given = given_by(scan("images", cache=None))
    assert given.names == ("images/a/y.jpg", "images/b/x.jpg", "images/a/0.jpg")
    assert given.labels == ("a", "b", None)


@each("absolute", [True, False])
def test_paths_of_a_scanned_csv_are_known_by_their_cells(folder, tmp_path, absolute):
    folder(FILES)
    rows = ["../images/cat/a.jpg,a", "./../images/dog/c.jpg,b", "../images/gone.jpg,b"]
    source = table(tmp_path / "sub" / "list.csv", *rows, header="path,label")
    dataset = scan(source if absolute else source.relative_to(tmp_path), cache=None)
    names = names_in_table(dataset)
    assert sorted(names.values()) == sorted(row.split(",")[0] for row in rows)
    assert set(names) == {*dataset.paths, *(failure.path for failure in dataset.failures)}
    source.unlink()
    assert names_in_table(dataset) == {}
    assert names_in_table(scan("images", cache=None)) == {}

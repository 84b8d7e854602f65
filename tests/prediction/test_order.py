"""Predictions come out in the order in which images go in, one for each."""

from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import ImagesError
from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.images.scan import scan
from bottleneck.prediction.predict import predict
from tests.conftest import photo


def test_a_csv_gives_a_row_for_each_of_its_rows(run):
    rows = ["../images/b/1.jpg", "../images/gone.jpg", "../images/a/2.jpg", "../images/b/1.jpg", "../images/gone.jpg"]
    Path("sub").mkdir()
    Path("sub/list.csv").write_text("id,path\n" + "".join(f"{n},{row}\n" for n, row in enumerate(rows)))
    found = predict("sub/list.csv")
    assert [item.path for item in found] == rows
    assert [item.label is None for item in found] == [False, True, False, False, True]
    assert found[0] == found[3]
    assert [failure.path for failure in found.failures] == ["../images/gone.jpg"] * 2


def test_several_paths_in_their_order(run):
    paths = ["images/b/3.jpg", "images/a/3.jpg", "images/b/3.jpg", "images/lost.jpg"]
    for kind in (list, tuple, np.array, lambda paths: (Path(path) for path in paths)):
        found = predict(kind(paths))
        assert [item.path for item in found] == paths, kind
        assert [item.label is None for item in found] == [False, False, False, True]


def test_paths_may_be_a_pandas_series(run):
    frame = pytest.importorskip("pandas").DataFrame({"id": [7, 8], "path": ["images/b/3.jpg", "images/a/3.jpg"]})
    for images in (frame.path, frame):
        assert [item.path for item in predict(images)] == list(frame.path)


def test_each_row_has_the_prediction_of_its_image(run):
    dataset = scan("images")
    labels = dict(zip(dataset.paths, predict(dataset), strict=True))
    paths = sorted(dataset.paths, key=lambda path: (path[-5:], path), reverse=True)
    for item in predict(paths):
        assert (item.label, item.probability) == (labels[item.path].label, labels[item.path].probability)


def test_a_dataset_gives_its_rows_and_its_failures_last(run, folder):
    folder({"a/0bad.jpg": b"<html>"})
    Path("images/a/00.jpg").symlink_to("nowhere")
    found = predict(scan("images"))
    assert [Path(item.path).name for item in found if item.label is None] == ["0bad.jpg", "00.jpg"]
    assert Path(found[-1].path).name == "00.jpg"


def test_a_copy_and_a_link_have_separate_rows(run, folder):
    folder({"x.jpg": 900, "y.jpg": 900}, name="new")
    Path("new/z.jpg").symlink_to("x.jpg")
    found = predict("new")
    assert [item.path for item in found] == ["new/x.jpg", "new/y.jpg", "new/z.jpg"]
    assert len({(item.digest, item.probability) for item in found}) == 1


def test_no_path_and_an_empty_name_are_errors(run):
    for images in ([], ()):
        with pytest.raises(ImagesError, match="got none"):
            predict(images)
    for images in ("", [""], ["images", ""]):  # an empty name is not the current folder
        with pytest.raises(ImagesError, match="an empty name"):
            predict(images)


def test_unusable_paths_have_rows(run, folder):
    folder({"bad.jpg": photo(1)[:200]}, name="new")
    found = predict(["new/bad.jpg", "new/lost.jpg"])
    assert [(item.path, item.failure.code) for item in found] == [
        ("new/bad.jpg", "truncated"), ("new/lost.jpg", "unreadable"),
    ]  # fmt: skip


def test_predictions_and_exports_can_be_joined_to_their_csv(run):
    from bottleneck.cache.export import export

    Path("sub").mkdir()
    rows = [f"./../{path},{Path(path).parent.name}" for path in sorted(map(str, Path("images").rglob("*.jpg")))]
    Path("sub/list.csv").write_text("path,label\n" + "\n".join([*rows, "../gone.jpg,b"]) + "\n")
    done = extract("sub/list.csv")
    cells = {row.split(",")[0] for row in rows}
    held_out = [line.split(",")[0] for line in (fit().path / "predictions.csv").read_text().splitlines()[1:]]
    assert held_out
    assert set(held_out) <= cells
    export(done.store, done.usable, "features.npz")
    assert set(np.load("features.npz")["path"].tolist()) == cells
    assert '"../gone.jpg"' in done.failures_table.read_text()


def test_named_columns_of_a_table_are_remembered_and_can_be_replaced(run):
    rows = [f"{path},{Path(path).parent.name}" for path in sorted(map(str, Path("images").rglob("*.jpg")))]
    Path("list.csv").write_text("file,kind\n" + "\n".join(rows) + "\n")
    with pytest.raises(ImagesError, match="--path-column file"):
        predict("list.csv")
    extract("list.csv", path_column="file", label_column="kind")
    found = predict("list.csv")
    assert [item.path for item in found] == [row.split(",")[0] for row in rows]
    assert found.given.labels == tuple(row.split(",")[1] for row in rows)
    Path("other.csv").write_text("file,kind\n" + "\n".join(rows) + "\n")
    assert predict("other.csv", path_column="file").given.origins[0].problem
    assert predict("other.csv", path_column="file", label_column="kind").given.labels == found.given.labels


def test_a_data_frame_has_labels(run):
    frame = pytest.importorskip("pandas").DataFrame({"path": ["images/b/3.jpg", "images/a/3.jpg"], "label": ["b", "a"]})
    assert predict(frame).given.labels == ("b", "a")

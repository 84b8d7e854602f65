import csv
import json
import shutil

import pytest

from tests import tiny
from tests.cli.conftest import run
from tests.conftest import photo, write
from tests.variants import each

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(30)}
NEW = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(50, 70)}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder of images, their features, a run, and new images."""
    root = tmp_path_factory.mktemp("evaluate")
    for folder, files in (("images", IMAGES), ("new", NEW)):
        for name, seed in files.items():
            write(root / folder / name, photo(seed))
    with pytest.MonkeyPatch.context() as patch:
        tiny.use(patch)
        patch.chdir(root)
        run("extract", "images", "--model", "resnet18")
        run("fit")
    return root


@pytest.fixture
def new(original, tmp_path, monkeypatch):
    """Return the new images, in a copy of the folder."""
    tiny.use(monkeypatch)
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True) / "new"


def test_a_report_on_stdout_and_the_run_with_the_reason_first_on_stderr(new):
    out, err = run("evaluate", new, "images")
    assert "accuracy" in out.splitlines()[0]
    for word in ("precision", "label \\ predicted", "calibration", "most confident first"):
        assert word in out
    assert err.splitlines()[0].endswith(": the only run")
    assert "images left out, because" in err


def test_json_is_one_object_with_all_errors(new):
    out, err = run("evaluate", new, "--json")
    found = json.loads(out)
    assert found["n"] == len(NEW)
    assert round((1 - found["accuracy"]) * found["n"]) == len(found["errors"]) > 0
    assert "the only run" in err


@pytest.mark.parametrize("how", ["file", "stdout"])
def test_the_errors_as_csv(new, tmp_path, how):
    words = ["--out", tmp_path / "errors.csv"] if how == "file" else ["--format", "csv"]
    out, _ = run("evaluate", new, *words)
    text = (tmp_path / "errors.csv").read_text() if how == "file" else out
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len(json.loads(run("evaluate", new, "--json")[0])["errors"])
    assert set(rows[0]) == {"path", "digest", "label", "predicted", "probability", "label_probability"}


def test_another_run_is_compared(new):
    fitted = json.loads(run("fit", "--head", "centroid", "--json")[0])
    out, _ = run("evaluate", new, "--against", fitted["run"])
    assert "against" in out
    assert "McNemar's test p =" in out


@each("words", [["evaluate"], ["evaluate", "new", "--out", "report.html"], ["predict"]])
def test_a_usage_error_is_exit_code_2(new, words):
    out, err = run(*words, code=2)
    assert out == ""
    assert "Error: " in err


@each("images", ["images/a", "nowhere"])
def test_what_cannot_be_evaluated_is_exit_code_1(new, images):
    assert "expected" in run("evaluate", images, code=1)[1]


# --- predict ----------------------------------------------------------------------------------------------------


def test_predict_takes_several_paths_and_gives_a_row_for_each(new, folder, tmp_path):
    folder({"bad.jpg": b"<html>"}, name="new")
    words = ["new/b/50.jpg", "new/bad.jpg", "new/a", "new/b/50.jpg"]
    out, err = run("predict", *words, "--format", "csv")
    rows = list(csv.DictReader(out.splitlines()))
    assert [row["path"] for row in rows] == [*words[:2], *(f"new/a/{number}.jpg" for number in range(50, 70)), words[0]]
    assert [(row["label"], row["code"]) for row in rows if not row["label"]] == [("", "not-an-image")]
    assert "22 predicted, 1 failed" in err
    lines = [json.loads(line) for line in run("predict", *words, "--json")[0].splitlines()]
    assert [line["path"] for line in lines] == [row["path"] for row in rows]
    assert lines[1]["error"]["code"] == "not-an-image"
    run("predict", *words, "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == out
    assert "failed: not-an-image" in run("predict", *words)[0]


def test_predict_reports_the_accuracy_and_where_the_labels_come_from(new):
    err = run("predict", "new")[1]
    assert "compared with the folders of new: " in err
    assert "95 % interval" in err
    assert "images left out, because" in run("predict", "images")[1]
    assert "compared with" not in run("predict", "new", "--no-labels")[1]
    assert "compared with" not in run("predict", "new/a")[1]


def test_predict_first_reports_the_run_its_images_and_the_reason(new):
    name = json.loads(run("fit", "--head", "centroid", "--json")[0])["run"]
    first = run("predict", "new")[1].splitlines()[0]
    assert first.startswith("runs/")
    assert "/images (" in first
    assert " training images): " in first
    assert "better" in first
    assert run("predict", "new", "--run", name)[1].splitlines()[0].endswith(": the named run")

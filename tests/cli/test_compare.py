import csv
import json

import pytest
from click.testing import CliRunner

from bottleneck.cli.main import cli
from tests import tiny

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(30)}


def run(*words, code=0):
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


@pytest.fixture
def images(folder, monkeypatch):
    tiny.use(monkeypatch)
    return folder(IMAGES)


def compare(images, *words, **settings):
    return run("compare", images, "--models", "resnet18@none", "--heads", "logistic,centroid", *words, **settings)


def test_people_read_a_table_on_stderr(images):
    out, err = compare(images, "--learning-curve")
    assert out == ""
    assert "2 heads on features of 1 model\nall on the same splits and folds" in err
    assert "best" in err
    assert "learning curve" in err
    assert "0 failed; this makes the best a run: bottleneck fit" in err


def test_the_command_it_ends_with_makes_the_best_a_run(images):
    options = ["--split", "60/0/40", "--C", "0.1,1", "--memory", "1", "--cache", "other"]
    out, err = run("compare", images, "--models", "resnet18@none", "--heads", "logistic", "--json", *options)
    found = json.loads(out)
    words = err.splitlines()[-1].partition("bottleneck fit ")[2].split()
    assert words[-8:] == ["--split", "60/0/40", "--C", "0.1,1.0", "--memory", "1.0", "--cache", "other"]
    card = json.loads(run("fit", *words, "--json")[0])
    assert card["head"] == found["best"]["head"]
    assert card["n_heldout"] == found["n_heldout"]
    assert card["cv_accuracy"] == found["rows"][0]["cv_accuracy"]


def test_json_is_one_object(images):
    out, _ = compare(images, "--json")
    found = json.loads(out)
    assert len(found["rows"]) == 2
    assert {"cv_accuracy", "accuracy", "accuracy_ci95", "p_value", "verdict", "extract_seconds", "fit_seconds"} <= set(
        found["rows"][0]
    )


@pytest.mark.parametrize("name", ["table.csv", "table.json", "table.md", "table.txt"])
def test_the_ending_of_a_file_says_what_is_written(images, tmp_path, name):
    out, _ = compare(images, "--out", tmp_path / name)
    text = (tmp_path / name).read_text()
    assert out == ""
    if name.endswith("json"):
        assert len(json.loads(text)["rows"]) == 2
    elif name.endswith("csv"):
        rows = list(csv.DictReader(text.splitlines()))
        assert rows[0]["verdict"] == "best"
        assert float(rows[0]["ci95_low"]) <= float(rows[0]["accuracy"]) <= float(rows[0]["ci95_high"])
    elif name.endswith("md"):
        header, marks, *rows = text.splitlines()
        assert header.count("|") == marks.count("|") == rows[0].count("|")
        assert len(rows) == 2
    else:
        assert "best" in text


@pytest.mark.parametrize("layout", ["csv", "markdown", "json"])
def test_a_format_goes_to_stdout(images, layout):
    out, _ = compare(images, "--format", layout)
    assert "resnet18@none" in out


def test_an_unknown_head_is_a_usage_error(images):
    _, err = run("compare", images, "--heads", "logistic,forest", code=2)
    assert "svm-rbf" in err

import csv
import json
import re

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


def test_the_report_is_on_stdout(images):
    out, err = compare(images, "--learning-curve")
    assert "2 heads on features of 1 model\nall on the same splits and folds" in out
    assert re.search(r"\d+ held out \(test\)\n", out)  # no half width of one accuracy, which is no threshold of two
    assert "best" in out
    assert "learning curve" in out
    assert re.search(r"\n +\d+ images  \d+\.\d%, a forecast \(95 % interval \d+\.\d% to \d+\.\d%\)\n", out)
    assert "; twice as many images would add about " in out
    assert "0 failed; to save the best as a run: bottleneck fit" in out
    assert all(line.startswith("warning: ") for line in err.splitlines())


def test_counts_of_one_are_singular(images):
    assert (
        "1 head on features of 1 model\n"
        in run("compare", images, "--models", "resnet18@none", "--heads", "centroid")[0]
    )


def numbers(text):
    """Return the cells of figures, which must be there whole, whatever the width."""
    return sorted(re.findall(r"\d+\.\d% \(\d+\.\d to \d+\.\d\)", text))


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
def test_no_line_is_too_long_and_no_number_is_truncated_at_any_width(images, monkeypatch, columns):
    whole, _ = compare(images)
    monkeypatch.setenv("COLUMNS", str(columns))
    out, err = compare(images)
    lines = [line for line in [*out.splitlines(), *err.splitlines()] if str(images) not in line.removesuffix(" \\")]
    assert max(map(len, lines)) <= columns  # a path of a command is never folded
    assert numbers(out) == numbers(whole)
    assert len(numbers(out)) == 4
    assert out.count("resnet18@none") == 2  # models
    assert any(line.startswith(" model ") for line in out.splitlines()) is (columns >= 100)


def test_the_last_line_is_the_command_that_fits_the_best(images):
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
def test_the_ending_of_a_file_decides_the_format(images, tmp_path, name):
    out, _ = compare(images, "--out", tmp_path / name)
    text = (tmp_path / name).read_text()
    assert out == ""
    if name.endswith("json"):
        assert len(json.loads(text)["rows"]) == 2
    elif name.endswith("csv"):
        rows = list(csv.DictReader(text.splitlines()))
        assert rows[0]["verdict"] == "best"
        assert float(rows[0]["ci95_low"]) <= float(rows[0]["accuracy"]) <= float(rows[0]["ci95_high"])
        assert float(rows[0]["cv_ci95_low"]) <= float(rows[0]["cv_accuracy"]) <= float(rows[0]["cv_ci95_high"])
    elif name.endswith("md"):
        header, marks, *rows = text.splitlines()
        assert header.count("|") == marks.count("|") == rows[0].count("|")
        assert len(rows) == 2
    else:
        assert "best" in text


@pytest.mark.parametrize("layout", ["csv", "markdown", "json"])
def test_a_format_is_alone_on_stdout(images, layout):
    out, err = compare(images, "--format", layout)
    assert "resnet18@none" in out
    assert "to save the best as a run" in err
    if layout == "json":
        assert len(json.loads(out)["rows"]) == 2
    else:
        assert len(out.splitlines()) == {"csv": 3, "markdown": 4}[layout]


@pytest.mark.parametrize("name", ["report.html", "report.v2", "report.npz", "report.csv.gz"])
def test_an_ending_that_is_no_format_is_a_usage_error_before_anything_is_done(images, tmp_path, name):
    _, err = compare(images, "--out", name, code=2)
    assert "to end in one of .txt, .csv, .json, .md, or --format" in err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["report.html", "report.json", "report"])
def test_the_format_option_takes_precedence_over_the_ending(images, tmp_path, name):
    compare(images, "--out", name, "--format", "csv")
    assert len(list(csv.DictReader((tmp_path / name).read_text().splitlines()))) == 2


def test_a_name_without_an_ending_is_a_table(images, tmp_path):
    compare(images, "--out", "report")
    assert (tmp_path / "report").read_text().startswith(" model ")


def test_an_unknown_head_is_a_usage_error(images):
    _, err = run("compare", images, "--heads", "logistic,forest", code=2)
    assert "svm-rbf" in err

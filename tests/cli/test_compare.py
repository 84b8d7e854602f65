import csv
import json
import re

import pytest

from tests import tiny
from tests.cli.conftest import run

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(30)}


@pytest.fixture
def images(folder, monkeypatch):
    tiny.use(monkeypatch)
    return folder(IMAGES)


def compare(images, *words, **settings):
    return run("compare", images, "--models", "resnet18@none", "--heads", "ridge,centroid", *words, **settings)


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


def test_no_line_is_too_long_and_no_number_is_truncated_at_any_width(images, monkeypatch):
    whole, _ = compare(images)
    for columns in (60, 80, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        out, err = compare(images)
        lines = [line for line in [*out.splitlines(), *err.splitlines()] if str(images) not in line.removesuffix(" \\")]
        assert max(map(len, lines)) <= columns  # a path of a command is never folded
        assert numbers(out) == numbers(whole), columns
        assert len(numbers(out)) == 4
        assert out.count("resnet18@none") == 2, columns  # models
        assert any(line.startswith(" model ") for line in out.splitlines()) is (columns >= 100), columns


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


def test_the_format_is_that_of_the_option_or_of_the_ending_of_the_file(images, tmp_path):
    for name in ("table.csv", "table.json", "table.md", "table.txt", "table"):
        out, _ = compare(images, "--out", name)
        assert out == "", name
    assert len(json.loads((tmp_path / "table.json").read_text())["rows"]) == 2
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert rows[0]["verdict"] == "best"
    assert float(rows[0]["ci95_low"]) <= float(rows[0]["accuracy"]) <= float(rows[0]["ci95_high"])
    assert float(rows[0]["cv_ci95_low"]) <= float(rows[0]["cv_accuracy"]) <= float(rows[0]["cv_ci95_high"])
    header, marks, *rows = (tmp_path / "table.md").read_text().splitlines()
    assert header.count("|") == marks.count("|") == rows[0].count("|")
    assert len(rows) == 2
    for name in ("table.txt", "table"):
        assert (tmp_path / name).read_text().startswith(" model "), name

    for name in ("report.html", "report.json", "report"):
        compare(images, "--out", name, "--format", "csv")
        assert len(list(csv.DictReader((tmp_path / name).read_text().splitlines()))) == 2, name


def test_a_format_is_alone_on_stdout(images):
    for layout, lines in (("csv", 3), ("markdown", 4), ("json", None)):
        out, err = compare(images, "--format", layout)
        assert "resnet18@none" in out
        assert "to save the best as a run" in err
        assert len(out.splitlines()) == lines or len(json.loads(out)["rows"]) == 2, layout
    found = json.loads(compare(images, "--json")[0])
    assert len(found["rows"]) == 2
    assert {"cv_accuracy", "accuracy", "accuracy_ci95", "p_value", "verdict", "extract_seconds", "fit_seconds"} <= set(
        found["rows"][0]
    )


def test_an_ending_that_is_no_format_is_a_usage_error_before_anything_is_done(images, tmp_path):
    for name in ("report.html", "report.v2", "report.npz", "report.csv.gz"):
        _, err = compare(images, "--out", name, code=2)
        assert "to end in one of .txt, .csv, .json, .md, or --format" in err, name
        assert not (tmp_path / "cache").exists()


def test_an_unknown_head_is_a_usage_error(images):
    _, err = run("compare", images, "--heads", "logistic,forest", code=2)
    assert "svm-rbf" in err


def test_the_report_is_a_page_with_the_numbers_and_commands_of_the_table(images, tmp_path):
    out, _ = compare(images, "--report", "pages/board.html", "--seed", "3")
    page = (tmp_path / "pages" / "board.html").read_text()
    assert out.splitlines()[-1] == "page: pages/board.html"
    assert set(numbers(out)) <= set(numbers(page))
    assert f"bottleneck compare {images.name} --models resnet18@none --heads" in page
    assert f"bottleneck fit {images.name} --model" in page
    assert page.count("--seed 3") == 2


def test_with_json_the_page_is_written_too_and_stdout_is_one_object(images, tmp_path):
    out, err = compare(images, "--report", "board.html", "--json")
    assert len(json.loads(out)["rows"]) == 2
    assert "page: board.html" in err
    assert (tmp_path / "board.html").exists()


def test_a_page_of_another_ending_or_over_another_file_is_refused_before_the_work(images, tmp_path):
    (tmp_path / "link.html").symlink_to("x")
    for words, message in (
        (["--report", "board.pdf"], "expected --report FILE.html, got 'board.pdf'"),
        (["--report", "a.html", "--out", "a.html", "--format", "csv"], "expected another file for --report"),
    ):
        assert message in run("compare", images, *words, code=2)[1]
    assert "link" in run("compare", images, "--report", "link.html", code=1)[1]

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bottleneck import __version__
from bottleneck.cli.main import cli
from tests.conftest import photo, write

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(8)}
CHECKOUT = Path(__file__).parents[2]


def run(*words, code=0):
    """Run a command in this process; return what stands on stdout and on stderr."""
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


def in_a_process(*words, **settings):
    return subprocess.run(
        [sys.executable, "-m", "bottleneck", *map(str, words)], capture_output=True, text=True, **settings
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["extract", "--help"], ["fit", "-h"]])
def test_help_imports_nothing_heavy(words):
    code = (
        "import sys; from bottleneck.cli.main import main\n"
        f"sys.argv[1:] = {words!r}\n"
        "try: main()\n"
        "finally: print('heavy:', sorted({'torch', 'numpy', 'h5py', 'sklearn', 'rich', 'PIL'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "heavy: []"


def test_an_extraction_that_has_nothing_to_compute_imports_no_library_it_does_not_need(folder):
    images = folder(CLASSES)
    run("extract", images)
    code = (
        "import sys; from bottleneck.cli.main import main\n"
        f"sys.argv[1:] = ['extract', {str(images)!r}]\n"
        "try: main()\n"
        "finally: print('heavy:', sorted({'torch', 'sklearn', 'scipy', 'pandas', 'safetensors'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "heavy: []"


def test_the_launcher_in_a_checkout_is_the_command(tmp_path):
    answer = subprocess.run(
        [sys.executable, CHECKOUT / "cli.py", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert answer.stdout.strip().endswith(__version__)


def test_commands_are_listed_in_the_order_of_the_work():
    work, about = (
        ["extract", "fit", "finetune", "compare", "predict", "evaluate"],
        ["models", "inspect", "cache", "demo"],
    )
    assert list(cli.list_commands(None)) == [*work, *about]


def all_commands(group: click.Group = cli, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of each, those of groups too."""
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, f"{name}{word} ")
        else:
            yield f"{name}{word}", command


@pytest.mark.parametrize("name", dict(all_commands()))
def test_every_command_has_help_for_itself_and_each_option(name):
    command = dict(all_commands())[name]
    assert command.help
    assert command.short_help
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name not in ("head",):
            assert parameter.help, parameter.name
    assert {"--cache", "--runs", "--json", "--debug"} <= {word for p in command.params for word in p.opts}


def test_from_folder_to_predictions_as_json(folder):
    images = folder(CLASSES)
    out, _ = run("extract", images, "--json")
    found = json.loads(out)
    assert found.items() >= {
        "images": 16, "unique": 16, "computed": 16, "reused": 0, "failed": 0, "ignored": 0,
        "model": "efficientnet_lite0", "dim": 1280,
    }.items()  # fmt: skip
    assert len(found["fingerprint"]) == 64
    assert found["seconds"] > 0

    out, _ = run("fit", "--json", "--split", "60/0/40")
    fitted = json.loads(out)
    assert set(fitted) >= {
        "run", "head", "model", "params", "classes", "n_train", "n_heldout", "heldout", "cv_accuracy", "accuracy",
        "accuracy_ci95", "balanced_accuracy", "macro_f1", "seconds",
    }  # fmt: skip
    assert fitted["classes"] == ["a", "b"]
    assert fitted["heldout"] == "test"
    assert fitted["n_train"] + fitted["n_heldout"] == 16
    assert fitted["accuracy_ci95"][0] <= fitted["accuracy"] <= fitted["accuracy_ci95"][1]

    write(images / "a/bad.jpg", b"<html>")
    out, err = run("predict", images, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 17
    assert set(lines[0]) >= {"path", "digest", "label", "probability"}
    assert [line["path"] for line in lines if line["label"] is None] == [str(images / "a/bad.jpg")]
    assert lines[8]["error"]["code"] == "not-an-image", "in its place"
    assert "1 failed" in err


def test_results_are_on_stdout_and_everything_else_on_stderr(folder):
    images = folder({**CLASSES, "a/page.jpg": b"<html>", "a/notes.txt": b"x"})
    out, err = run("extract", images)
    assert [line.split(": ")[0] for line in out.splitlines()] == ["2 classes", "17 images"]
    assert "1 not-an-image:" in err
    assert "1 file ignored" in err
    assert "engine: " in err
    out, err = run("fit", "--split", "60/0/40")
    assert [line for line in out.splitlines() if line.startswith("accuracy ")]
    assert "runs/2" in out.splitlines()[-1]
    assert "not-an-image" in err
    assert not set(filter(None, out.splitlines())) & set(err.splitlines())
    out, err = run("predict", images)
    assert str(images / "a" / "0.jpg") in out
    assert "predicted" not in out
    assert "16 predicted" in err


def test_a_final_head_is_reported_and_predicts(folder):
    images = folder(CLASSES)
    run("extract", images)
    tested = json.loads(run("fit", "--split", "60/0/40", "--json")[0])
    final = json.loads(run("fit", "--split", "60/0/40", "--final", "--json")[0])
    assert tested["final"] is None
    assert final["final"]["n_train"] == 16 == final["n_train"] + final["n_heldout"]
    for name in ("accuracy", "accuracy_ci95", "cv_accuracy", "params", "n_train", "n_heldout"):
        assert final[name] == tested[name]

    (line,) = [line for line in run("fit", "--split", "60/0/40", "--final")[0].splitlines() if "final head" in line]
    assert "trained on 16 labelled images, including the held-out ones, with the same parameters" in line
    assert f"the scores above are of the head trained on {final['n_train']} of them" in line
    _, err = run("predict", images)
    assert err.startswith(
        f"{final['run']}, trained on {images} (16 images, including held-out ones): a final head, and "
    )
    assert "16 images left out, because" in err


def test_with_json_the_same_report_is_on_stderr(folder):
    images = folder(CLASSES)
    run("extract", images)
    for words in (["extract", images], ["fit", "--split", "60/0/40"], ["cache", "info"]):
        out, err = run(*words, "--json")
        assert len(out.splitlines()) == 1
        told, said = (
            {re.sub(r"[\d.]+ s$|runs/\S+", "", line) for line in text.splitlines()} for text in (run(*words)[0], err)
        )
        assert told <= said


def test_predictions_as_csv_into_a_file(folder, tmp_path):
    images = folder(CLASSES)
    run("extract", images)
    run("fit", "--split", "60/0/40")
    assert run("predict", images, "--format", "csv", "--out", tmp_path / "p.csv")[0] == ""
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "path,digest,label,probability,label_2,probability_2,code,message"
    assert len(lines) == 17


def test_failures_are_listed_with_reasons_and_strict_exits_with_1(folder):
    whole = photo(1, size=(300, 200))
    images = folder({**CLASSES, "a/cut.jpg": whole[:2000], "a/page.jpg": b"<html>", "b/zero.jpg": b""})
    out, err = run("extract", images, "--max-failures", "3")
    for name, code in (("a/cut.jpg", "truncated"), ("a/page.jpg", "not-an-image"), ("b/zero.jpg", "empty")):
        assert f"1 {code}:\n  {images / name}: " in err
    (counted,) = [line for line in out.splitlines() if " computed, " in line]
    assert "3 failed" in counted
    out, _ = run("extract", images, "--strict", "--json", code=1)
    assert json.loads(out)["failed"] == 3


def test_an_error_is_one_message_and_exit_code_1(tmp_path):
    _, err = run("extract", tmp_path / "nowhere", code=1)
    assert err.startswith("error: expected a folder of images")
    assert len(err.strip().splitlines()) == 1


def test_an_error_with_json_is_one_object(tmp_path):
    out, _ = run("fit", "--json", code=1)
    assert "bottleneck extract" in json.loads(out)["error"]["message"]


def test_debug_shows_the_traceback(tmp_path):
    answer = in_a_process("extract", tmp_path / "nowhere", "--debug")
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr


def test_an_unexpected_error_is_reported_as_a_bug_without_a_traceback(monkeypatch, folder):
    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("bottleneck.extraction.extract.extract", broken)
    _, err = run("extract", folder(CLASSES), code=1)
    assert "This is a bug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--head", "forest"],
        ["fit", "--cv", "1"],
        ["fit", "--split", "abc"],
        ["fit", "--C", "-1"],
        ["fit", "--seed", "-1"],
        ["nothing"],
        ["predict"],
    ],
)
def test_a_usage_error_is_exit_code_2(words):
    out, err = run(*words, code=2)
    assert out == ""
    assert "Error: " in err


def test_a_misspelt_model_gets_the_nearest_names(folder):
    _, err = run("extract", folder(CLASSES), "--model", "resnet5", code=1)
    assert "resnet50" in err


def test_random_weights_warn(folder):
    _, err = run("extract", folder(CLASSES), "--weights", "none")
    assert "warning: efficientnet_lite0 has random weights" in err


def test_in_a_fresh_process_a_second_extract_writes_nothing_and_names_survive_any_bytes(folder, tmp_path):
    images = folder(CLASSES)
    (images / "a" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape")).write_bytes(photo(500))
    assert in_a_process("extract", images).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    answer = in_a_process("extract", images, "--json")
    assert json.loads(answer.stdout)["computed"] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_class_names_with_brackets_are_shown_as_they_are(folder):
    images = folder({path.replace("a/", "[old]a/").replace("b/", "[bold]b/"): seed for path, seed in CLASSES.items()})
    run("extract", images)
    out, _ = run("fit", "--split", "60/0/40")
    assert "[old]a" in out
    assert "[bold]b" in out


@pytest.mark.slow
def test_the_demonstration_reaches_95_percent_by_cross_validation():
    out, err = run("demo", "--json")
    found = json.loads(out)
    assert found.keys() >= {"accuracy", "best", "computed", "cv_accuracy", "images", "reused", "runs", "seconds"}
    assert found["computed"] == 1797
    assert found["cv_accuracy"] >= 0.95
    assert len(found["runs"]) == 3
    assert "bottleneck extract YOUR/IMAGES" in err
    out, _ = run("predict", "demo/digits/3", "--format", "csv")
    labels = [line.split(",")[2] for line in out.splitlines()[1:]]
    assert labels.count("3") / len(labels) > 0.9

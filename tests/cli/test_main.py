import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner

from bottleneck.cli.common import command
from bottleneck.cli.main import cli
from tests.cli.conftest import EXTRACT, run
from tests.conftest import photo, write
from tests.variants import each

# Runs commands in one process and prints which libraries were imported by then.
IMPORTS = """
import json, sys
from bottleneck.cli.main import main

words = json.loads(sys.argv[1])

def imported(names):
    print("imported:", sorted(set(names.split()) & set(sys.modules)), flush=True)

for line in ("--help", "--version", "extract --help", "fit -h"):
    sys.argv[1:] = line.split()
    try:
        main()
    except SystemExit as end:
        assert not end.code, line
imported("torch numpy h5py sklearn rich PIL")
sys.argv[1:] = words
try:
    main()
finally:
    imported("torch sklearn scipy pandas safetensors")
"""


def all_commands(group: click.Group = cli, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield the words and the command of each, those of groups too."""
    for word, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from all_commands(found, f"{name}{word} ")
        else:
            yield f"{name}{word}", found


def test_commands_are_listed_in_the_order_of_the_work():
    work, about = (
        ["extract", "fit", "finetune", "compare", "predict", "evaluate", "report", "audit", "next", "explore"],
        ["models", "inspect", "cache", "runs", "doctor", "demo"],
    )
    assert list(cli.list_commands(None)) == [*work, *about]


@each("name, found", all_commands())
def test_every_command_has_help_for_itself_and_each_option(name, found):
    assert found.help
    assert found.short_help
    for parameter in found.params:
        if parameter.param_type_name == "option" and parameter.name not in ("head",):
            assert parameter.help, parameter.name
    assert {"--cache", "--runs", "--json", "--debug"} <= {word for p in found.params for word in p.opts}


def state(folder: Path) -> dict[Path, int]:
    """Return when each file was written, but for the memo of digests: it waits until new files are 2 s old."""
    files = (path for path in folder.rglob("*") if path.is_file() and "digests.sqlite" not in path.name)
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_fresh_process_imports_no_library_it_does_not_need_and_writes_nothing_that_is_there(extracted):
    write(extracted / "images" / "a" / b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), photo(500))
    run(*EXTRACT, "images")
    before = state(extracted)

    words = json.dumps([*EXTRACT, "images", "--json"])
    answer = subprocess.run([sys.executable, "-c", IMPORTS, words], capture_output=True, text=True)
    *lines, found, last = answer.stdout.splitlines()

    assert [line for line in [*lines, last] if line.startswith("imported:")] == ["imported: []"] * 2
    assert (json.loads(found)["computed"], json.loads(found)["reused"]) == (0, 17)
    assert state(extracted) == before


def test_from_folder_to_predictions_as_json(extracted):
    found = json.loads(run(*EXTRACT, "images", "--cache", "other", "--json")[0])
    assert found.items() >= {
        "images": 16, "unique": 16, "computed": 16, "reused": 0, "failed": 0, "ignored": 0,
        "model": "efficientnet_lite0", "dim": 1280,
    }.items()  # fmt: skip
    assert len(found["fingerprint"]) == 64
    assert found["seconds"] > 0

    fitted = json.loads(run("fit", "--json", "--split", "60/0/40")[0])
    assert set(fitted) >= {
        "run", "head", "model", "params", "classes", "n_train", "n_heldout", "heldout", "cv_accuracy", "accuracy",
        "accuracy_ci95", "balanced_accuracy", "macro_f1", "seconds",
    }  # fmt: skip
    assert fitted["classes"] == ["a", "b"]
    assert fitted["heldout"] == "test"
    assert fitted["n_train"] + fitted["n_heldout"] == 16
    assert fitted["accuracy_ci95"][0] <= fitted["accuracy"] <= fitted["accuracy_ci95"][1]

    write(Path("images/a/bad.jpg"), b"<html>")
    out, err = run("predict", "images", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 17
    assert set(lines[0]) >= {"path", "digest", "label", "probability"}
    assert [line["path"] for line in lines if line["label"] is None] == ["images/a/bad.jpg"]
    assert lines[8]["error"]["code"] == "not-an-image", "in its place"
    assert "1 failed" in err


def test_results_are_on_stdout_and_everything_else_on_stderr(extracted):
    write(Path("images/a/page.jpg"), b"<html>")
    write(Path("images/a/notes.txt"), b"x")
    write(Path("images/a/new.jpg"), photo(600))
    out, err = run(*EXTRACT, "images")
    assert [line.split(": ")[0] for line in out.splitlines()] == ["2 classes", "18 images"]
    assert "1 not-an-image:" in err
    assert "1 file ignored" in err
    assert "engine: " in err
    out, err = run("fit", "--split", "60/0/40", "--head", "centroid")
    assert [line for line in out.splitlines() if line.startswith("accuracy ")]
    assert "runs/2" in out.splitlines()[-1]
    assert "not-an-image" in err
    assert not set(filter(None, out.splitlines())) & set(err.splitlines())
    out, err = run("predict", "images")
    assert "images/a/0.jpg" in out
    assert "predicted" not in out
    assert "17 predicted" in err


def test_a_final_head_is_reported_and_predicts(extracted):
    words = ("fit", "--split", "60/0/40", "--head", "centroid", "--json")
    tested = json.loads(run(*words)[0])
    out, err = run(*words, "--final")
    final = json.loads(out)
    assert tested["final"] is None
    assert final["final"]["n_train"] == 16 == final["n_train"] + final["n_heldout"]
    for name in ("accuracy", "accuracy_ci95", "cv_accuracy", "params", "n_train", "n_heldout"):
        assert final[name] == tested[name]

    (line,) = [line for line in err.splitlines() if "final head" in line]
    assert "trained on 16 labelled images, including the held-out ones, with the same parameters" in line
    assert f"the scores above are of the head trained on {final['n_train']} of them" in line
    _, err = run("predict", "images")
    source = f"{extracted / 'images'} (16 images, including held-out ones)"
    assert err.startswith(f"{final['run']}, trained on {source}: a final head, and ")
    assert "16 images left out, because" in err


def test_with_json_the_same_report_is_on_stderr(extracted):
    for words in ([*EXTRACT, "images"], ["fit", "--split", "60/0/40", "--head", "centroid"], ["cache", "info"]):
        out, err = run(*words, "--json")
        assert len(out.splitlines()) == 1
        told, said = (
            {re.sub(r"[\d.]+ s$|runs/\S+", "", line) for line in text.splitlines()} for text in (run(*words)[0], err)
        )
        assert told <= said


def test_predictions_as_csv_into_a_file(fitted):
    assert run("predict", "images", "--format", "csv", "--out", "p.csv")[0] == ""
    lines = Path("p.csv").read_text().splitlines()
    assert lines[0] == "path,digest,label,probability,label_2,probability_2,code,message,familiarity"
    assert len(lines) == 17


def test_failures_are_listed_with_reasons_and_strict_exits_with_1(extracted):
    for name, data in (("a/cut", photo(1, size=(300, 200))[:2000]), ("a/page", b"<html>"), ("b/zero", b"")):
        write(Path(f"images/{name}.jpg"), data)
    out, err = run(*EXTRACT, "images", "--max-failures", "3")
    for name, code in (("a/cut.jpg", "truncated"), ("a/page.jpg", "not-an-image"), ("b/zero.jpg", "empty")):
        assert f"1 {code}:\n  images/{name}: " in err
    (counted,) = [line for line in out.splitlines() if " computed, " in line]
    assert "3 failed" in counted
    out, _ = run(*EXTRACT, "images", "--strict", "--json", code=1)
    assert json.loads(out)["failed"] == 3


def test_an_error_is_one_message_one_object_or_a_traceback():
    _, err = run("extract", "nowhere", code=1)
    assert err.startswith("error: expected a folder of images")
    assert len(err.strip().splitlines()) == 1
    assert "bottleneck extract" in json.loads(run("fit", "--json", code=1)[0])["error"]["message"]

    debugged = [sys.executable, "-m", "bottleneck", "extract", "nowhere", "--debug"]
    answer = subprocess.run(debugged, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "Traceback" in answer.stderr


def test_an_unexpected_error_is_reported_as_a_bug_without_a_traceback():
    @command("broken")
    def broken(as_json: bool, **_: str) -> None:
        raise ZeroDivisionError("oops")

    found = CliRunner().invoke(broken)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr.startswith("error: unexpected ZeroDivisionError: oops. This is a bug")
    assert "Traceback" not in found.stderr
    assert isinstance(CliRunner().invoke(broken, ["--debug"]).exception, ZeroDivisionError)


@each(
    "words",
    [
        "fit --head forest",
        "fit --cv 1",
        "fit --split abc",
        "fit --C -1",
        "fit --seed -1",
        "nothing",
        "predict",
    ],
)
def test_a_usage_error_is_exit_code_2(words):
    out, err = run(*words.split(), code=2)
    assert out == ""
    assert "Error: " in err


def test_a_misspelt_model_gets_the_nearest_names(folder):
    _, err = run("extract", folder({"a/1.jpg": 1, "b/1.jpg": 2}), "--model", "resnet5", code=1)
    assert "resnet50" in err


def test_random_weights_warn(extracted):
    _, err = run(*EXTRACT, "images", "--weights", "none")
    assert "warning: efficientnet_lite0 has random weights" in err


def test_class_names_with_brackets_are_shown_as_they_are(extracted):
    for name, shown in (("a", "[old]a"), ("b", "[bold]b")):
        Path("images", name).rename(Path("images", shown))
    run(*EXTRACT, "images")
    out, _ = run("fit", "--split", "60/0/40", "--head", "centroid")
    assert "[old]a" in out
    assert "[bold]b" in out


def test_a_current_folder_that_was_deleted_is_an_error(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    out, _ = run("doctor", "--json", code=1)
    assert "expected a current folder, found that it was deleted" in json.loads(out)["error"]["message"]

"""``--out`` of every command that has it: where it may write, and that what was there is never lost."""

import csv
import errno
import os
import stat
from pathlib import Path

import pytest

import bottleneck.comparison.compare
import bottleneck.prediction.evaluate  # noqa: F401  # which would else keep what a test puts in its place
from bottleneck.utils.csv_text import read_csv
from tests import tiny
from tests.cli.test_compare import run

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(20)}
COMMANDS = {
    "predict": ["predict", "images", "--format", "csv"],
    "compare": ["compare", "images", "--models", "resnet18@none", "--heads", "centroid", "--format", "csv"],
    "evaluate": ["evaluate", "new", "--format", "json"],
    "export": ["cache", "export", "images", "--format", "npz"],
}
every_command = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture(autouse=True)
def fitted(folder, monkeypatch):
    tiny.use(monkeypatch)
    folder({"a/7.jpg": 7, "b/8.jpg": 8}, name="new")
    run("extract", folder(IMAGES), "--model", "resnet18")
    run("fit", "--head", "centroid")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="special files of POSIX")
@every_command
@pytest.mark.parametrize("kind", ["FIFO", "symbolic link", "device"])
def test_an_output_that_is_no_file_is_left_unchanged_before_any_work(command, kind, monkeypatch):
    if kind == "FIFO":
        os.mkfifo("out")
    elif kind == "symbolic link":
        Path("precious").write_text("old")
        Path("out").symlink_to("precious")
    out = os.devnull if kind == "device" else "out"
    before = os.lstat(out)
    for work in (
        "prediction.predict.predict",
        "prediction.predict.run_for",
        "comparison.compare.compare",
        "fitting.inputs.select",
    ):
        monkeypatch.setattr(f"bottleneck.{work}", None)
    _, err = run(*COMMANDS[command], "--out", out, code=1)

    assert err.splitlines()[-1].startswith("error: expected a regular file or a new name to write to, found ")
    assert kind in err
    assert (os.lstat(out).st_ino, stat.S_IFMT(os.lstat(out).st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))
    assert kind != "symbolic link" or Path("precious").read_text() == "old"


@every_command
def test_a_private_file_stays_private(command):
    Path("out").write_text("old")
    os.chmod("out", 0o600)
    run(*COMMANDS[command], "--out", "out")
    assert Path("out").read_bytes() != b"old"
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o600


@every_command
def test_a_full_disk_leaves_the_old_file(command, monkeypatch):
    replace = os.replace

    def full(source, target):
        if Path(target).name == "out":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    Path("out").write_text("old")
    before = sorted(os.listdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        _, err = run(*COMMANDS[command], "--out", "out", code=1)

    assert err.splitlines()[-1].startswith(
        "error: cannot write out: No space left on device. The old file is unchanged"
    )
    assert (Path("out").read_text(), sorted(os.listdir())) == ("old", before)


@every_command
def test_a_file_that_is_read_is_not_written(command):
    rows = "".join(f"images/{name},{name[0]}\n" for name in IMAGES)
    Path("list.csv").write_text(f"path,label\n{rows}")
    words = ["list.csv" if word in ("images", "new") else word for word in COMMANDS[command]]
    _, err = run(*words, "--out", "list.csv", code=1)
    assert "expected an output file that is not an input, found list.csv" in err
    assert Path("list.csv").read_text() == f"path,label\n{rows}"


@every_command
def test_an_image_is_not_written(command):
    before = Path("images/a/1.jpg").read_bytes()
    _, err = run(*COMMANDS[command], "--out", "images/a/1.jpg", code=1)
    assert "found the image images/a/1.jpg" in err
    assert Path("images/a/1.jpg").read_bytes() == before


@every_command
def test_a_missing_folder_is_created(command):
    run(*COMMANDS[command], "--out", "results/today/out")
    assert os.listdir("results/today") == ["out"]


def test_features_do_not_go_to_stdout():
    _, err = run(*COMMANDS["export"], "--out", "-", code=2)
    assert "features cannot be written to stdout" in err
    assert not Path("-").exists()


def test_a_dash_is_stdout():
    out, _ = run(*COMMANDS["predict"], "--out", "-")
    assert out.startswith("path,digest,label,")
    assert not Path("-").exists()


NAMES = {"=1+1": 1, "@SUM(A1)": 2, "'quoted'": 3}
FILES = {f"{name}/{number}.jpg": 100 * seed + number for name, seed in NAMES.items() for number in range(12)}


def test_no_cell_is_a_formula_and_every_cell_can_be_joined(folder):
    photos = folder({**FILES, "@SUM(A1)/+bad.jpg": b"no image"}, name="=photos")
    run("extract", "=photos", "--model", "resnet18")
    run("fit", "--head", "centroid")
    out, _ = run("predict", "--out", "predicted.csv", "--", "=photos", "-photo.jpg")
    run("evaluate", "=photos", "--out", "errors.csv")
    tables = [Path("predicted.csv"), Path("errors.csv"), *Path().glob("runs/*-_photos-*/predictions.csv")]
    tables += Path("cache/datasets").glob("*photos*.failures.csv")
    assert (out, len(tables)) == ("", 4)

    for table in tables:
        with table.open(newline="") as file:
            for row in csv.reader(file):
                assert [cell for cell in row if cell[:1] in ("=", "+", "-", "@", "\t", "\r")] == []
    predicted = {row["path"]: row for row in read_csv("predicted.csv")}
    assert set(predicted) == {"-photo.jpg", *(os.path.join("=photos", name) for name in [*FILES, "@SUM(A1)/+bad.jpg"])}
    assert {row["label"] for row in predicted.values()} == {*NAMES, ""}
    assert {row["label"] for row in read_csv(tables[2])} <= set(NAMES)
    assert [Path(row["path"]).resolve() for row in read_csv(tables[3])] == [photos / "@SUM(A1)/+bad.jpg"]


def test_a_table_that_a_command_wrote_is_read_back(folder):
    folder(FILES, name="=photos")
    run("extract", "=photos", "--model", "resnet18")
    run("fit", "--head", "centroid")
    run("predict", "=photos", "--out", "predicted.csv")
    out, err = run("predict", "predicted.csv", "--format", "csv")
    assert out == Path("predicted.csv").read_text()
    assert "0 failed" in err
    out, _ = run("extract", "predicted.csv", "--model", "resnet18")
    assert out.startswith("3 classes: 'quoted' ")
    assert "36 images: 0 computed, 36 reused, 0 failed" in out

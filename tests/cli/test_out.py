"""``--out`` of every command that has it: where it may write, and that what was there is never lost."""

import csv
import os
import shutil
import stat
from pathlib import Path

import pytest

from bottleneck.utils.csv_text import read_csv
from tests import tiny
from tests.cli.conftest import run
from tests.conftest import photo, write
from tests.variants import each

resource = pytest.importorskip("resource", reason="limits and special files are POSIX's")

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(20)}
COMMANDS = {
    "predict": ["predict", "images", "--format", "csv"],
    "compare": ["compare", "images", "--heads", "centroid", "--format", "csv"],
    "evaluate": ["evaluate", "new", "--format", "json"],
    "export": ["cache", "export", "images", "--format", "npz"],
}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder of images, their features and a run."""
    root = tmp_path_factory.mktemp("out")
    for name, seed in IMAGES.items():
        write(root / "images" / name, photo(seed))
    for name, seed in (("a/7", 7), ("b/8", 8)):
        write(root / "new" / f"{name}.jpg", photo(seed))
    with pytest.MonkeyPatch.context() as patch:
        tiny.use(patch)
        patch.chdir(root)
        run("extract", "images", "--model", "resnet18")
        run("fit", "--head", "centroid")
        for words in COMMANDS.values():  # what is left to compute is computed
            run(*words, "--out", "out")
        Path("out").unlink()
    return root


@pytest.fixture
def project(original, tmp_path, monkeypatch):
    """Return the current folder, a copy of it."""
    tiny.use(monkeypatch)
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True)


KINDS = {"FIFO": os.mkfifo, "symbolic link": lambda name: Path(name).symlink_to("precious"), "device": None}


@each("command, kind", [(command, kind) for command in COMMANDS for kind in KINDS])
def test_an_output_that_is_no_file_is_left_unchanged_before_any_work(command, kind):
    Path("precious").write_text("old")
    out = "out" if KINDS[kind] else os.devnull
    if KINDS[kind]:
        KINDS[kind](out)
    before = os.lstat(out)
    _, err = run(*COMMANDS[command], "--out", out, code=1)  # where there is neither an image, nor a cache, nor a run

    assert err.splitlines()[-1].startswith("error: expected a regular file or a new name to write to, found ")
    assert kind in err
    assert (os.lstat(out).st_ino, stat.S_IFMT(os.lstat(out).st_mode)) == (before.st_ino, stat.S_IFMT(before.st_mode))
    assert Path("precious").read_text() == "old"


def test_a_private_file_stays_private_and_a_missing_folder_is_created(project):
    Path("out").touch()
    os.chmod("out", 0o600)
    for command, words in COMMANDS.items():
        Path("out").write_text("old")
        run(*words, "--out", "out")
        assert Path("out").read_bytes() != b"old", command
        assert stat.S_IMODE(os.stat("out").st_mode) == 0o600, command
        run(*words, "--out", f"results/{command}/out")
        assert os.listdir(f"results/{command}") == ["out"]


def test_a_full_disk_leaves_the_old_file(project):
    Path("out").write_text("old")
    before = sorted(os.listdir())
    for command, words in COMMANDS.items():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))  # bytes: less than any output
        try:
            _, err = run(*words, "--out", "out", code=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        message = "error: cannot write out: File too large. The old file is unchanged"
        assert err.splitlines()[-1].startswith(message), command
        assert (Path("out").read_text(), sorted(os.listdir())) == ("old", before), command


def test_a_file_or_an_image_that_is_read_is_not_written(project):
    rows = "".join(f"images/{name},{name[0]}\n" for name in IMAGES)
    Path("list.csv").write_text(f"path,label\n{rows}")
    image = Path("images/a/1.jpg").read_bytes()
    for command, words in COMMANDS.items():
        named = ["list.csv" if word in ("images", "new") else word for word in words]
        _, err = run(*named, "--out", "list.csv", code=1)
        assert "expected an output file that is not an input, found list.csv" in err, command
        assert Path("list.csv").read_text() == f"path,label\n{rows}"

        _, err = run(*words, "--out", "images/a/1.jpg", code=1)
        assert "found the image images/a/1.jpg" in err, command
        assert Path("images/a/1.jpg").read_bytes() == image


def test_a_dash_is_stdout_where_data_may_go(project):
    out, _ = run(*COMMANDS["predict"], "--out", "-")
    assert out.startswith("path,digest,label,")
    _, err = run(*COMMANDS["export"], "--out", "-", code=2)
    assert "features cannot be written to stdout" in err
    assert not Path("-").exists()


NAMES = {"=1+1": 1, "@SUM(A1)": 2, "'quoted'": 3}
FILES = {f"{name}/{number}.jpg": 100 * seed + number for name, seed in NAMES.items() for number in range(12)}


def test_no_cell_is_a_formula_and_a_table_is_read_back(folder, monkeypatch):
    tiny.use(monkeypatch)
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

    (photos / "@SUM(A1)" / "+bad.jpg").unlink()
    run("predict", "=photos", "--out", "predicted.csv")
    out, err = run("predict", "predicted.csv", "--format", "csv")
    assert out == Path("predicted.csv").read_text()
    assert "0 failed" in err
    out, _ = run("extract", "predicted.csv", "--model", "resnet18")
    assert out.startswith("3 classes: 'quoted' ")
    assert "36 images: 0 computed, 36 reused, 0 failed" in out

"""In a folder of runs no link is followed, no file of another kind is waited for, and only what is ours is deleted."""

import json
import os
import socket
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.tuned import read_tuned
from bottleneck.errors import BottleneckWarning, RunError
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config, unfinished
from bottleneck.finetuning.recipe import Recipe
from bottleneck.heads.linear import LinearHead
from bottleneck.runs.folder import CHECKPOINT, delete_checkpoint, delete_run
from bottleneck.runs.images import IMAGES, RunImages, load_run_images
from bottleneck.runs.lock import locked
from bottleneck.runs.run import SETTINGS, Run, list_runs, load_run
from bottleneck.runs.save import new_folder, save_run
from bottleneck.utils.folder import Folder
from tests.variants import each

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and FIFOs")
HASH = "0" * 64


def save(name: str = "x") -> Run:
    head = LinearHead(
        family="logistic",
        classes=("a", "b"),
        weight=np.ones((2, 3), np.float32),
        bias=np.zeros(2, np.float32),
        mean=np.zeros(3, np.float32),
        scale=np.ones(3, np.float32),
        fingerprint="f",
    )
    card = {
        "head": "logistic",
        "classes": ["a", "b"],
        "search": {"cv_accuracy": 0.9},
        "metrics": {"accuracy": 0.8},
        "spec": {},
        "request": {},
        "dataset": {"digest": "d"},
        "fingerprint": "f",
    }
    images = RunImages(digests=np.zeros((1, 32), np.uint8), roles=np.zeros(1, np.uint8), right=np.zeros(1, np.int8))
    return save_run("runs", name, head, card, ["path"], [["p"]], images)


def read_all(path: Path) -> object:
    """Read every file of a run."""
    run = load_run(path)
    return run.head, load_run_images(path), run.predictions


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_mtime_ns, b"" if path.is_dir() else path.read_bytes())
        for path in root.rglob("*")
    }


def documents(folder: Path) -> Path:
    """Fill a folder with documents that are called as files of a run are."""
    folder.mkdir(parents=True)
    for name in ("state.json", f"{HASH}.safetensors", "card.json", "finetune.json", "thesis.tex", ".tmp-9-0123abcd"):
        (folder / name).write_text('{"version": 1, "tensors": "thesis.tex"}')
    return folder


# --- links ------------------------------------------------------------------------------------------------------


def test_a_run_that_is_a_link_is_left_out_and_named(tmp_path):
    good, away = save("good"), save("away")
    (tmp_path / "elsewhere").mkdir()
    away.path.rename(tmp_path / "elsewhere" / "run")
    away.path.symlink_to(tmp_path / "elsewhere" / "run")
    Path("runs/album").symlink_to(tmp_path / "elsewhere")  # and this one is no run at all
    with pytest.warns(BottleneckWarning, match=f"{away.name}, found a link"):
        assert [run.path for run in list_runs("runs")] == [good.path]


def test_the_folder_of_runs_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    Path("runs").symlink_to(tmp_path / "disk")
    run = save()

    assert [found.path for found in list_runs("runs")] == [run.path]
    assert (tmp_path / "disk" / run.name / "card.json").is_file()
    assert run.head.classes == ("a", "b")


def test_a_run_that_the_user_names_may_be_a_link(tmp_path):
    run = save()
    (tmp_path / "best").symlink_to(run.path.absolute())

    assert load_run(tmp_path / "best").card == run.card
    assert load_run(tmp_path / "best").head.classes == ("a", "b")
    assert load_run(tmp_path / "best").images is not None


@each("name", ["card.json", "head.safetensors", IMAGES])
def test_a_link_in_the_place_of_a_file_of_a_run_is_not_read(tmp_path, name):
    run = save()
    (run.path / name).rename(tmp_path / name)
    (run.path / name).symlink_to(tmp_path / name)
    with pytest.raises(RunError, match="found a link"):
        read_all(run.path)


def test_settings_and_checkpoints_are_not_written_or_read_through_a_link(tmp_path):
    home = documents(tmp_path / "home")
    Path("runs").mkdir()
    Path("runs/linked").symlink_to(home)
    before = state(home)
    with pytest.raises(RunError, match="found a link"):
        save_config(Path("runs/linked"), FineTuneConfig(recipe=Recipe()))
    with pytest.raises(RunError, match="found a link"):
        load_config(Path("runs/linked"))
    with pytest.raises(RunError, match="there is nothing to resume"):
        unfinished("runs", "last")
    with pytest.raises(RunError, match="found a link"), locked(Path("runs/linked")):
        pass
    delete_run(Path("runs/linked"))

    assert state(home) == before
    assert Path("runs/linked").is_symlink()


def test_a_checkpoint_that_is_a_link_is_neither_read_written_nor_deleted(tmp_path):
    torch = pytest.importorskip("torch")
    from bottleneck.finetuning.checkpoint import load_checkpoint, save_checkpoint
    from bottleneck.finetuning.history import History

    home = documents(tmp_path / "home")
    run = new_folder("runs", "x")
    (run / CHECKPOINT).symlink_to(home)
    before = state(home)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(RunError, match="found a link"):
        load_checkpoint(run / CHECKPOINT, optimizer)
    with pytest.raises(OSError, match="found a link"):
        save_checkpoint(run / CHECKPOINT, History(), {"x": torch.zeros(1)}, optimizer)
    delete_checkpoint(run)
    delete_run(run)

    assert state(home) == before
    assert (run / CHECKPOINT).is_symlink()


def test_a_checkpoint_that_names_a_file_elsewhere_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    from bottleneck.finetuning.checkpoint import load_checkpoint

    (tmp_path / "thesis").write_text("mine")
    folder = new_folder("runs", "x") / CHECKPOINT
    folder.mkdir()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    for name in (str(tmp_path / "thesis"), "../../../thesis", "..", "", "a/b"):
        (folder / "state.json").write_text(json.dumps({"version": 1, "tensors": name}))
        with pytest.raises(RunError, match=r"cannot read it|expected the tensors"):
            load_checkpoint(folder, optimizer)


def test_a_checkpoint_that_becomes_a_link_while_it_is_deleted_is_not_followed(tmp_path, monkeypatch):
    run, home = new_folder("runs", "x"), documents(tmp_path / "home")
    documents(run / CHECKPOINT)
    before, status = state(home), Folder.status

    def swapped(folder: Folder, name: str) -> os.stat_result:
        found = status(folder, name)
        if name == CHECKPOINT and not (run / CHECKPOINT).is_symlink():
            (run / CHECKPOINT).rename(tmp_path / "away")
            (run / CHECKPOINT).symlink_to(home)
        return found

    monkeypatch.setattr(Folder, "status", swapped)
    delete_checkpoint(run)

    assert (run / CHECKPOINT).is_symlink()
    assert state(home) == before


# --- only what is ours ------------------------------------------------------------------------------------------


def test_a_run_is_deleted_except_for_foreign_files():
    run = save()
    (run.path / "notes.txt").write_text("mine")
    (run.path / CHECKPOINT).mkdir()
    (run.path / CHECKPOINT / f"{HASH}.safetensors").write_bytes(b"")
    (run.path / CHECKPOINT / "thesis.safetensors").write_bytes(b"mine")
    delete_run(run.path)

    left = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    assert left == {"notes.txt", f"{CHECKPOINT}/thesis.safetensors"}


def test_a_run_is_deleted_completely():
    run = save()
    delete_run(run.path)

    assert os.listdir("runs") == []


# --- other kinds of files ---------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the system allows about 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": getattr(os, "mkfifo", os.mkdir),
    "socket": make_socket,
    "folder": os.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


@each("kind", KINDS)
@each("name", ["card.json", "head.safetensors", IMAGES, "predictions.csv"])
def test_other_kinds_of_files_are_neither_waited_for_nor_read_endlessly(name, kind):
    run = save()
    (run.path / name).unlink()
    KINDS[kind](run.path / name)
    with pytest.raises(RunError):
        read_all(run.path)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert len(list_runs("runs")) == (name != "card.json")
    delete_run(run.path)
    assert stat.S_IFMT((run.path / name).lstat().st_mode) != stat.S_IFREG


@each("kind", KINDS)
def test_settings_and_weights_of_another_kind_are_errors_or_none(kind):
    run = new_folder("runs", "x")
    for name in (SETTINGS, "model.safetensors"):
        KINDS[kind](run / name)

    with pytest.raises(RunError):
        load_config(run)
    with suppress(RunError):
        unfinished("runs", "last")
    assert read_tuned(run / "model.safetensors") is None


@each("kind", KINDS)
@each("name", ["state.json", f"{HASH}.safetensors"])
def test_a_checkpoint_of_another_kind_is_an_error(name, kind):
    torch = pytest.importorskip("torch")
    from bottleneck.finetuning.checkpoint import load_checkpoint

    folder = new_folder("runs", "x") / CHECKPOINT
    folder.mkdir()
    (folder / "state.json").write_text(json.dumps({"version": 1, "tensors": f"{HASH}.safetensors"}))
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    with pytest.raises(RunError):
        load_checkpoint(folder, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1))

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import RunError
from bottleneck.runs.listing import summaries
from bottleneck.runs.lock import locked
from bottleneck.runs.removal import remove_runs
from bottleneck.runs.save import save_run
from bottleneck.utils.folder import Folder
from tests.conftest import write
from tests.runs.test_folder import documents, state
from tests.runs.test_listing import unfinished
from tests.runs.test_run import card, head, save
from tests.variants import each


def tuned(name="tuned"):
    """Return a run with weights of its own."""
    run = save(name)
    write(run.path / "model.safetensors", b"weights")
    return run


def user_of(run, **fields):
    """Return a run whose network has the weights of another run."""
    weights = {"model": "resnet18", "weights": str((run.path / "model.safetensors").absolute()), **fields}
    return save_run("runs", "user", head(), {**card(), "request": weights}, ["path"], [["p"]])


def names():
    return sorted(os.listdir("runs"))


def test_runs_are_deleted_completely():
    one, two, kept = save("one"), save("two"), save("kept")
    gone = remove_runs([one.name, f"run:{two.name}"])
    assert [(run.name, run.left, run.needed_by) for run in gone] == [(one.name, (), ()), (two.name, (), ())]
    assert all(run.bytes > 500 for run in gone)
    assert names() == [kept.name]


def test_a_path_names_a_run_too():
    run = save()
    remove_runs([run.path])
    assert names() == []


def test_a_dry_run_deletes_nothing_and_returns_the_same():
    run = save()
    rehearsed = remove_runs([run.name], dry_run=True)
    assert names() == [run.name]
    assert remove_runs([run.name]) == rehearsed


def test_other_files_are_kept_and_listed():
    run = save()
    write(run.path / "notes.txt", b"mine")
    (gone,) = remove_runs([run.name])
    assert gone.left == (str(run.path / "notes.txt"),)
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


@each("make", [lambda path: path.mkdir(), documents, lambda path: write(path / "card.json", b"{}"), None])
def test_what_is_not_a_run_is_not_deleted_and_nothing_else_is(tmp_path, make):
    run, other = save(), Path("runs/other")
    if make is None:
        other.symlink_to(save("away").path.rename(tmp_path / "away"))
    elif make is documents:  # a link to a folder with files that are called as ours are
        other.symlink_to(documents(tmp_path / "away"))
    else:
        make(other)
    before = state(tmp_path)
    with pytest.raises(RunError, match="expected a run in runs/other"):
        remove_runs([run.name, "other"], force=True)
    assert state(tmp_path) == before


@each("name", [".", "..", "/", "runs/.."])
def test_a_folder_above_is_not_a_run(name):
    save()
    with pytest.raises(RunError, match="expected a run"):
        remove_runs([name], dry_run=True)
    assert len(list(Path("runs").iterdir())) == 1


def test_a_run_that_does_not_exist_is_an_error():
    with pytest.raises(RunError, match="found no such folder"):
        remove_runs(["nothing"])


def test_a_run_whose_weights_are_the_network_of_another_is_kept_unless_forced():
    run = tuned()
    user = user_of(run)
    with pytest.raises(RunError, match=f"{run.name} is needed by the run {user.name} .* --force"):
        remove_runs([run.name])
    (gone,) = remove_runs([run.name], force=True)
    assert gone.needed_by == (f"the run {user.name} (its network has these weights)",)
    assert names() == [user.name]


@each("order", [1, -1])
def test_a_run_and_what_needs_it_are_deleted_together(order):
    run = tuned()
    remove_runs([run.name, user_of(run).name][::order])
    assert names() == []


def test_weights_are_found_after_the_project_has_moved(tmp_path):
    run = tuned()
    place = {"place": f"../{run.name}/model.safetensors", "sha256": "0" * 64, "bytes": 7}
    user_of(run, weights_file=place)
    Path("runs").rename("moved")
    with pytest.raises(RunError, match="is needed by"):
        remove_runs([run.name], runs="moved")


def test_a_run_whose_weights_computed_features_is_kept(spec):
    run = tuned()
    store = FeatureCache("cache").store(spec)
    store.append(np.ones((1, 32), np.uint8), np.ones((1, 2), np.float32))
    store.remember_request(Request(model="resnet18", weights=str(run.path / "model.safetensors")).to_json())
    with pytest.raises(RunError, match=f"is needed by features of {store.short_name} in cache"):
        remove_runs([run.name])
    remove_runs([run.name], cache="another")
    assert names() == []


def test_the_head_that_an_unfinished_fine_tuning_begins_with_is_kept():
    run, other = save("head"), save("other")
    tuning = unfinished(run=str(run.path.absolute()), places={"run": f"../{run.name}"})
    with pytest.raises(RunError, match=f"the unfinished fine-tuning {tuning.name}"):
        remove_runs([other.name, run.name])
    assert len(names()) == 3
    remove_runs([tuning.name, run.name])
    assert names() == [other.name]


def test_settings_and_requests_with_hostile_paths_need_nothing():
    run = tuned()
    unfinished("hostile", run="a\0b", places={"run": "c\0d"})
    user_of(run, weights="a.pth", weights_file={"place": "e\0f"})
    remove_runs([run.name])
    assert run.name not in names()


def test_a_running_fine_tuning_is_not_deleted():
    path = unfinished()
    with locked(path), pytest.raises(RunError, match="is fine-tuning it"):
        remove_runs([path.name], force=True)
    assert [run.name for run in summaries("runs")] == [path.name]
    remove_runs([path.name])
    assert names() == []


def test_a_removal_that_is_stopped_leaves_no_part_of_a_run(wrap):
    run = save()

    def stopped(call, folder, name):
        if name == "head.safetensors":
            raise KeyboardInterrupt
        call(folder, name)

    wrap(Folder, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        remove_runs([run.name])
    assert summaries("runs") == []
    assert not run.path.exists()


def test_a_run_in_a_write_protected_folder_is_an_error(wrap):
    run = save()

    def refused(call, folder, *args):
        raise PermissionError(13, "Permission denied")

    wrap(Folder, "rename", refused)
    with pytest.raises(RunError, match=f"cannot delete {run.path}: Permission denied"):
        remove_runs([run.name])
    assert json.loads((run.path / "card.json").read_text())["version"] == 1

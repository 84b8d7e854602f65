import json
import os
import shutil

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, RunError
from bottleneck.heads.linear import LinearHead
from bottleneck.runs.backbone_request import located_source
from bottleneck.runs.card import next_number
from bottleneck.runs.ranking import default_run
from bottleneck.runs.run import find_run, list_runs, load_run
from bottleneck.runs.save import make_under_free_name, save_run
from bottleneck.utils.files import LARGEST_TEXT
from bottleneck.utils.tree import Tree
from tests.variants import each


def head(fingerprint="f", classes=("a", "b")):
    return LinearHead(
        family="logistic",
        classes=classes,
        weight=np.ones((len(classes), 3), np.float32),
        bias=np.zeros(len(classes), np.float32),
        mean=np.zeros(3, np.float32),
        scale=np.ones(3, np.float32),
        fingerprint=fingerprint,
    )


def card(cv=0.9, accuracy=0.8, data="today"):
    return {
        "head": "logistic",
        "classes": ["a", "b"],
        "search": {"cv_accuracy": cv},
        "metrics": {"accuracy": accuracy},
        "spec": {},
        "request": {},
        "dataset": {"digest": data},
        "fingerprint": "f",
    }


def save(name="x", **fields):
    return save_run("runs", name, head(), card(**fields), ["path"], [["p"]])


def test_a_run_is_read_back():
    run = save()
    again = load_run(run.path)
    assert again.card == run.card
    assert again.card["version"] == 1
    assert np.array_equal(again.head.weight, head().weight)
    assert (run.path / "predictions.csv").read_text() == "path\np\n"


def test_runs_of_one_second_get_different_names():
    assert len({save().path for _ in range(3)}) == 3


def test_the_best_run_is_best_by_cross_validation_and_not_by_the_held_out_part():
    save("worse", cv=0.8, accuracy=1.0)
    better = save("better", cv=0.9, accuracy=0.1)
    assert default_run("runs").run.path == better.path


def test_the_best_run_is_one_on_the_images_labels_and_splits_that_were_fitted_last():
    save("easier", cv=0.99, data="yesterday")
    here = save("here", cv=0.7, data="today")
    assert default_run("runs").run.path == here.path


def test_without_runs_the_error_names_the_command():
    with pytest.raises(RunError, match="bottleneck fit"):
        default_run("runs")


@each("content", [b"", b"{", b"[]", b"null", b"{}", b'{"version": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_card_is_a_run_error(content):
    run = save()
    (run.path / "card.json").write_bytes(content)
    with pytest.raises(RunError):
        load_run(run.path)


def test_a_newer_card_is_refused():
    run = save()
    (run.path / "card.json").write_text(json.dumps({**run.card, "version": 99}))
    with pytest.raises(RunError, match="version 1"):
        load_run(run.path)


def test_a_huge_card_is_refused_unread():
    run = save()
    os.truncate(run.path / "card.json", LARGEST_TEXT + 1)
    with pytest.raises(RunError, match="expected at most"):
        load_run(run.path)


def test_a_head_that_belongs_to_another_card_is_refused():
    run = save_run("runs", "x", head(fingerprint="other"), card(), ["path"], [])
    with pytest.raises(RunError, match="belong together"):
        _ = load_run(run.path).head


def test_a_head_with_a_flipped_bit_is_refused():
    run = save()
    file = run.path / "head.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(RunError, match="has changed"):
        _ = load_run(run.path).head


def test_a_run_that_is_not_finished_is_no_run():
    run = save()
    run.path.rename("runs/.tmp-dead")
    assert list_runs("runs") == []


def test_a_folder_without_card_is_no_run(tmp_path):
    with pytest.raises(RunError, match=r"no card\.json"):
        load_run(tmp_path)


def test_an_unknown_name_lists_the_newest_runs_of_the_folder():
    names = [save(f"run-{number}").name for number in range(6)]
    with pytest.raises(RunError) as caught:
        find_run("runs", "run-9")

    newest = ", ".join(reversed(names[2:]))
    assert str(caught.value) == (
        f"expected a run in runs/run-9, found no such folder; runs in runs: {newest} and 2 more"
    )


def test_damaged_runs_are_left_out_with_a_warning():
    good, bad = save("good"), save("bad")
    (bad.path / "card.json").write_bytes(b"{")
    with pytest.warns(BottleneckWarning, match="ignored"):
        assert [run.path for run in list_runs("runs")] == [good.path]


class FullDisk(Tree):
    """Writes all files of a run but its card."""

    def write_json(self, path, value):
        raise OSError(28, "No space left on device")


def test_a_run_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "runs" / ".tmp-1-0123abcd").mkdir(parents=True)  # of another process
    (tmp_path / "runs" / ".tmp-1-0123abcd" / "thesis").write_text("mine")
    with pytest.raises(RunError, match="No space left"):
        save_run("runs", "x", head(), card(), ["path"], [["p"]], tree=FullDisk)
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / ".tmp-1-0123abcd"]
    assert (tmp_path / "runs" / ".tmp-1-0123abcd" / "thesis").read_text() == "mine"


# --- which is the latest ------------------------------------------------------------------------------------------


def changed(run, **values):
    """Give values of a card others; without those that are None."""
    changed = {name: value for name, value in {**run.card, **values}.items() if value is not None}
    (run.path / "card.json").write_text(json.dumps(changed))


def at(year):
    return f"{year}-05-01T00:00:00.000+00:00"


def names(folder="runs"):
    return [run.card["called"] for run in list_runs(folder)]


def save_called(called, folder="runs", **fields):
    return save_run(folder, called, head(), {**card(**fields), "called": called}, ["path"], [["p"]])


def test_a_clock_that_jumps_back_does_not_change_the_order():
    for called, year in (("first", 2026), ("second", 2031), ("third", 2025), ("fourth", 2026)):
        changed(save_called(called, data=called), created=at(year))
    assert names() == ["first", "second", "third", "fourth"]
    assert default_run("runs").run.card["called"] == "fourth"


def test_a_copied_run_is_older_than_the_next(tmp_path):
    for called in ("a", "b", "c"):
        save_called(called, "elsewhere")
    save_called("ours")
    for run in list_runs("elsewhere"):
        shutil.copytree(run.path, tmp_path / "runs" / f"copy-{run.name}")
    changed(save_called("new"), created=at(2020))
    assert names()[-1] == "new"


def test_runs_of_earlier_versions_come_first_by_their_time():
    changed(save_called("later"), created=at(2030), number=None)
    changed(save_called("sooner"), created=at(2029), number=None)
    changed(save_called("new"), created=at(2026))
    assert names() == ["sooner", "later", "new"]


def test_two_runs_with_one_number_are_ordered_by_time():
    changed(save_called("later"), created=at(2030), number=7)
    changed(save_called("sooner"), created=at(2029), number=7)
    assert names() == ["sooner", "later"]


@each("number", [None, "9", 9.5, True, -3, [], {}, float("inf"), float("nan")])
def test_an_invalid_number_counts_as_that_of_an_earlier_version(number):
    save_called("first")
    odd = save_called("odd")
    file = odd.path / "card.json"
    file.write_text(json.dumps({**odd.card, "number": number}))
    save_called("last")
    assert names() == ["odd", "first", "last"]


def test_an_unreadable_card_has_no_number(tmp_path):
    save_called("first")
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"number": 1e999}')):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "card.json").write_text(text)
    assert next_number(tmp_path / "runs") == 2
    assert next_number(tmp_path / "nothing") == 1


def test_two_processes_that_create_a_folder_of_one_name_get_two_folders(tmp_path):
    def make(path):
        if path.name == "x":
            path.mkdir()  # by the other process, after both have found that the name is free
        path.mkdir()

    assert make_under_free_name(tmp_path, "x", make) == tmp_path / "x-2"
    assert sorted(os.listdir(tmp_path)) == ["x", "x-2"]


def test_a_name_that_is_taken_by_a_link_is_not_used(tmp_path):
    (tmp_path / "x").symlink_to("nowhere")
    assert make_under_free_name(tmp_path, "x", os.mkdir) == tmp_path / "x-2"
    assert (tmp_path / "x").is_symlink()


def test_runs_of_another_folder_are_not_the_default(tmp_path, monkeypatch):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    one = save_run("../runs", "one", head(), card(), ["path"], [])
    assert default_run("../runs").run.path.name == one.path.name
    monkeypatch.chdir(tmp_path / "three")
    assert default_run("../runs").run.path.name == one.path.name  # there is no other
    monkeypatch.chdir(tmp_path / "two")
    two = save_run("../runs", "two", head(), card(data="other"), ["path"], [])
    assert default_run("../runs").run.path.name == two.path.name
    monkeypatch.chdir(tmp_path / "one")
    assert default_run("../runs").run.path.name == one.path.name
    monkeypatch.chdir(tmp_path / "three")
    with pytest.raises(RunError, match=rf"on 2 datasets: name one with --run, {one.name}, {two.name}"):
        default_run("../runs")


def test_a_run_of_an_earlier_version_belongs_to_every_folder(tmp_path, monkeypatch):
    run = save_run("runs", "x", head(), card(), ["path"], [])
    text = json.loads((run.path / "card.json").read_text())
    del text["folder"]
    (run.path / "card.json").write_text(json.dumps(text))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert default_run("../runs").run.path.name == run.name


def test_a_card_that_does_not_record_its_images_is_an_error_that_asks_for_them():
    run = save()
    with pytest.raises(RunError, match="name IMAGES"):
        located_source(run.path, run.card)


def test_a_run_whose_card_is_of_an_earlier_version_has_no_json_object():
    with pytest.raises(RunError, match=r"expected model in .*card\.json, found none: fit again"):
        save().to_json()

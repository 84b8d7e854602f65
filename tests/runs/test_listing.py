import json
from pathlib import Path

import pytest

from bottleneck.errors import RunError
from bottleneck.runs.listing import RunFile, files_of, settings_of, size_of, summaries
from tests.conftest import write
from tests.runs.test_run import save


def unfinished(name="tuning", **settings):
    return write(Path("runs") / name / "finetune.json", json.dumps({"version": 1, **settings}).encode()).parent


def test_runs_are_listed_oldest_first_with_their_scores_and_bytes():
    first, second = save("zebra", cv=0.7, accuracy=0.6), save("ant", cv=0.9)
    found = summaries("runs")
    assert [run.name for run in found] == [first.name, second.name]
    assert (found[0].kind, found[0].head, found[0].cv_accuracy, found[0].accuracy) == ("fit", "logistic", 0.7, 0.6)
    assert found[0].bytes == sum(file.stat().st_size for file in first.path.iterdir())
    assert found[0].accuracy_ci95 is None, "cards of earlier versions lack it"
    assert json.loads(json.dumps(found[0].to_json()))["name"] == first.name


def test_an_unfinished_fine_tuning_is_listed_as_such_in_its_place():
    save("before")
    unfinished(number=2, model="resnet18-1234abcd", source="photos")
    save("after")
    found = summaries("runs")
    assert [run.is_finished for run in found] == [True, False, True]
    assert (found[1].kind, found[1].model, found[1].source) == ("unfinished", "resnet18-1234abcd", "photos")
    assert found[1].accuracy is None


def test_what_is_not_a_run_is_not_listed(tmp_path):
    run = save()
    write(Path("runs/notes/thesis.tex"), b"mine")
    write(Path("runs/.tmp-12-0123abcd/finetune.json"), b'{"version": 1}')
    Path("runs/link").symlink_to(write(tmp_path / "away/finetune.json", b'{"version": 1}').parent)
    assert [found.name for found in summaries("runs")] == [run.name]
    assert summaries("nowhere") == []


def test_a_file_instead_of_a_folder_of_runs_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="expected a folder of runs"):
        summaries("runs")


def test_settings_that_are_damaged_are_empty():
    assert settings_of(write(Path("runs/x/finetune.json"), b"[1]").parent) == {}
    assert settings_of(write(Path("runs/y/finetune.json"), b"{").parent) == {}
    assert [(run.name, run.number) for run in summaries("runs")] == [("x", 0), ("y", 0)]


def test_files_are_listed_below_too_but_links_are_not(tmp_path):
    folder = write(tmp_path / "run/checkpoint/state.json", b"12345").parents[1]
    write(folder / "card.json", b"123")
    (folder / "link").symlink_to(write(tmp_path / "large", b"x" * 100))
    assert files_of(folder) == [RunFile("card.json", 3), RunFile("checkpoint/state.json", 5)]
    assert size_of(folder) < 100

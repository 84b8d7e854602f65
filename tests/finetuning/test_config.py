import json
from types import SimpleNamespace

import pytest

from bottleneck.errors import BottleneckError, RunError
from bottleneck.finetuning.config import Settings, load_settings, save_settings, unfinished
from bottleneck.finetuning.recipe import Recipe
from tests.conftest import write
from tests.finetuning.small import dataset

FULL = Settings(
    recipe=Recipe(unfreeze=("a*",), lr_mult=(("b", 0.5),)),
    begin="weights",
    run="/r",
    model="m",
    source="/s",
    dataset="d",
)


@pytest.mark.parametrize("settings", [Settings(recipe=Recipe()), FULL])
def test_they_come_back_as_they_were(tmp_path, settings):
    save_settings(tmp_path, settings)
    assert load_settings(tmp_path) == settings
    assert json.loads((tmp_path / "finetune.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "cannot read"),
        (lambda file: file.write_text("{"), "cannot read"),
        (lambda file: file.write_text("[]"), "cannot read"),
        (lambda file: file.write_text('"text"'), "cannot read"),
        (lambda file: file.write_text("{}"), "cannot read"),
        (lambda file: file.write_text('{"version": 1}'), "cannot read"),
        (lambda file: file.write_text('{"version": 1, "recipe": {}, "odd": 1}'), "cannot read"),
        (lambda file: file.write_text('{"version": 1, "recipe": {"odd": 1}}'), "cannot read"),
        (lambda file: file.write_text('{"version": 1, "recipe": {"epochs": "x"}}'), "cannot read"),
        (lambda file: file.write_text('{"version": 2, "recipe": {}}'), "version 1 .*, found 2"),
    ],
)
def test_damaged_ones_and_those_of_another_version_are_refused(tmp_path, damage, message):
    save_settings(tmp_path, FULL)
    damage(tmp_path / "finetune.json")
    with pytest.raises(RunError, match=message):
        load_settings(tmp_path)


def test_a_recipe_that_makes_no_sense_is_a_sentence_too(tmp_path):
    (tmp_path / "finetune.json").write_text('{"version": 1, "recipe": {"epochs": 0}}')
    with pytest.raises(BottleneckError, match="epochs"):
        load_settings(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        save_settings(write(tmp_path / "file", b"") / "folder", FULL)


def test_what_was_left_to_be_found_is_filled_in_and_held(tmp_path):
    images = dataset(tmp_path)
    origin = SimpleNamespace(
        usable=images, dataset=images, run=None, store=SimpleNamespace(short_name="resnet18-01234567")
    )
    found = Settings(recipe=Recipe()).of(origin)
    assert (found.dataset, found.model, found.source) == (images.fingerprint(), "resnet18-01234567", str(tmp_path))
    assert found.of(origin) == found
    other = SimpleNamespace(**{**vars(origin), "usable": images.subset([0, 1])})
    with pytest.raises(RunError, match="begin again, without --resume"):
        found.of(other)


def begun(runs, name, ended=False):
    folder = runs / name
    folder.mkdir(parents=True)
    save_settings(folder, FULL)
    if ended:
        (folder / "card.json").write_text("{}")
    return folder


def test_unfinished_by_name_by_path_and_the_last(tmp_path):
    runs = tmp_path / "runs"
    first = begun(runs, "20260101-000000-a")
    second = begun(runs, "20260102-000000-a")
    ended = begun(runs, "20260103-000000-a", ended=True)
    assert unfinished(runs, "last") == second
    assert unfinished(runs, first.name) == first
    assert unfinished(runs, first) == first
    with pytest.raises(RunError, match="has ended: there is nothing"):
        unfinished(runs, ended.name)
    with pytest.raises(RunError, match=f"not ended in .* are: {first.name}, {second.name}"):
        unfinished(runs, "other")


def test_nothing_unfinished(tmp_path):
    with pytest.raises(RunError, match="found none: nothing is to be resumed"):
        unfinished(tmp_path / "runs", "last")
    with pytest.raises(RunError, match="are: none"):
        unfinished(tmp_path / "runs", "other")


def test_of_those_of_one_second_the_last_is_the_one_with_the_largest_number(tmp_path):
    for name in ("a", "a-2", "a-9", "a-10"):
        begun(tmp_path, f"20260101-000000-{name}")
    assert unfinished(tmp_path, "last").name.endswith("a-10")


def test_the_last_that_began_is_not_told_by_a_clock_that_jumped_back(tmp_path):
    begun(tmp_path, "20310101-000000-a")
    last = begun(tmp_path, "20260101-000000-a")
    assert unfinished(tmp_path, "last") == last


def test_of_earlier_versions_the_name_tells_the_last_and_a_new_one_comes_after(tmp_path):
    for name in ("20310101-000000-a", "20260101-000000-a"):
        file = begun(tmp_path, name) / "finetune.json"
        file.write_text(
            json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "number"})
        )
    assert unfinished(tmp_path, "last").name == "20310101-000000-a"
    new = begun(tmp_path, "20200101-000000-a")
    assert unfinished(tmp_path, "last") == new

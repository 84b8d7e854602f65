import json
from types import SimpleNamespace

import pytest

from bottleneck.errors import BottleneckError, RunError
from bottleneck.finetuning.config import FineTuneConfig, load_config, save_config, unfinished
from bottleneck.finetuning.recipe import Recipe
from tests.conftest import write
from tests.finetuning.small import dataset
from tests.variants import each

FULL = FineTuneConfig(
    recipe=Recipe(unfreeze=("a*",), lr_mult=(("b", 0.5),)),
    begin="weights",
    run="/r",
    model="m",
    source="/s",
    dataset="d",
)


@each("settings", [FineTuneConfig(recipe=Recipe()), FULL])
def test_a_configuration_is_read_back(tmp_path, settings):
    save_config(tmp_path, settings)
    assert load_config(tmp_path) == settings
    assert json.loads((tmp_path / "finetune.json").read_text())["version"] == 1


@each(
    "damage, message",
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
def test_damage_and_other_versions_are_refused(tmp_path, damage, message):
    save_config(tmp_path, FULL)
    damage(tmp_path / "finetune.json")
    with pytest.raises(RunError, match=message):
        load_config(tmp_path)


def test_an_invalid_recipe_gives_a_clear_error(tmp_path):
    (tmp_path / "finetune.json").write_text('{"version": 1, "recipe": {"epochs": 0}}')
    with pytest.raises(BottleneckError, match="epochs"):
        load_config(tmp_path)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(RunError, match="cannot write"):
        save_config(write(tmp_path / "file", b"") / "folder", FULL)


def test_defaults_are_resolved_and_images_checked(tmp_path):
    images = dataset(tmp_path)
    store = SimpleNamespace(short_name="resnet18-01234567")
    initial = SimpleNamespace(run=None, cached=SimpleNamespace(usable=images, dataset=images, store=store))
    found = FineTuneConfig(recipe=Recipe()).resolved(initial)
    assert (found.dataset, found.model, found.source) == (images.fingerprint(), "resnet18-01234567", str(tmp_path))
    assert found.resolved(initial) == found
    other = SimpleNamespace(run=None, cached=SimpleNamespace(**{**vars(initial.cached), "usable": images.subset([0])}))
    with pytest.raises(RunError, match="begin again, without --resume"):
        found.resolved(other)


def begun(runs, name, ended=False):
    folder = runs / name
    folder.mkdir(parents=True)
    save_config(folder, FULL)
    if ended:
        (folder / "card.json").write_text("{}")
    return folder


def test_unfinished_runs_are_found_by_name_by_path_and_as_the_last(tmp_path):
    runs = tmp_path / "runs"
    first = begun(runs, "20260101-000000-a")
    second = begun(runs, "20260102-000000-a")
    ended = begun(runs, "20260103-000000-a", ended=True)
    assert unfinished(runs, "last") == second
    assert unfinished(runs, first.name) == first
    assert unfinished(runs, first) == first
    with pytest.raises(RunError, match="has ended: there is nothing"):
        unfinished(runs, ended.name)
    with pytest.raises(RunError, match=f"unfinished in .*: {first.name}, {second.name}"):
        unfinished(runs, "other")


def test_without_unfinished_runs_there_is_an_error(tmp_path):
    with pytest.raises(RunError, match="there is nothing to resume"):
        unfinished(tmp_path / "runs", "last")
    with pytest.raises(RunError, match=r"unfinished in .*: none"):
        unfinished(tmp_path / "runs", "other")


def test_runs_of_one_second_are_ordered_by_number(tmp_path):
    for name in ("a", "a-2", "a-9", "a-10"):
        begun(tmp_path, f"20260101-000000-{name}")
    assert unfinished(tmp_path, "last").name.endswith("a-10")


def test_the_last_run_does_not_depend_on_the_clock(tmp_path):
    begun(tmp_path, "20310101-000000-a")
    last = begun(tmp_path, "20260101-000000-a")
    assert unfinished(tmp_path, "last") == last


def test_runs_of_earlier_versions_are_ordered_by_name_and_come_first(tmp_path):
    for name in ("20310101-000000-a", "20260101-000000-a"):
        file = begun(tmp_path, name) / "finetune.json"
        file.write_text(
            json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "number"})
        )
    assert unfinished(tmp_path, "last").name == "20310101-000000-a"
    new = begun(tmp_path, "20200101-000000-a")
    assert unfinished(tmp_path, "last") == new

"""Errors of a fine-tuning that is refused, or that cannot go on, on a small network."""

import json
from dataclasses import replace

import pytest

from bottleneck.errors import RunError, TuningError
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.outline import Outline
from bottleneck.runs.images import Role
from bottleneck.runs.run import list_runs
from tests.finetuning.conftest import LEARNS

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights:bottleneck.errors.BottleneckWarning")

RECIPE = replace(LEARNS, epochs=1, last=0, unfreeze=(), momentum=0.0)  # the optimizer has no state


def test_arguments_that_contradict_each_other_are_refused():
    for message, arguments in (
        ("expected begin to be one of head, weights, got 'middle'", {"begin": "middle"}),
        ("expected begin='head' with folds", {"begin": "weights", "folds": 3}),
        ("keeps its own recipe and start: pass resume without them", {"resume": "last", "recipe": RECIPE}),
        ("keeps its own recipe and start: pass resume without them", {"resume": "last", "begin": "weights"}),
        ("keeps its own recipe and start: pass resume without them", {"resume": "last", "folds": 2}),
    ):
        with pytest.raises(TuningError, match=message):
            finetune(**arguments)


def at(event_kind, action):
    """Return a callback that does something with the folder of the run at the last event of a kind."""
    folders = []

    def watch(event):
        if isinstance(event, Outline):
            folders.append(event.path)
        if isinstance(event, event_kind) and getattr(event, "number", 1):
            action(folders[0])

    return watch


def test_a_checkpoint_that_cannot_be_written_is_an_error(home):
    with pytest.raises(RunError, match=r"cannot write a checkpoint to .*checkpoint: .*--resume [^/]+` continues"):
        finetune(recipe=RECIPE, watch=at(Outline, lambda path: (path / "checkpoint").touch()))


def test_a_run_that_cannot_be_written_is_resumed_with_its_own_recipe_even_if_the_images_of_its_head_are_lost(home):
    (head,) = list_runs("runs")
    with pytest.raises(RunError, match=r"cannot write to .*model\.safetensors, found a folder"):
        finetune(recipe=RECIPE, watch=at(Epoch, lambda path: (path / "model.safetensors").mkdir()))
    (folder,) = [path for path in (home / "runs").iterdir() if path.name != head.name]
    (folder / "model.safetensors").rmdir()
    (head.path / "images.safetensors").write_text("damaged")

    settings = (folder / "finetune.json").read_text()
    other = json.loads(settings)
    other["recipe"].update(last=1)
    (folder / "finetune.json").write_text(json.dumps(other))
    with pytest.raises(RunError, match=r"expected a checkpoint of this recipe in .*found one of another recipe"):
        finetune(resume="last")

    (folder / "finetune.json").write_text(settings)
    done = finetune(resume="last")
    assert done.name == folder.name
    assert done.images.role_of(done.images.digests).tolist().count(Role.HELD_OUT) == 18

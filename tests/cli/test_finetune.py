import contextlib
import inspect
import io
import json
import shutil
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from bottleneck.cli.main import cli
from bottleneck.errors import BottleneckWarning, TuningError
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.history import Epoch
from bottleneck.finetuning.recipe import CHOICES, REAL, WHOLE, Recipe
from bottleneck.runs.run import list_runs
from tests.finetuning.conftest import Killed, fitted, make_images, remember
from tests.variants import each

MODEL = "timm/test_resnet"
QUICK = ("--last", "0", "--augment", "none", "--precision", "fp32")
KEYS = {
    "run", "from_run", "start_accuracy", "accuracy", "accuracy_ci95", "best_epoch", "epochs", "trained_parameters",
    "seconds_per_epoch", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a folder with a run and what fine-tuning caches."""
    root = tmp_path_factory.mktemp("made")
    fitted(root, make_images(root / "images"), model=MODEL)
    return root


@pytest.fixture
def home(made, tmp_path, monkeypatch) -> Path:
    for name in ("cache", "runs"):
        shutil.copytree(made / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    remember(made / "images")
    return tmp_path


def run(*words, code=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)
        found = CliRunner().invoke(cli, ["finetune", *map(str, words)])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


def tuned():
    return [one for one in list_runs("runs") if one.is_tuned]


def test_progress_is_on_stderr_and_the_result_on_stdout(home):
    out, err = run(*QUICK, "--epochs", "2", "--folds", "2")
    lines = err.splitlines()
    assert any(line.startswith(f"{MODEL} with the logistic head of 2") for line in lines)
    assert "trains the head alone: 291 parameters in fp32; 372,688 stay frozen" in err
    assert "36 training images; 18 validation images; 18 held-out images (test)" in err
    assert "activations at global_pool (96), 1 view of each training image:" in err
    assert "all labels equal, probabilities within" in err
    assert [line.split()[0] for line in lines if line[:5].strip().isdigit()] == ["0", "1", "2"]
    assert "then 2 folds of the training images, to compare fine-tuning with the head" in err
    folds = [line for line in lines if line.startswith("fold ")]
    assert [line.partition(": of 18 images, the fine-tuned network classifies ")[0] for line in folds] == [
        "fold 1 of 2",
        "fold 2 of 2",
    ]
    lines = out.splitlines()
    assert "of 2" in lines[0]
    assert lines[1].startswith("accuracy ")
    assert "95 % interval" in lines[1]
    assert "before fine-tuning" in lines[1]
    assert (
        "by 2 folds of 36 training images, each classified by a network and a head that were not trained on it:" in out
    )
    assert lines[-1].startswith("0 failed; runs/2")
    assert lines[-1].endswith("curves.png")
    assert not set(lines) & set(err.splitlines())


def test_the_options_are_those_of_the_recipe_and_json_is_one_object(home):
    (before,) = list_runs("runs")
    words = [
        "--unfreeze", "layer4.0.conv2", "--unfreeze", "fc", "--lr-mult", "layer4=0.1", "--lr-mult", "fc=2",
        "--epochs", "1", "--batch-size", "5", "--optimizer", "adamw", "--lr", "0.01", "--weight-decay", "0.2",
        "--layer-decay", "0.5", "--schedule", "step", "--step-epochs", "3", "--warmup", "0.5",
        "--label-smoothing", "0.1", "--class-weight",
        "balanced", "--clip", "2", "--ema", "0.9", "--patience", "4", "--augment", "standard", "--views", "1", "--seed",
        "7", "--precision", "fp32", "--train-bn", "--momentum", "0.8",
    ]  # fmt: skip
    out, _ = run(*words, "--json")
    (done,) = tuned()
    assert Recipe(**done.card["recipe"]) == Recipe(
        unfreeze=("layer4.0.conv2", "fc"), train_bn=True, epochs=1, batch_size=5, optimizer="adamw", lr=0.01,
        momentum=0.8, weight_decay=0.2, lr_mult=(("layer4", 0.1), ("fc", 2.0)), layer_decay=0.5, schedule="step",
        step_epochs=3, warmup=0.5, label_smoothing=0.1, class_weight="balanced", clip=2.0, precision="fp32", ema=0.9,
        patience=4, augment="standard", views=1, seed=7,
    )  # fmt: skip

    found = json.loads(out)
    assert set(found) >= KEYS
    assert (found["run"], found["from_run"]) == (str(done.path), before.name)
    assert found["start_accuracy"] == before.metrics["accuracy"]
    assert (found["accuracy"], found["epochs"]) == (done.metrics["accuracy"], 1)
    assert found["accuracy_ci95"][0] <= found["accuracy"] <= found["accuracy_ci95"][1]
    assert found["best_epoch"] in (0, 1)
    assert found["trained"] == done.card["trained"]
    assert found["trained_parameters"] > 3 * 97
    assert 0 < found["seconds_per_epoch"] < found["seconds"]
    assert (found["n_train"], found["n_validation"], found["n_heldout"]) == (36, 18, 18)
    assert len(found["curves"]) == 2
    assert found["problem"] is None
    assert found["heldout_test"] == done.card["heldout_test"]
    assert found["fold_test"] is None


OPTIONS = {option.name: option for option in cli.get_command(None, "finetune").params}


DEFAULTS = cli.get_command(None, "finetune").make_context("finetune", []).params


def test_the_defaults_of_the_options_are_those_of_the_recipe():
    assert Recipe(**{field.name: DEFAULTS[field.name] for field in fields(Recipe)}) == Recipe()


@each("name", [*WHOLE, *REAL])
def test_each_option_has_the_range_of_the_recipe(name):
    kind, step = OPTIONS[name].type, 1 if name in WHOLE else 1e-9
    least = kind.min + step if getattr(kind, "min_open", False) else kind.min
    assert Recipe(**{name: least if name != "clip" else step})
    with pytest.raises(TuningError, match=f"expected {name} to be"):
        Recipe(**{name: kind.min - (0 if getattr(kind, "min_open", False) else step)})
    if kind.max < 1e6 or name == "seed":
        most = kind.max - step if getattr(kind, "max_open", False) else kind.max
        assert Recipe(**{name: most})
        with pytest.raises(TuningError, match=f"expected {name} to be"):
            Recipe(**{name: most + step})


@each("name", CHOICES)
def test_each_option_has_the_choices_of_the_recipe(name):
    assert tuple(OPTIONS[name].type.choices) == CHOICES[name]


def test_the_other_options_have_the_defaults_of_the_function():
    parameters = inspect.signature(finetune).parameters
    for name in ("begin", "run", "model", "cache", "runs", "device", "views_limit", "memory", "folds", "resume"):
        assert DEFAULTS[name] == parameters[name].default, name


@each(
    "words, message",
    [
        (["--lr-mult", "layer4"], "expected PATTERN=X such as layer4=0.1, got layer4"),
        (["--lr-mult", "=0.1"], "expected PATTERN=X"),
        (["--lr-mult", "layer4=x"], "expected PATTERN=X"),
        (["--lr-mult", "layer4=-1"], "expected PATTERN=X"),
        (["--lr-mult", "layer4=inf"], "expected PATTERN=X"),
        (["--lr-mult", "layer4=nan"], "expected PATTERN=X"),
        (["--unfreeze", "layer4", "--last", "1"], "--unfreeze"),
        (["--head-init", "random"], "add --from weights"),
        (["--model", "resnet18"], "--model needs --from weights"),
        (["--from", "weights", "--head-init", "head"], "remove --head-init"),
        (["--from", "weights", "--run", "one"], "--run selects a head"),
        (["--from", "weights", "--folds", "3"], "--folds compares with a head"),
        (["--folds", "1"], "--folds"),
        (["--batch-size", "1", "--train-bn"], "--batch-size"),
        (["--epochs", "0"], "--epochs"),
        (["--lr", "0"], "--lr"),
        (["--momentum", "1"], "--momentum"),
        (["--ema", "1"], "--ema"),
        (["--last", "-1"], "--last"),
        (["--optimizer", "adam"], "--optimizer"),
        (["--odd"], "--odd"),
    ],
)
def test_contradicting_options_are_usage_errors(words, message):
    out, err = run(*words, code=2)
    assert out == ""
    assert message in err
    assert "Usage: " in err
    assert not Path("runs").exists()


@each(
    "words, message",
    [
        (["--unfreeze", "layr4"], "did you mean layer4"),
        (["--last", "9"], "expected at most 5 stages to train"),
        (["--run", "nothing"], "runs/nothing"),
        (["--lr-mult", "layer1=0.1"], "'layer1' fits none"),
        (["--views-limit", "0"], "--views 0"),
        (["--resume"], "there is nothing to resume"),
        (["--resume", "nothing"], "runs/nothing"),
        (["--runs", "elsewhere"], "and `bottleneck fit`"),
    ],
)
def test_an_error_is_one_sentence(home, tmp_path, words, message):
    out, err = run("--cache", home / "cache", "--runs", home / "runs", *words, code=1)
    assert out == ""
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in err
    assert not [one for one in list_runs(home / "runs") if one.is_tuned]


def test_with_json_an_error_is_an_object(home):
    out, err = run("--unfreeze", "layr4", "--json", code=1)
    assert json.loads(out)["error"]["type"] == "UnknownModule"
    assert "error: " in err


def test_divergence_is_reported_and_saves_a_run(home):
    words = ["--last", "1", "--epochs", "2", "--lr", "1e29", "--augment", "none", "--precision", "fp32"]
    out, err = run(*words, "--json", code=1)
    found = json.loads(out)
    (done,) = tuned()
    assert found["run"] == str(done.path)
    assert found["best_epoch"] == 0
    assert found["accuracy"] == found["start_accuracy"]
    assert "smaller learning rate" in found["problem"]
    assert found["problem"] in err.splitlines()[-1]
    assert "was better than the head" in err
    assert err.splitlines()[-1].startswith("error: expected finite losses")


class Interrupting(io.StringIO):
    """A stream of which a line is interrupted by Ctrl-C."""

    def write(self, text):
        written = super().write(text)
        if text.startswith("fold 1 of 2"):
            raise KeyboardInterrupt
        return written


def kill_after(number):
    """Begin a fine-tuning and leave it after an epoch, as a kill does."""

    def watch(event):
        if isinstance(event, Epoch) and event.number == number:
            raise Killed

    recipe = Recipe(last=0, augment="none", precision="fp32", epochs=3, seed=5)
    with pytest.raises(Killed):
        finetune(recipe=recipe, watch=watch)


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
def test_resume_continues_the_named_run(home):
    kill_after(1)
    (left,) = [path for path in Path("runs").iterdir() if not (path / "card.json").exists()]
    out, err = run("--json", "--resume", left.name)
    found = json.loads(out)
    assert Path(found["run"]).name == left.name
    assert found["epochs"] == 3
    assert f"continues after epoch 1 in runs/{left.name}" in err
    (done,) = tuned()
    assert done.card["recipe"]["seed"] == 5  # its own options


def test_an_interrupt_between_folds_says_how_to_resume_and_resume_continues_the_last_run(home):
    words = ["finetune", *QUICK, "--epochs", "1", "--folds", "2"]
    with contextlib.redirect_stderr(Interrupting()) as err, pytest.raises(SystemExit) as end:
        cli.main(words)
    assert end.value.code == 130
    assert "Stopped after epoch 1 and fold 1. To continue: bottleneck finetune --resume" in err.getvalue()
    out, err = run("--resume", "--json")
    assert [line[:11] for line in err.splitlines() if line.startswith("fold ")] == ["fold 2 of 2"]
    assert json.loads(out)["fold_test"] == tuned()[0].card["fold_test"] is not None


def test_from_weights_starts_with_a_random_layer(home):
    out, err = run("--from", "weights", "--head-init", "random", "--model", MODEL, "--epochs", "1", *QUICK, "--json")
    assert json.loads(out)["from_run"] is None
    assert "with a random last layer" in err

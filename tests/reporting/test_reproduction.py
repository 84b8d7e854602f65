"""Commands that make a run again, without private folders."""

import shlex

from bottleneck.cli.main import cli
from bottleneck.reporting.reproduction import reproduction
from tests.variants import each


def parsed(line):
    """Return the command of a line, and its options as click reads them."""
    _, name, *words = shlex.split(line)
    command = cli.commands[name]
    return name, command.make_context(name, words).params


def test_the_commands_are_those_that_made_the_run(other):
    extract, fit = reproduction(other()).commands
    name, options = parsed(fit)
    assert name == "fit"
    assert (options["images"], options["head"], options["C"], options["split"]) == (
        "images",
        "logistic",
        (0.001, 0.01),
        "50/0/50",
    )
    assert (options["folds"], options["seed"]) == (3, 1)
    assert parsed(extract)[1]["model"] == "resnet18"


@each(
    "entries, option, value",
    [
        ({"head": "svm", "params": {"C": 1.0, "kernel": "rbf"}}, "kernel", "rbf"),
        ({"normalize": "l2"}, "normalize", "l2"),
        ({"class_weight": "balanced"}, "class_weight", "balanced"),
        ({"final": {"n_train": 1, "agreement": 1.0, "tested_sha256": "0"}}, "final", True),
        ({"head": "softmax", "params": {"dropout": 0.5}}, "dropout", 0.5),
    ],
)
def test_options_that_are_not_the_default_are_named(entries, option, value, other):
    assert parsed(reproduction(other(**entries)).commands[-1])[1][option] == value


def test_a_fine_tuning_names_its_run_and_its_recipe(other):
    recipe = {"last": 2, "epochs": 3, "unfreeze": [], "lr_mult": [["layer4", 0.1]], "train_bn": True, "momentum": 0.9,
              "optimizer": "adamw", "lr": 1e-5}  # fmt: skip
    tuned = other(kind="finetune", recipe=recipe, **{"from": {"run": "first"}})
    (line,) = reproduction(tuned).commands
    options = "--last 2 --epochs 3 --lr-mult layer4=0.1 --train-bn --optimizer adamw"
    assert line == f"bottleneck finetune images --run first {options}"
    assert parsed(line)[1]["epochs"] == 3


def test_hashes_and_versions_are_listed_and_nothing_is_private(made, other):
    found = reproduction(other())
    facts = dict(found.facts)
    assert facts["spec of the features (SHA-256)"] == other().card["fingerprint"]
    assert facts["seed"] == "1"
    assert found.versions["numpy"]
    assert str(made) not in repr(found)


def test_a_weights_file_is_named_without_its_folder(other):
    request = {"model": "resnet18", "weights": "/home/me/private/best.safetensors", "seed": 0}
    extract, _ = reproduction(other(request=request)).commands
    assert extract == "bottleneck extract images --model resnet18 --weights best.safetensors"


def test_an_old_card_has_what_it_records(other):
    bare = other(request=None, search={"cv_accuracy": 0.5}, seed=None, versions=None, engines=None)
    assert reproduction(bare).versions == {}
    assert reproduction(bare).commands[1].startswith("bottleneck fit images --head logistic")

import json
import math

import numpy as np
import pytest

from bottleneck.errors import TuningError
from bottleneck.finetuning.recipe import LEARNING_RATES, Recipe
from tests.variants import each

UNUSUAL = Recipe(
    unfreeze=("layer3", "layer4*"), train_bn=True, epochs=3, batch_size=4, optimizer="adamw", lr=0.02, momentum=0.5,
    weight_decay=0.1, lr_mult=(("layer3", 0.1), ("*.conv1", 2.0)), layer_decay=0.7, schedule="step", step_epochs=2,
    warmup=0.5, label_smoothing=0.2, class_weight="balanced", clip=1.5, precision="bf16", ema=0.99, patience=4,
    augment="strong", views=0, seed=2**32 - 1,
)  # fmt: skip


@each("recipe", [Recipe(), Recipe(last=0), UNUSUAL])
def test_it_is_restored_from_json(recipe):
    again = Recipe(**json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert isinstance(again.unfreeze, tuple)
    assert all(isinstance(pair, tuple) for pair in again.lr_mult)


def test_the_default_learning_rate_depends_on_the_optimizer():
    assert {name: Recipe(optimizer=name).lr for name in LEARNING_RATES} == {"sgd": 3e-4, "adamw": 1e-5}
    assert Recipe(lr=0.5).largest_lr == 0.5


@each(
    "name, value",
    [
        ("epochs", 0), ("batch_size", 0), ("optimizer", "adam"), ("lr", 0), ("lr", -1.0), ("lr", math.inf),
        ("lr", math.nan), ("momentum", 1.0), ("momentum", -0.1), ("momentum", math.nan), ("weight_decay", -1e-9),
        ("weight_decay", math.inf), ("weight_decay", math.nan), ("layer_decay", 0.0), ("layer_decay", 1.1),
        ("layer_decay", math.nan), ("schedule", "linear"), ("step_epochs", 0), ("warmup", -1), ("warmup", math.inf),
        ("warmup", math.nan), ("label_smoothing", 1.0), ("label_smoothing", -0.1), ("class_weight", "inverse"),
        ("clip", 0.0), ("clip", math.inf), ("clip", math.nan), ("precision", "fp16"), ("ema", 0.0), ("ema", 1.0),
        ("patience", 0), ("augment", "mixup"), ("views", -1), ("last", -1), ("seed", -1), ("seed", 2**32),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(name, value):
    with pytest.raises(TuningError, match=f"expected {name} to be .*, got {value!r}"):
        Recipe(**{name: value})


@each("factor", [-0.1, math.inf, math.nan])
def test_invalid_factors_are_refused(factor):
    with pytest.raises(TuningError, match="lr_mult of layer4 to be 0 or more"):
        Recipe(lr_mult=(("layer4", factor),))


def test_train_bn_needs_two_images():
    assert Recipe(batch_size=1)
    with pytest.raises(TuningError, match="batch_size to be 2 or more with train_bn, got 1"):
        Recipe(batch_size=1, train_bn=True)


def test_unfreeze_and_last_exclude_each_other():
    with pytest.raises(TuningError, match="either unfreeze or last, got both"):
        Recipe(unfreeze=("layer4",), last=0)


@each(
    "good",
    [
        {"epochs": 1}, {"momentum": 0}, {"weight_decay": 0}, {"layer_decay": 1}, {"warmup": 0.25}, {"clip": 1e-9},
        {"views": 0}, {"last": 0}, {"patience": 1}, {"lr_mult": (("a", 0),)}, {"seed": 0},
    ],
)  # fmt: skip
def test_the_bounds_of_each_range_are_accepted(good):
    assert Recipe(**good)


PLAIN = {
    "epochs": 3, "batch_size": 8, "lr": 0.25, "momentum": 0.5, "weight_decay": 0.125, "layer_decay": 0.5,
    "step_epochs": 2, "warmup": 1.0, "label_smoothing": 0.125, "clip": 2.0, "ema": 0.5, "patience": 2, "views": 2,
    "seed": 5, "train_bn": True, "unfreeze": ("layer4",), "lr_mult": (("layer4", 0.5),), "optimizer": "adamw",
}  # fmt: skip


def of_numpy(value):
    kinds = {bool: np.bool_, int: np.int64, float: np.float32, str: np.str_}
    return kinds[type(value)](value) if type(value) in kinds else np.array(value, object)


@each("convert", [of_numpy, lambda value: np.array(of_numpy(value)) if np.ndim(value) == 0 else list(value)])
def test_numbers_flags_and_lists_of_numpy_make_the_same_recipe(convert):
    recipe = Recipe(**{name: convert(value) for name, value in PLAIN.items()})

    assert recipe == Recipe(**PLAIN)
    assert json.loads(json.dumps(recipe.to_json())) == json.loads(json.dumps(Recipe(**PLAIN).to_json()))


def test_series_and_dicts_make_the_same_recipe():
    pandas = pytest.importorskip("pandas")
    row = pandas.DataFrame({"epochs": [3, 4], "lr": [0.25, 1.0]}).iloc[0]  # whose numbers are all float64
    recipe = Recipe(
        epochs=row.epochs, lr=row.lr, unfreeze=pandas.Series(["layer4"]), lr_mult={"layer4": np.float64(0.5)}
    )

    assert recipe == Recipe(epochs=3, lr=0.25, unfreeze="layer4", lr_mult=(("layer4", 0.5),))


@each(
    "wrong",
    [
        {"epochs": True}, {"epochs": 2.5}, {"epochs": "3"}, {"epochs": np.nan}, {"epochs": [3]}, {"lr": "fast"},
        {"lr": np.array([0.1])}, {"train_bn": "no"}, {"train_bn": None}, {"seed": 1.5}, {"last": "1"}, {"unfreeze": 4},
        {"unfreeze": {"layer4": 1}}, {"lr_mult": 0.5}, {"lr_mult": ["layer4"]}, {"lr_mult": [("layer4", "0.5")]},
        {"lr_mult": [(4, 0.5)]}, {"optimizer": None}, {"augment": ["light"]}, {"clip": True}, {"ema": "0.9"},
    ],
    ids=repr,
)  # fmt: skip
def test_values_of_another_type_are_refused_by_name(wrong):
    (name,) = wrong
    with pytest.raises(TuningError, match=f"expected (a module of )?{name}.* to be"):
        Recipe(**wrong)

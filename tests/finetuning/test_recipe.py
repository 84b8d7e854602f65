import json
import math

import pytest

from bottleneck.errors import TuningError
from bottleneck.finetuning.recipe import LEARNING_RATES, Recipe

UNUSUAL = Recipe(
    unfreeze=("layer3", "layer4*"), train_bn=True, epochs=3, batch_size=4, optimizer="adamw", lr=0.02, momentum=0.5,
    weight_decay=0.1, lr_mult=(("layer3", 0.1), ("*.conv1", 2.0)), layer_decay=0.7, schedule="step", step_epochs=2,
    warmup=0.5, label_smoothing=0.2, class_weight="balanced", clip=1.5, precision="bf16", ema=0.99, patience=4,
    augment="strong", views=0, seed=2**32 - 1,
)  # fmt: skip


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(last=0), UNUSUAL])
def test_it_comes_back_from_json_as_it_was(recipe):
    again = Recipe(**json.loads(json.dumps(recipe.to_json())))
    assert again == recipe
    assert isinstance(again.unfreeze, tuple)
    assert all(isinstance(pair, tuple) for pair in again.lr_mult)


def test_the_learning_rate_is_that_of_the_optimiser():
    assert {name: Recipe(optimizer=name).lr for name in LEARNING_RATES} == {"sgd": 3e-4, "adamw": 1e-5}
    assert Recipe(lr=0.5).largest_lr == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
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
def test_what_makes_no_sense_is_refused(name, value):
    with pytest.raises(TuningError, match=f"expected {name} to be .*, got {value!r}"):
        Recipe(**{name: value})


@pytest.mark.parametrize("factor", [-0.1, math.inf, math.nan])
def test_factors_that_make_no_sense_are_refused(factor):
    with pytest.raises(TuningError, match="lr_mult of layer4 to be 0 or more"):
        Recipe(lr_mult=(("layer4", factor),))


def test_one_image_has_no_statistics():
    assert Recipe(batch_size=1)
    with pytest.raises(TuningError, match="batch_size to be 2 or more with train_bn, got 1"):
        Recipe(batch_size=1, train_bn=True)


def test_what_is_trained_is_said_in_one_way():
    with pytest.raises(TuningError, match="either unfreeze or last, got both"):
        Recipe(unfreeze=("layer4",), last=0)


@pytest.mark.parametrize(
    "good",
    [
        {"epochs": 1}, {"momentum": 0}, {"weight_decay": 0}, {"layer_decay": 1}, {"warmup": 0.25}, {"clip": 1e-9},
        {"views": 0}, {"last": 0}, {"patience": 1}, {"lr_mult": (("a", 0),)}, {"seed": 0},
    ],
)  # fmt: skip
def test_the_ends_of_each_range_are_in_it(good):
    assert Recipe(**good)

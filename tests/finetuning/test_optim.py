import math

import pytest
import torch

from bottleneck.errors import TuningError
from bottleneck.finetuning.freeze import trainable_plan
from bottleneck.finetuning.optim import (
    build_optimizer,
    learning_rate,
    lr_multiplier,
    set_learning_rate,
    update_average,
)
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import known, small


def chosen(network, **options):
    recipe = Recipe(**options)
    found = trainable_plan(network, recipe, network.trace())
    return build_optimizer(network, found, recipe), found, recipe


def by_name(network, made):
    names = {id(parameter): name for name, parameter in network.parameters_by_name().items()}
    return {names[id(one)]: group for group in made.param_groups for one in group["params"]}


def test_vectors_have_no_weight_decay():
    network = small()
    made, found, _ = chosen(network, unfreeze=("all",), train_bn=True, weight_decay=0.3)
    groups = by_name(network, made)
    assert set(groups) == set(found.parameters)
    decays = {name: group["weight_decay"] for name, group in groups.items()}
    assert {name for name, decay in decays.items() if decay == 0.3} == {
        "stem.weight", "middle.0.weight", "last.0.weight", "fc.weight",  # not the bias, which is (4, 1, 1)
    }  # fmt: skip
    assert {decay for decay in decays.values()} == {0.0, 0.3}


def test_the_optimizers_are_those_of_torch():
    network = small()
    made, _, _ = chosen(network, momentum=0.7, lr=0.2)
    assert isinstance(made, torch.optim.SGD)
    assert {(group["momentum"], group["lr"]) for group in made.param_groups} == {(0.7, 0.2)}
    made, _, _ = chosen(network, optimizer="adamw")
    assert isinstance(made, torch.optim.AdamW)
    assert {group["lr"] for group in made.param_groups} == {1e-5}


def test_factors_of_several_patterns_multiply():
    network = small()
    made, _, _ = chosen(
        network, unfreeze=("middle", "last"), lr=1.0, lr_mult=(("middle", 0.1), ("*.weight", 0.5), ("fc", 3.0))
    )
    rates = {name: group["lr"] for name, group in by_name(network, made).items()}
    assert rates["middle.0.weight"] == pytest.approx(0.05)
    assert rates["middle.0.bias"] == pytest.approx(0.1)
    assert rates["last.0.weight"] == pytest.approx(0.5)
    assert rates["last.0.bias"] == 1.0
    assert rates["fc.weight"] == pytest.approx(1.5)
    set_learning_rate(made, 10.0)
    assert {name: group["lr"] for name, group in by_name(network, made).items()}["middle.0.bias"] == pytest.approx(1)


def test_a_factor_of_0_freezes_a_part():
    network = small()
    made, _, _ = chosen(network, unfreeze=("last",), lr_mult=(("last", 0.0),), lr=1.0)
    before = network.state()["last.0.weight"].clone()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    assert torch.equal(network.state()["last.0.weight"], before)


def test_earlier_layers_have_smaller_learning_rates():
    network = known("resnet18", 32)
    _, found, recipe = chosen(network, unfreeze=("all",), layer_decay=0.5)
    rates = {name: lr_multiplier(name, found, recipe) for name in found.parameters}
    assert rates["fc.weight"] == 1
    assert [rates[f"layer{number}.0.conv1.weight"] for number in (4, 3, 2, 1)] == [0.5, 0.25, 0.125, 0.0625]
    assert rates["conv1.weight"] == 0.5**5


def test_a_pattern_without_trained_parameters_is_refused():
    with pytest.raises(TuningError, match=r"'stem' fits none; .*The trained modules are last"):
        chosen(small(), unfreeze=("last",), lr_mult=(("stem", 0.1),))
    with pytest.raises(TuningError, match="trained modules are the head alone"):
        chosen(small(), last=0, lr_mult=(("stem", 0.1),))


def test_constant_schedule():
    recipe = Recipe(schedule="constant", lr=2.0, epochs=3)
    assert {learning_rate(recipe, step, 4) for step in range(12)} == {2.0}


def test_warm_up_rises_in_equal_steps_to_the_largest():
    recipe = Recipe(schedule="constant", lr=2.0, epochs=3, warmup=1.0)
    rates = [learning_rate(recipe, step, 4) for step in range(6)]
    assert rates == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0, 2.0])


def test_cosine_schedule():
    recipe = Recipe(schedule="cosine", lr=1.0, epochs=2)
    assert [learning_rate(recipe, step, 4) for step in (0, 2, 4, 6)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    )
    assert learning_rate(recipe, 7, 4) > 0


def test_cosine_after_a_warm_up_of_half_an_epoch():
    recipe = Recipe(schedule="cosine", lr=1.0, epochs=2, warmup=0.5)
    rates = [learning_rate(recipe, step, 4) for step in range(8)]  # two steps of warm-up, then six of a half period
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[5] == pytest.approx(0.5)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_step_schedule():
    recipe = Recipe(schedule="step", step_epochs=2, lr=1.0, epochs=5)
    rates = [learning_rate(recipe, epoch * 3 + step, 3) for epoch in range(5) for step in range(3)]
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 3)


def test_a_warm_up_longer_than_the_training_never_ends():
    recipe = Recipe(lr=1.0, epochs=1, warmup=3.0)
    assert [learning_rate(recipe, step, 2) for step in range(2)] == pytest.approx([1 / 7, 2 / 7])


def test_averages_move_towards_the_tensors_and_copy_counters():
    kept = {"w": torch.tensor([0.0, 10.0]), "n": torch.tensor(1)}
    held = kept["w"]
    update_average(kept, {"w": torch.tensor([1.0, 0.0]), "n": torch.tensor(5), "other": torch.zeros(1)}, 0.9)
    torch.testing.assert_close(kept["w"], torch.tensor([0.1, 9.0]))
    assert kept["n"].item() == 5
    assert kept["w"] is held

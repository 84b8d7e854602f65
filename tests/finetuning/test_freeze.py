import pytest
import torch
from torch import nn

from bottleneck.errors import TuningError, UnknownModule
from bottleneck.finetuning.freeze import is_norm, stages_in_order, trainable_plan
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import known, pixels, small
from tests.variants import each

RESNET = ["conv1+bn1", "layer1", "layer2", "layer3", "layer4"]


@pytest.fixture(scope="module")
def resnet():
    network = known("resnet18", 32)
    return network, network.trace()


@pytest.fixture(scope="module")
def vit():
    network = known("timm/vit_tiny_patch16_224", 32)
    return network, network.trace()


def planned(pair, **recipe):
    network, calls = pair
    return trainable_plan(network, Recipe(**recipe), calls)


def tops(found):
    return {name.partition(".")[0] for name in found.parameters}


def said(groups):
    return ["+".join(group) for group in groups]


def test_stages_are_in_running_order_and_include_their_norms(resnet):
    network, calls = resnet
    assert said(stages_in_order(network.base_model, calls)) == RESNET


class Backwards(nn.Module):
    """Defines its stages in another order than it runs them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.late = nn.Linear(4, 4)
        self.early = nn.Linear(3, 4)
        self.never = nn.Linear(4, 4)

    def forward(self, images):
        return self.fc(self.norm(self.late(self.early(images.mean((2, 3))))))


def test_stages_that_never_run_are_left_out():
    from tests.finetuning.small import made

    network = made(Backwards(), 4)
    assert said(stages_in_order(network.base_model, network.trace())) == ["early", "late+norm"]
    found = trainable_plan(network, Recipe(), network.trace())
    assert found.names == ("late", "norm")
    assert "never.weight" not in found.parameters


@each(
    "recipe, wanted",
    [
        ({}, {"layer4", "fc"}),
        ({"last": 0}, {"fc"}),
        ({"last": 2}, {"layer3", "layer4", "fc"}),
        ({"last": 5}, {"conv1", "layer1", "layer2", "layer3", "layer4", "fc"}),
        ({"unfreeze": ("layer3",)}, {"layer3", "fc"}),
        ({"unfreeze": ("layer[12]", "conv1")}, {"conv1", "layer1", "layer2", "fc"}),
        ({"unfreeze": ("fc",)}, {"fc"}),
        ({"unfreeze": ("all",)}, {"conv1", "layer1", "layer2", "layer3", "layer4", "fc"}),
        ({"unfreeze": ("*.conv2",)}, {"layer1", "layer2", "layer3", "layer4", "fc"}),
        ({"unfreeze": ("conv1.weight",)}, {"conv1", "fc"}),
    ],
)
def test_the_plan_lists_the_trained_parts(resnet, recipe, wanted):
    found = planned(resnet, **recipe)
    assert tops(found) == wanted
    total = sum(parameter.numel() for parameter in resnet[0].parameters_by_name().values())
    assert found.trained + found.frozen == total
    assert found.trained == sum(resnet[0].parameters_by_name()[name].numel() for name in found.parameters)


def test_a_pattern_matches_nested_modules_only(resnet):
    found = planned(resnet, unfreeze=("layer4.1.conv*",))
    assert found.parameters == ("layer4.1.conv1.weight", "layer4.1.conv2.weight", "fc.weight", "fc.bias")
    assert found.modules == {"layer4.1.conv1", "layer4.1.conv2"}


def test_a_name_does_not_match_as_a_prefix():
    network = known("timm/vit_tiny_patch16_224", 32)
    found = trainable_plan(network, Recipe(unfreeze=("blocks.1",)), network.trace())
    assert {".".join(name.split(".")[:2]) for name in found.parameters} == {"blocks.1", "head.weight", "head.bias"}


def test_a_pattern_can_name_a_parameter(vit):
    found = planned(vit, unfreeze=("pos_embed", "blocks.11"))
    assert {"pos_embed", "blocks.11.attn.qkv.weight", "head.weight"} <= set(found.parameters)
    assert "cls_token" not in found.parameters
    assert "pos_embed" not in found.modules
    assert found.depth["pos_embed"] > found.depth["blocks.11.attn.qkv.weight"] == 1 > found.depth["head.weight"] == 0


def test_all_trains_everything(vit):
    found = planned(vit, unfreeze=("all",))
    assert set(found.parameters) == set(vit[0].parameters_by_name())
    assert found.frozen == 0
    assert "" in found.modules


def test_the_stages_of_a_transformer(vit):
    order = said(stages_in_order(vit[0].base_model, vit[1]))
    assert order == ["patch_embed", *(f"blocks.{number}" for number in range(11)), "blocks.11+norm"]
    assert planned(vit).names == ("blocks.11", "norm")


def test_depth_counts_the_stages_after_a_parameter(resnet):
    depth = planned(resnet, unfreeze=("all",)).depth
    assert depth["fc.weight"] == 0
    assert [depth[name] for name in ("layer4.0.conv1.weight", "layer1.0.conv1.weight", "conv1.weight")] == [1, 4, 5]


def test_batch_norms_stay_frozen_unless_requested(resnet):
    frozen, trained = planned(resnet, unfreeze=("layer4",)), planned(resnet, unfreeze=("layer4",), train_bn=True)
    assert not [name for name in frozen.parameters if ".bn" in name or "downsample.1" in name]
    assert not frozen.buffers
    assert {"layer4.0.bn1.weight", "layer4.0.downsample.1.bias"} <= set(trained.parameters)
    assert {name.partition(".")[0] for name in trained.buffers} == {"layer4"}
    assert {"layer4.0.bn1.running_mean", "layer4.1.bn2.num_batches_tracked"} <= set(trained.buffers)


def test_layer_norms_are_not_batch_norms(vit):
    assert "blocks.11.norm1.weight" in planned(vit, unfreeze=("blocks.11",)).parameters
    assert not is_norm(nn.LayerNorm(3))
    assert not is_norm(nn.GroupNorm(1, 3))


def test_batch_norms_of_timm_with_an_activation_count():
    network = known("efficientnet_lite0", 32)
    found = trainable_plan(network, Recipe(unfreeze=("blocks.6",)), network.trace())
    assert not [name for name in found.parameters if ".bn" in name]


@each("train_bn", [False, True])
def test_only_trained_parts_are_in_training_mode(train_bn):
    network = small()
    found = trainable_plan(network, Recipe(unfreeze=("middle",), train_bn=train_bn), network.trace())
    network.train()
    found.set_modes(network)
    modes = {name: module.training for name, module in network.base_model.named_modules()}
    assert {name for name, training in modes.items() if training} == {
        "middle", "middle.0", "middle.2", "middle.3", *(["middle.1"] if train_bn else []),
    }  # fmt: skip
    assert not network.trunk.training


def test_dropout_is_active_in_trained_parts_only():
    network = small()
    images = pixels(network)
    for part, random in (("middle", True), ("last", False)):
        found = trainable_plan(network, Recipe(unfreeze=(part,)), network.trace())
        found.set_modes(network)
        with torch.no_grad():
            assert bool((network(images) != network(images)).any()) == random


def test_only_trained_batch_norms_update_statistics():
    for train_bn in (False, True):
        network = small()
        before = {name: value.clone() for name, value in network.state().items()}
        found = trainable_plan(network, Recipe(unfreeze=("last",), train_bn=train_bn), network.trace())
        found.set_modes(network)
        network(pixels(network))
        moved = {name for name, value in network.state().items() if not torch.equal(value, before[name])}
        assert moved == (set(found.buffers) if train_bn else set())
        assert bool(moved) == train_bn


def test_exactly_the_trained_parameters_get_gradients():
    network = small()
    found = trainable_plan(network, Recipe(unfreeze=("last",)), network.trace())
    found.apply(network)
    network(pixels(network)).sum().backward()
    with_gradient = {name for name, value in network.parameters_by_name().items() if value.grad is not None}
    assert with_gradient == {"last.0.weight", "last.0.bias", "fc.weight", "fc.bias"} == set(found.parameters)
    trainable_plan(network, Recipe(last=0), network.trace()).apply(network)
    assert {name for name, value in network.parameters_by_name().items() if value.requires_grad} == {
        "fc.weight",
        "fc.bias",
    }


@each(
    "pattern, hint",
    [("layr4", "did you mean layer4"), ("layer4.0.conv3", "did you mean layer4.0.conv"), ("zzzz", "found none; its")],
)
def test_an_unknown_name_gets_suggestions_and_the_stages(resnet, pattern, hint):
    with pytest.raises(UnknownModule) as caught:
        planned(resnet, unfreeze=("layer4", pattern))
    assert caught.value.pattern == pattern
    assert hint in str(caught.value)
    assert "stages are conv1+bn1, layer1, layer2, layer3, layer4;" in str(caught.value)
    assert "bottleneck inspect resnet18" in str(caught.value)


def test_more_stages_than_exist_are_refused(resnet):
    with pytest.raises(TuningError, match=r"at most 5 stages to train, got --last 6: conv1\+bn1, layer1"):
        planned(resnet, last=6)


def test_the_last_layer_of_squeezenet_is_trained_under_its_name():
    network = known("squeezenet1_1")
    calls = network.trace()
    assert trainable_plan(network, Recipe(last=0), calls).parameters == ("classifier.weight", "classifier.bias")
    assert trainable_plan(network, Recipe(unfreeze=("classifier",)), calls).trained == 512 * 3 + 3


@each(
    "pattern, message",
    [
        ("layer4.0.bn1", "only batch norms.*--train-bn"),
        ("*.bn2", "only batch norms"),
        ("layer4.*.relu", "expected parameters to train in"),
    ],
)
def test_a_pattern_that_trains_nothing_is_refused(resnet, pattern, message):
    with pytest.raises(TuningError, match=message):
        planned(resnet, unfreeze=(pattern,))
    if "bn" in pattern:
        assert planned(resnet, unfreeze=(pattern,), train_bn=True).buffers


@each("pattern", ["fc", "fc.weight"])
def test_naming_the_classifier_trains_the_head_alone(resnet, pattern):
    assert planned(resnet, unfreeze=(pattern,)).trained == 3 * 513

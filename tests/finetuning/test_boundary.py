from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from bottleneck.backbones.cut import Cut
from bottleneck.finetuning.boundary import Tail, find_boundary
from bottleneck.finetuning.freeze import trainable_plan
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import Small, known, made, pixels
from tests.variants import each


def found_in(network, **recipe):
    calls = network.trace()
    chosen = trainable_plan(network, Recipe(**recipe), calls)
    chosen.apply(network)
    return find_boundary(network, chosen, calls), chosen


def at(network, boundary, images):
    """Return the activations at a boundary."""
    frozen = boundary.frozen_part(network)
    assert isinstance(frozen, Cut)
    try:
        with torch.no_grad():
            return frozen(images).unflatten(1, boundary.shape)
    finally:
        frozen.release()


def gradients(network, chosen, logits):
    own = network.parameters_by_name()
    target = torch.arange(len(logits)) % 3
    loss = functional.cross_entropy(logits, target, reduction="sum")
    found = torch.autograd.grad(loss, [own[name] for name in chosen.parameters], allow_unused=True)
    return dict(zip(chosen.parameters, found, strict=True))


def check(network, boundary, chosen, images):
    """Hold logits and gradients of the tail against those of the whole network, both as in training."""
    values = at(network, boundary, images)
    for modes in (network.eval, lambda: chosen.set_modes(network)):
        modes()
        outputs = []
        for module, given in ((network, images), (Tail(network, boundary), values)):
            torch.manual_seed(3)
            logits = module(given.clone())
            outputs.append((logits, gradients(network, chosen, logits)))
        (wanted, wanted_grads), (got, got_grads) = outputs
        scale = wanted.abs().max().item()
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5 * scale)
        for name, gradient in wanted_grads.items():
            assert (gradient is None) == (got_grads[name] is None), name
            if gradient is not None:
                scale = gradient.abs().max().item()
                torch.testing.assert_close(got_grads[name], gradient, rtol=1e-3, atol=1e-4 * scale + 1e-9, msg=name)
    assert_clean(network)


def assert_clean(network):
    for name, module in network.named_modules():
        assert "forward" not in vars(module), name
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name


@each(
    "model, unfreeze, boundary, crop",
    [
        ("resnet18", "layer4", "layer3", 64),
        ("resnet18", "layer4.1", "layer4.0", 64),
        ("resnet18", "fc", "avgpool", 64),
        ("densenet121", "features.denseblock4.denselayer6", "features.transition3", 32),
        ("efficientnet_lite0", "blocks.6", "blocks.5", 64),
        ("timm/vit_tiny_patch16_224", "blocks.11", "blocks.10", 32),
        ("swin_t", "features.7", "features.6", 32),
        ("squeezenet1_1", "features.12", "features.11", 64),
        ("mobilenet_v3_small", "features.12", "features.11", 64),
        ("googlenet", "inception5b", "inception5a", 64),
        ("convnext_tiny", "features.7.2", "features.7.1", 32),
        ("shufflenet_v2_x0_5", "conv5", "stage4", 64),
        ("regnet_y_400mf", "trunk_output.block4", "trunk_output.block3", 64),
        ("timm/resnetv2_50", "stages.3.blocks.2", "stages.3.blocks.1", 32),
    ],
)
def test_the_tail_computes_the_logits_of_the_network(model, unfreeze, boundary, crop):
    network = known(model, crop)
    found, chosen = found_in(network, unfreeze=(unfreeze,))
    assert found is not None
    if "densenet" not in model:
        assert found.module == boundary
    assert at(network, found, pixels(network, 2)).shape[1:] == found.shape
    assert not any(name.startswith(tuple(f"{one}." for one in found.before)) for name in chosen.parameters)
    check(network, found, chosen, pixels(network, 3, seed=7))


def test_trained_batch_norms_receive_the_same_inputs():
    network = known("resnet18", 32)
    found, chosen = found_in(network, unfreeze=("layer4",), train_bn=True)
    check(network, found, chosen, pixels(network, 4))


def test_a_trained_first_layer_leaves_no_boundary():
    for model, unfreeze in (("resnet18", "all"), ("resnet18", "conv1"), ("timm/vit_tiny_patch16_224", "pos_embed")):
        assert found_in(known(model, 32), unfreeze=(unfreeze,))[0] is None


def test_without_a_boundary_the_tail_takes_pixels():
    network = known("resnet18", 32)
    images = pixels(network)
    with torch.no_grad():
        assert torch.equal(Tail(network, None)(images), network(images))


# --- made up ----------------------------------------------------------------------------------------------------


class Around(nn.Module):
    """What is trained receives the stem's output too, around the middle, times a number."""

    def __init__(self, times=1.0):
        super().__init__()
        self.stem, self.middle, self.last = (nn.Conv2d(a, 4, 3, padding=1) for a in (3, 4, 4))
        self.gate = nn.Parameter(torch.tensor([[float(times)]]))

    def forward(self, images):
        stem = self.stem(images)
        return self.fc((self.last(self.middle(stem)) + self.gate * stem).mean((2, 3)))


def test_a_module_with_a_shortcut_around_it_is_no_boundary():
    network = made(Around(), 4)
    found, chosen = found_in(network, unfreeze=("last",))
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


@each("times", [0.0, 1e-9])
def test_a_shortcut_multiplied_by_zero_counts(times):
    """LayerScale and ReZero begin with such gates, and training moves them."""

    class Gated(Around):
        def __init__(self):
            super().__init__(times)
            self.last = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))
            self.last.gate, self.gate = self.gate, None

        def forward(self, images):
            stem = self.stem(images)
            return self.fc((self.last(self.middle(stem)) + self.last.gate * stem).mean((2, 3)))

    network = made(Gated(), 4)
    found, chosen = found_in(network, unfreeze=("last",))
    assert "last.gate" in chosen.parameters
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


class Twice(nn.Module):
    """A module that runs twice, before and after another."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images):
        first = self.shared(self.stem(images)).relu()
        return self.fc(self.last(self.shared(first)).mean((2, 3)))


def test_a_module_that_runs_twice_is_no_boundary():
    network = made(Twice(), 4)
    found, chosen = found_in(network, unfreeze=("last",))
    check(network, found, chosen, pixels(network))
    network = made(Twice(), 4)
    found, chosen = found_in(network, unfreeze=("shared",))
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


class Tied(nn.Module):
    """A late layer whose weights are those of an early one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.early, self.middle, self.late = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))

    def tie(self, owner, other):
        getattr(self, other).weight = getattr(self, owner).weight
        return self

    def forward(self, images):
        return self.fc(self.late(self.middle(self.early(self.stem(images)).relu()).relu()).mean((2, 3)))


def test_tied_weights_count_where_they_are_first_used():
    network = made(Tied().tie("early", "late"), 4)
    found, chosen = found_in(network, unfreeze=("early",))
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


def test_weights_shared_with_an_earlier_module_count_there():
    class Late(Tied):
        def __init__(self):
            super().__init__()
            early = self.early
            del self.early
            self.early = early  # defined after `late`, so the weight is called by that
            self.early.weight = self.late.weight

    network = made(Late(), 4)
    found, chosen = found_in(network, unfreeze=("late",))
    assert "late.weight" in chosen.parameters
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


class InPlace(nn.Module):
    """What follows the boundary overwrites its output."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.last = nn.Sequential(nn.Conv2d(4, 4, 3))

    def forward(self, images):
        found = functional.relu(self.stem(images), inplace=True)
        found.mul_(2).add_(1)
        return self.fc(self.last(found).mean((2, 3)))


def test_a_module_that_works_in_place_on_the_boundary():
    network = made(InPlace(), 4)
    found, chosen = found_in(network, unfreeze=("last",))
    assert found.module == "stem"
    check(network, found, chosen, pixels(network))


class Hidden(nn.Module):
    """Reads the weight of a module that does not run."""

    def __init__(self):
        super().__init__()
        self.stem, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.store = nn.Sequential(nn.Conv2d(4, 4, 1))

    def forward(self, images):
        found = functional.conv2d(self.stem(images), self.store[0].weight)
        return self.fc(self.other(found).mean((2, 3)))


def test_a_weight_read_without_running_its_module_counts():
    network = made(Hidden(), 4)
    assert found_in(network, unfreeze=("store",))[0] is None


class Several(nn.Module):
    """The boundary gives one tensor, and a module before it gives several in a structure."""

    def __init__(self, kind):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.split = _Split(kind)
        self.join = _Join(kind)

    def forward(self, images):
        return self.fc(self.last(self.join(self.split(self.stem(images)), kind="x")).mean((2, 3)))


class _Halves(NamedTuple):
    one: torch.Tensor
    other: torch.Tensor


STRUCTURES = {  # how two tensors are put together, and taken apart
    "a dictionary of lists": (
        lambda a, b: {"a": a, "rest": [b, 5, None]},
        lambda found: (found["a"], found["rest"][0]),
    ),
    "a tuple of tuples": (lambda a, b: ((a,), (None, b)), lambda found: (found[0][0], found[1][1])),
    "an ordered dictionary": (lambda a, b: OrderedDict(x=a, y=b), lambda found: tuple(found.values())),
    "a named tuple": (_Halves, lambda found: (found.one, found.other)),
    "torch.max": (
        lambda a, b: torch.max(torch.stack([a, b]), 0),
        lambda found: (found.values, found[0]),
    ),
    "one tensor": (lambda a, b: torch.stack([a, b], 1), lambda found: (found[:, 0], found[:, 1])),
}


class _Split(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.together = STRUCTURES[kind][0]

    def forward(self, values):
        return self.together(values[:, :2], values[:, 2:])


class _Join(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.apart = STRUCTURES[kind][1]

    def forward(self, parts, *, kind):
        return torch.cat(self.apart(parts), dim=1)


@each("kind", STRUCTURES)
def test_outputs_of_any_structure_are_replaced(kind):
    network = made(Several(kind), 4)
    found, chosen = found_in(network, unfreeze=("last",))
    assert found.module == "join"
    check(network, found, chosen, pixels(network))


def test_the_size_is_for_one_image():
    network = known("resnet18", 32)
    found, _ = found_in(network, unfreeze=("layer4",))
    assert found.shape == (256, 2, 2)
    assert found.size == 1024


def test_modules_are_restored_after_an_exception():
    network = made(Small(), 6)
    found, _ = found_in(network, unfreeze=("last",))
    tail, images = Tail(network, found), pixels(network, 2)
    with torch.no_grad():
        wanted = network(images)
    with pytest.raises(RuntimeError):
        tail(torch.zeros(2, 9, 3, 3))
    assert_clean(network)
    with torch.no_grad():
        assert torch.equal(network(images), wanted)
        torch.testing.assert_close(tail(at(network, found, images)), wanted)


def test_any_batch_size_works():
    network = known("timm/vit_tiny_patch16_224", 32)
    found, _ = found_in(network, unfreeze=("blocks.11",))
    tail = Tail(network, found)
    for count in (1, 2, 5):
        images = pixels(network, count)
        with torch.no_grad():
            torch.testing.assert_close(tail(at(network, found, images)), network(images), rtol=1e-4, atol=1e-4)


def test_the_tail_has_the_parameters_of_the_network():
    network = known("resnet18", 32)
    found, _ = found_in(network, unfreeze=("layer4",))
    assert {id(one) for one in Tail(network, found).parameters()} == {id(one) for one in network.parameters()}

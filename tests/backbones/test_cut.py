import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from bottleneck.backbones.cut import Cut, cut
from bottleneck.backbones.weights import tensors_digest
from bottleneck.errors import ModelError
from tests.variants import each

SIZE = (32, 32)


class Trap(nn.Module):
    """Must not run."""

    def forward(self, *_: object) -> Tensor:
        raise AssertionError("this ran")


class Block(nn.Module):
    """Adds its input in place to what its last norm gives, as a residual block does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        out = self.relu(self.conv(images))
        out = self.norm(out)
        out += images
        return self.relu(out)


class Net(nn.Module):
    """Runs `relu` three times, `late` after `block`; `never` does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU()
        self.never = nn.Linear(3, 3)
        self.fc = nn.Linear(8, 10)
        self.late = nn.Sequential(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8))
        self.block = Block(6)

    def forward(self, images: Tensor) -> Tensor:
        out = self.block(self.relu(self.stem(images)))
        out = self.relu(self.late(out))
        return self.relu(self.fc(out.mean((2, 3))))


class Tokens(nn.Module):
    """Four tokens and, with `prefix`, a class token before them; attention gives a tuple."""

    def __init__(self, prefix: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, stride=16)
        self.cls_token = nn.Parameter(torch.randn(1, prefix, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1)
        return self.norm(tokens + self.attention(tokens, tokens, tokens)[0])[:, 0]


class Odd(nn.Module):
    """Its parts give what no feature can be made of."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = nn.Unflatten(0, (-1, 1))
        self.merge = nn.Flatten(0, 1)
        self.crooked = nn.AvgPool2d((1, 2))
        self.words = Words()
        self.sum = Sum()

    def forward(self, images: Tensor) -> Tensor:
        self.words(images)
        self.sum(images)
        self.merge(self.windows(images))
        return self.crooked(images)


class Words(nn.Module):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"images": images}


class Sum(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))


class Quarters(nn.Module):
    """Its stage sees four quarters of each image, one after the other, as if they were images."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        quarters = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return self.stage(quarters).unflatten(0, (-1, 4)).mean((1, 3, 4))


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """Build a network in eval mode whose norms do something."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return network


@cache
def weights(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    return seeded(build).state_dict()


def resnet18() -> nn.Module:
    """Build a network without numbers, then take them from one that was built before: to draw them takes long."""
    with torch.device("meta"):
        network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(weights(torchvision.models.resnet18), assign=True)
    return network.eval()


def vit() -> nn.Module:
    return torchvision.models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )


def swin() -> nn.Module:
    return torchvision.models.SwinTransformer(
        patch_size=[2, 2], embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4], stochastic_depth_prob=0.0
    )


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def features(network: nn.Module, layers: Sequence[str], pool: str | None = None) -> Tensor:
    with torch.no_grad():
        return cut(network, layers, pool, SIZE)[0](images())


def outputs(network: nn.Module, name: str, given: Tensor) -> list[Tensor]:
    """Return what a module gives, each time that it runs."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: object) -> None:
        found.append((output[0] if isinstance(output, tuple) else output).clone())

    handle = network.get_submodule(name).register_forward_hook(keep)
    with torch.no_grad():
        network(given)
    handle.remove()
    return found


def inputs(network: nn.Module, name: str, given: Tensor) -> list[Tensor]:
    found: list[Tensor] = []
    handle = network.get_submodule(name).register_forward_pre_hook(lambda _, args: found.append(args[0].clone()))
    with torch.no_grad():
        network(given)
    handle.remove()
    return found


def mean(output: Tensor) -> Tensor:
    return output.mean((2, 3)) if output.dim() == 4 else output


# What a layer gives


def test_a_layer_of_a_residual_network_gives_what_torchvision_extracts():
    layers = ["conv1", "maxpool", "layer1", "layer2.0.downsample", "layer4.1", "avgpool", "fc"]
    with torch.no_grad():
        wanted = create_feature_extractor(resnet18(), layers)(images())
    found = {layer: features(resnet18(), [layer]) for layer in layers}

    assert [layer for layer in layers if not torch.equal(found[layer], mean(wanted[layer]))] == []


def test_joined_layers_of_a_residual_network_give_what_torchvision_extracts():
    layers = ["layer3", "layer1", "fc"]
    with torch.no_grad():
        wanted = create_feature_extractor(resnet18(), layers)(images())

    assert torch.equal(features(resnet18(), layers), torch.cat([mean(wanted[layer]) for layer in layers], 1))


@each("layer", ["stem", "relu", "block", "block.conv", "block.relu", "late", "late.0", "late.1", "fc"])
def test_a_layer_gives_what_a_hook_sees_the_last_time(layer):
    wanted = outputs(seeded(Net), layer, images())[-1]

    assert torch.equal(features(seeded(Net), [layer]), mean(wanted))


@each("layer", ["stem", "relu", "block", "block.norm", "block.relu", "late", "late.1", "fc"])
def test_an_input_is_what_a_hook_sees_the_last_time(layer):
    wanted = inputs(seeded(Net), layer, images())[-1]

    assert torch.equal(features(seeded(Net), [f"{layer}:input"]), mean(wanted))


def test_the_last_of_several_runs_differs_from_the_first():
    first, _, last = outputs(seeded(Net), "relu", images())

    assert first.shape != last.shape
    assert not torch.equal(features(seeded(Net), ["relu"]), mean(first))


def test_layers_are_in_the_order_in_which_they_are_given():
    layers = ["late:input", "stem", "fc", "late"]
    parts = [features(seeded(Net), [layer]) for layer in layers]

    assert torch.equal(features(seeded(Net), layers), torch.cat(parts, 1))
    assert torch.equal(features(seeded(Net), layers[::-1]), torch.cat(parts[::-1], 1))


def test_the_output_and_the_input_of_one_layer_can_be_joined():
    wanted = torch.cat([features(seeded(Net), ["late"]), features(seeded(Net), ["late:input"])], 1)

    assert torch.equal(features(seeded(Net), ["late", "late:input"]), wanted)


@each("pool", ["avg", "none"])
@each("layer", ["block.norm", "block.relu", "block.conv"])
def test_work_in_place_after_a_layer_does_not_reach_its_features(layer, pool):
    alone = features(seeded(Net), [layer], pool)

    assert torch.equal(features(seeded(Net), [layer, "fc"], pool)[:, : alone.shape[1]], alone)


@each("pool", ["avg", "none"])
def test_work_in_place_after_a_layer_of_a_residual_network_does_not_reach_its_features(pool):
    wanted = outputs(resnet18(), "layer1.0.bn2", images())[-1]
    wanted = mean(wanted) if pool == "avg" else wanted.flatten(1)

    joined = features(resnet18(), ["layer1.0.bn2", "layer1.1"], pool)

    assert torch.equal(joined[:, : wanted.shape[1]], wanted)


@each("pool", ["avg", "max", "gem", "none"])
def test_a_layer_is_pooled_as_requested(pool):
    output = outputs(seeded(Net), "late", images())[0]
    wanted = {
        "avg": output.mean((2, 3)),
        "max": output.flatten(2).max(2).values,
        "gem": output.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3),
        "none": output.flatten(1),
    }[pool]
    network, pooling, dim = cut(seeded(Net), ["late"], pool, SIZE)

    with torch.no_grad():
        assert torch.allclose(network(images()), wanted, rtol=1e-5)
    assert (pooling, dim) == (pool, wanted.shape[1])


@each(
    "layers, pooling, dim",
    [(["late"], "avg", 8), (["fc"], "none", 10), (["fc:input"], "none", 8), (["late", "fc"], "avg", 18)],
)
def test_positions_are_averaged_by_default(layers, pooling, dim):
    assert cut(seeded(Net), layers, None, SIZE)[1:] == (pooling, dim)


def test_the_first_tensor_of_a_tuple_is_used():
    wanted = outputs(seeded(lambda: Tokens(0)), "attention", images())[0]

    assert wanted.shape == (2, 4, 8)
    assert torch.equal(features(seeded(lambda: Tokens(0)), ["attention"]), wanted.mean(1))


def test_a_map_with_its_channels_last_is_averaged_over_its_positions():
    wanted = outputs(seeded(swin), "features.1", images())[0]

    assert wanted.shape == (2, 16, 16, 8)
    assert torch.equal(features(seeded(swin), ["features.1"]), wanted.mean((1, 2)))


def test_a_rectangular_image_is_taken():
    network, _, dim = cut(seeded(Net), ["late"], None, (64, 32))
    given = torch.randn(3, 3, 64, 32)

    with torch.no_grad():
        assert torch.equal(network(given), outputs(seeded(Net), "late", given)[0].mean((2, 3)))
    assert dim == 8


# Class tokens


@each("layer", ["encoder.layers.encoder_layer_0", "encoder.ln", "encoder"])
@each("pool", ["cls", "avg", "max", None])
def test_the_class_token_is_before_the_positions(layer, pool):
    output = outputs(seeded(vit), layer, images())[0]
    wanted = {"cls": output[:, 0], "max": output[:, 1:].max(1).values}.get(pool, output[:, 1:].mean(1))

    assert output.shape == (2, 17, 16)
    assert torch.allclose(features(seeded(vit), [layer], pool), wanted, atol=1e-6)


def test_class_tokens_of_several_layers_are_joined():
    layers = ["encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0"]
    wanted = torch.cat([outputs(seeded(vit), layer, images())[0][:, 0] for layer in layers], 1)

    assert torch.equal(features(seeded(vit), layers, "cls"), wanted)


def test_without_pooling_the_class_token_is_kept_too():
    wanted = outputs(seeded(vit), "encoder", images())[0]

    assert torch.equal(features(seeded(vit), ["encoder"], "none"), wanted.flatten(1))


@each(
    "build, layers",
    [
        (lambda: Tokens(0), ["norm"]),
        (lambda: Tokens(1), ["patches"]),
        (lambda: Tokens(1), ["norm", "patches"]),
        (Net, ["late"]),
    ],
)
def test_a_network_without_a_class_token_cannot_be_pooled_by_it(build, layers):
    with pytest.raises(ModelError, match=r"class token for --pool cls, .* has none") as error:
        cut(seeded(build), layers, "cls", SIZE)
    assert "+".join(layers) in str(error.value)


# Runs


def test_any_number_of_images_is_taken_any_number_of_times():
    network, _, dim = cut(seeded(Net), ["block.relu", "fc"], None, SIZE)
    wanted = torch.cat([mean(outputs(seeded(Net), layer, images(7))[-1]) for layer in ("block.relu", "fc")], 1)

    with torch.no_grad():
        for count in (7, 1, 2, 7):
            assert network(images(7)[:count]).shape == (count, dim)
            assert torch.allclose(network(images(7)[:count]), wanted[:count], atol=1e-6)


def test_a_run_that_failed_leaves_nothing_behind():
    network, *_ = cut(seeded(Net), ["relu", "stem"], None, SIZE)
    with torch.no_grad():
        wanted = network(images())

        with pytest.raises(RuntimeError):
            network(torch.zeros(2, 6, *SIZE))

        assert torch.equal(network(images()), wanted)


def test_the_features_stay_as_they_are_when_the_next_batch_comes():
    network, *_ = cut(seeded(Net), ["block"], "none", SIZE)
    with torch.no_grad():
        first = network(images())
        before = first.clone()
        network(images(seed=2))

    assert torch.equal(first, before)


def test_a_network_that_ends_before_its_layer_is_a_model_error():
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)

        def forward(self, given: Tensor) -> Tensor:
            out = self.first(given)
            return self.second(out) if len(given) == 2 else out

    network, *_ = cut(Fickle(), ["second"], None, SIZE)
    with pytest.raises(ModelError, match="did not reach second"):
        network(images(3))


# What comes after the cut


@each(
    "layers, kept",
    [
        (["stem"], {"stem", "never"}),
        (["stem:input"], {"never"}),
        (["block.conv"], {"stem", "never", "block.conv"}),
        (["block.norm:input"], {"stem", "never", "block.conv"}),
        (["block"], {"stem", "never", "block.conv", "block.norm"}),
        (["late.0"], {"stem", "never", "block.conv", "block.norm", "late.0"}),
        (["late.0", "stem"], {"stem", "never", "block.conv", "block.norm", "late.0"}),
        (["fc:input"], {"stem", "never", "block.conv", "block.norm", "late.0", "late.1"}),
        (["relu"], {"stem", "never", "block.conv", "block.norm", "late.0", "late.1", "fc"}),
    ],
)
def test_what_comes_after_the_last_layer_is_dropped_and_nothing_else(layers, kept):
    network = seeded(Net)
    cut(network, layers, None, SIZE)

    assert {name.rpartition(".")[0] for name in network.state_dict()} == kept


def test_modules_inside_a_list_are_dropped():
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, given: Tensor) -> Tensor:
            for block in self.blocks:
                given = block(given)
            return given

    network = Listed()
    cut(network, ["blocks.1"], None, SIZE)

    assert list(network.state_dict()) == ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]


@each(
    "layers, trapped",
    [
        (["block"], "late"),
        (["late:input"], "fc"),
        (["late.0"], "late.1"),
        (["block", "stem"], "late"),
        (["late"], "fc"),
    ],
)
def test_what_comes_after_the_cut_does_not_run(layers, trapped):
    network = seeded(Net)
    ended, *_ = cut(network, layers, None, SIZE)
    with torch.no_grad():
        wanted = ended(images())
        parent, _, child = trapped.rpartition(".")
        setattr(network.get_submodule(parent), child, Trap())

        assert torch.equal(ended(images()), wanted)


def test_modules_before_the_cut_run():
    network = seeded(Net)
    ended, *_ = cut(network, ["late"], None, SIZE)
    network.stem = Trap()

    with pytest.raises(AssertionError, match="this ran"):
        ended(images())


@each(
    "layer, changed, counts",
    [
        ("block.conv", "stem.weight", True),
        ("block.conv", "block.conv.bias", True),
        ("block.conv", "block.norm.running_mean", False),
        ("block", "block.norm.running_mean", True),
        ("block", "late.0.weight", False),
        ("late:input", "late.0.weight", False),
        ("late.0", "late.0.weight", True),
        ("late", "fc.weight", False),
        ("fc:input", "fc.bias", False),
        ("fc", "fc.bias", True),
    ],
)
def test_the_digest_depends_on_the_weights_before_the_cut_only(layer, changed, counts):
    one, other = seeded(Net), seeded(Net)
    other.state_dict()[changed].add_(1)
    cut(one, [layer], None, SIZE)
    cut(other, [layer], None, SIZE)

    assert (tensors_digest(one) != tensors_digest(other)) is counts


@each("changed", ["stem.weight", "block.conv.bias", "block.norm.running_mean", "late.0.weight"])
def test_features_change_where_the_digest_does(changed):
    other = seeded(Net)
    other.state_dict()[changed].add_(1)

    assert not torch.equal(features(other, ["late.0"]), features(seeded(Net), ["late.0"]))


# What cannot be used


@each(
    "layer, hint",
    [
        ("steam", r"did you mean stem\?"),
        ("block.cnv", r"did you mean block\.conv"),
        ("late.2:input", r"did you mean late\.[01](,| or) late\.[01]"),
        ("nothing_like_it", "the stages are stem, never, fc, late, block"),
        ("", "the stages are"),
        (":input", "the stages are"),
        ("Late", "late"),
        ("late ", "did you mean late"),
        ("stem.weight", "stem"),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest_names(layer, hint):
    with pytest.raises(ModelError, match=hint) as error:
        cut(seeded(Net), [layer], None, SIZE)
    assert f"got {layer!r}" in str(error.value)
    assert "bottleneck inspect MODEL" in str(error.value)


def test_one_wrong_name_of_several_is_refused():
    with pytest.raises(ModelError, match="got 'wrong'"):
        cut(seeded(Net), ["stem", "wrong"], None, SIZE)


@each(
    "build, layer, words",
    [
        (Net, "never", "does not run, or has no tensor"),
        (Net, "never:input", "does not run, or has no tensor"),
        (Odd, "words", "does not run, or has no tensor"),
        (Odd, "sum", r"for 2 images it has the shape \(2,\), which is not one row per image"),
        (Quarters, "stage", r"for 2 images it has the shape \(8, 2, 16, 16\), which is not one row per image"),
        (Odd, "crooked", r"its output has the shape \(2, 3, 32, 16\).*--pool none uses all its values"),
        (Odd, "windows", r"its output has the shape \(2, 1, 3, 32, 32\)"),
    ],
)
def test_what_is_neither_a_row_nor_a_map_cannot_be_used(build, layer, words):
    with pytest.raises(ModelError, match=f"^the layer {layer} cannot be .*{words}"):
        cut(build(), [layer], None, SIZE)


def test_the_input_of_a_layer_that_gives_no_tensor_can_be_taken():
    assert torch.equal(features(Odd(), ["words:input"]), images().mean((2, 3)))


def test_a_map_that_cannot_be_pooled_can_be_used_without_pooling():
    assert torch.equal(features(Odd(), ["crooked"], "none"), nn.AvgPool2d((1, 2))(images()).flatten(1))


def test_images_that_the_network_rejects_are_a_model_error():
    with pytest.raises(ModelError, match="does not accept images of 33 x 33 pixels"):
        cut(seeded(vit), ["encoder"], None, (33, 33))


@each("pool", ["avg", "max", "gem", "cls"])
@each("layer", ["fc", "fc:input"])
def test_a_row_has_nothing_to_pool(layer, pool):
    words = f"--pool {pool} has nothing to pool: {layer} is one row per image, without positions: .*--layer late$"
    with pytest.raises(ModelError, match=words):
        cut(seeded(Net), [layer], pool, SIZE)


def test_a_network_without_positions_suggests_no_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    with pytest.raises(ModelError, match=r"without positions$"):
        cut(network, ["1"], "avg", SIZE)


@each("width, fits", [(128, True), (129, False)])
def test_there_is_a_limit_to_features_without_pooling(width, fits):
    network = nn.Sequential(nn.Conv2d(3, width, 1))
    if fits:
        assert cut(network, ["0"], "none", SIZE)[2] == 131_072
        return
    with pytest.raises(
        ModelError, match=r"at most 131,072 features.*0 with --pool none has 132,096: choose --pool avg"
    ):
        cut(network, ["0"], "none", SIZE)


def test_joined_layers_share_the_limit():
    network = nn.Sequential(nn.Conv2d(3, 100, 1), nn.Conv2d(100, 50, 1))
    with pytest.raises(ModelError, match=r"0\+1 with --pool none has 153,600"):
        cut(network, ["0", "1"], "none", SIZE)


def test_a_network_that_cannot_be_cut_is_left_unchanged():
    network = seeded(Net)
    for layers, pool in (["wrong"], None), (["never"], None), (["fc"], "avg"), (["stem"], "cls"):
        with pytest.raises(ModelError):
            cut(network, layers, pool, SIZE)

    assert tensors_digest(network) == tensors_digest(seeded(Net))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())


def test_a_cut_is_a_module_around_the_network():
    network = seeded(Net)
    ended, *_ = cut(network, ["late"], None, SIZE)

    assert isinstance(ended, Cut)
    assert ended.network is network


@each("pool", [None, "avg", "max", "none"])
def test_one_position_is_pooled_in_one_way_only(pool):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)).eval()

    assert cut(network, ["1"], pool, (32, 32))[1:] == ("none", 4)


# --- networks of timm whose tokens are not as those of a plain transformer ----------------------------------------


@pytest.mark.slow
@each(
    "name, layer",
    [("pit_ti_224", "transformers.2.blocks.3"), ("coat_lite_tiny", "serial_blocks4.1"), ("crossvit_9_240", "norm.0")],
)
def test_the_class_token_is_left_out_of_the_mean_and_can_be_taken_alone(name, layer):
    side = int(name[-3:]) if name[-3:].isdigit() else 224
    given = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    network = timm.create_model(name).eval()
    whole = outputs(copy.deepcopy(network), layer, given)[0]
    for pool, wanted in (("avg", whole[:, 1:].mean(1)), ("cls", whole[:, 0])):
        ended, _, _ = cut(copy.deepcopy(network), [layer], pool, (side, side))
        with torch.no_grad():
            assert torch.allclose(ended(given), wanted, atol=1e-5)


def test_what_mixes_tokens_is_pooled_over_tokens_and_not_over_channels():
    network = timm.create_model("mixer_s32_224").eval()
    _, pooling, dim = cut(network, ["blocks.0.mlp_tokens"], None, (224, 224))

    assert (pooling, dim) == ("avg", 512)


def test_the_attention_between_tokens_is_not_a_map_of_an_image():
    network = timm.create_model("convit_tiny").eval()

    with pytest.raises(ModelError, match="the attention between tokens"):
        cut(network, ["blocks.3.attn.attn_drop"], None, (224, 224))


class Meeting(nn.Module):
    """Lets nobody pass before two threads have come."""

    def __init__(self) -> None:
        super().__init__()
        self._barrier = threading.Barrier(2, timeout=10)

    def forward(self, images: Tensor) -> Tensor:
        self._barrier.wait()
        return images


@each("layers", [("3",), ("1", "3")])
def test_a_cut_network_gives_two_threads_at_once_the_rows_of_their_own_images(layers):
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Identity(), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 6, 1))
    found, _, _ = cut(network.eval(), layers, None, SIZE)
    images = [torch.full((2, 3, *SIZE), value) for value in (0.25, 0.75)]
    with torch.inference_mode():
        alone = [found(image) for image in images]
        network[2] = Meeting()  # both have begun, and neither has come to the last layer
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(torch.inference_mode()(found), images))

    assert not torch.equal(alone[0], alone[1])
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))

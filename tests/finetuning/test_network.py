import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load
from torch import nn

from bottleneck.backbones.registry import load as load_backbone
from bottleneck.backbones.request import Request
from bottleneck.finetuning.handback import LinearLayer
from tests.finetuning.small import known, made, pixels, random_layer, small
from tests.variants import each


def restored(model, file, crop):
    return load_backbone(Request(model=model, weights=str(file), crop=crop, resize=crop))


def test_the_logits_are_the_layer_on_the_trunk():
    network, images = small(), pixels(small())
    layer = random_layer(6)
    with torch.no_grad():
        wanted = network.trunk(images) @ torch.from_numpy(layer.weight).T + torch.from_numpy(layer.bias)
        torch.testing.assert_close(network(images), wanted)


def test_names_are_those_of_the_base_model():
    network = known("resnet18", 32)
    own = torchvision.models.resnet18(num_classes=3)
    assert network.classifier == "fc"
    assert set(network.parameters_by_name()) == {name for name, _ in own.named_parameters()}
    assert set(network.state()) == set(own.state_dict())
    assert network.parameters_by_name()["fc.weight"] is network.head.weight
    for name, value in own.state_dict().items():
        assert network.state()[name].shape == value.shape, name


def test_names_of_timm_have_no_prefix_either():
    network = known("timm/vit_tiny_patch16_224", 32)
    own = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=32)
    assert set(network.parameters_by_name()) == {name for name, _ in own.named_parameters()}
    assert "blocks.11.mlp.fc2" in network.trace()
    assert not any(name.startswith("network") for name in network.trace())


def test_state_shares_tensors_and_set_state_copies():
    network = small()
    place = network.state()["stem.weight"].data_ptr()
    before = {name: value.clone() for name, value in network.state().items()}
    network.set_state({"stem.weight": torch.full((4, 3, 3, 3), 2.0), "fc.bias": torch.tensor([1.0, 2.0, 3.0])})
    assert network.state()["stem.weight"].data_ptr() == place
    assert (network.trunk.stem.weight == 2).all()
    assert network.head.bias.tolist() == [1, 2, 3]
    for name, value in network.state().items():
        if name not in ("stem.weight", "fc.bias"):
            assert torch.equal(value, before[name]), name
    with pytest.raises(KeyError):
        network.set_state({"stem.other": torch.zeros(1)})


def test_set_state_does_not_share_its_argument():
    network, value = small(), torch.zeros(3)
    network.set_state({"fc.bias": value})
    value += 1
    assert network.head.bias.tolist() == [0, 0, 0]


def test_the_layer_can_be_read_and_replaced():
    network, layer = small(), random_layer(6, seed=5)
    network.set_layer(layer)
    found = network.layer()
    assert isinstance(found, LinearLayer)
    np.testing.assert_array_equal(found.weight, layer.weight)
    np.testing.assert_array_equal(found.bias, layer.bias)
    found.weight[:] = 0  # a copy
    assert network.head.weight.abs().sum() > 0


@each(
    "model, plain",
    [
        ("resnet18", lambda: torchvision.models.resnet18(num_classes=3)),
        ("mobilenet_v3_small", lambda: torchvision.models.mobilenet_v3_small(num_classes=3)),
        ("timm/resnet10t", lambda: timm.create_model("resnet10t", num_classes=3)),
        ("timm/vit_tiny_patch16_224", lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=64)),
    ],
    ids=["resnet18", "mobilenet_v3_small", "timm-resnet10t", "timm-vit"],
)
def test_the_file_is_one_that_torchvision_and_timm_load(model, plain):
    network, own = known(model), plain()
    own.load_state_dict(load(network.to_safetensors({})), strict=True)
    images = pixels(network)
    with torch.no_grad():
        torch.testing.assert_close(own.eval()(images), network(images))


def test_the_file_has_metadata_and_no_counters(tmp_path):
    file = tmp_path / "one.safetensors"
    file.write_bytes(small().to_safetensors({"bottleneck": "said"}))
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"bottleneck": "said"}
        assert not [name for name in opened.keys() if "num_batches" in name]  # noqa: SIM118
        assert "middle.1.running_mean" in opened.keys()  # noqa: SIM118


def test_channels_last_weights_are_written_unchanged():
    network = small()
    plain = network.to_safetensors({})
    network.to(memory_format=torch.channels_last)
    changed = load(network.to_safetensors({}))
    for name, value in load(plain).items():
        assert torch.equal(value, changed[name]), name


class Tied(nn.Module):
    """The weights of one layer are those of another."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3)
        self.second = nn.Conv2d(3, 3, 3)
        self.second.weight = self.first.weight

    def forward(self, images):
        return self.fc(self.second(self.first(images).relu()).mean((2, 3)))


def test_tied_tensors_are_written_under_both_names():
    network = made(Tied(), 3)
    tensors = load(network.to_safetensors({}))
    assert torch.equal(tensors["first.weight"], tensors["second.weight"])
    other = Tied()
    other.fc = nn.Linear(3, 3)
    other.load_state_dict(tensors, strict=True)


@each(
    "model, classifier, dim",
    [
        ("squeezenet1_1", "classifier", 512),  # a convolution there
        ("timm/deit_tiny_distilled_patch16_224", "bottleneck_head", 192),  # two of them
        ("timm/levit_128s", "bottleneck_head", 384),  # with a batch norm
    ],
)
def test_classifiers_that_are_not_a_linear_layer(tmp_path, model, classifier, dim):
    crop = 224 if "levit" in model else 64
    network = known(model, crop)
    assert network.classifier == classifier
    assert network.parameters_by_name()[f"{classifier}.weight"].shape == (3, dim)
    tensors = load(network.to_safetensors({}))
    assert {name for name in tensors if name.startswith(classifier)} == {f"{classifier}.weight", f"{classifier}.bias"}
    file = tmp_path / "model.safetensors"
    file.write_bytes(network.to_safetensors({}))
    again = restored(model, file, crop)  # as `extract --weights` does
    assert again.restored.complete
    images = pixels(network, 1)
    with torch.no_grad():
        torch.testing.assert_close(again.network(images), network.trunk(images))


def test_a_backbone_on_another_device_is_traced_there():
    calls = small().to("meta").trace()
    assert calls["last"].outputs == (2, 6, 2, 2)
    assert "" not in calls

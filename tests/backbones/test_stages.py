from torch import nn

from bottleneck.backbones.registry import build_without_numbers
from bottleneck.backbones.request import Request
from bottleneck.backbones.stages import stages
from tests.variants import each


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
        self.layers = nn.Linear(2, 2)  # called like one that holds stages, and holds none
        self.fc = nn.Linear(2, 2)


def test_stages_are_modules_with_parameters_at_the_top_and_in_containers_of_stages():
    assert stages(Net()) == ["stem", "blocks.0", "blocks.2", "layers", "fc"]


@each(
    "model, some",
    [
        ("resnet18", ("layer3", "layer4", "fc")),
        ("efficientnet_lite0", ("conv_stem", "blocks.0", "blocks.6", "conv_head", "classifier")),
        ("densenet121", ("features.denseblock4",)),
        ("vit_b_16", ("encoder.layers.encoder_layer_11", "heads")),
        ("inception_v3", ("Mixed_7c",)),
    ],
)
def test_stages_of_known_networks(model, some):
    found = stages(build_without_numbers(Request(model=model, weights="none")).network)
    assert set(some) <= set(found)
    assert len(found) < 30

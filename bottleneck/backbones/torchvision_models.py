"""Every classifier of torchvision by its name, with the preprocessing its weights were trained with."""

import re
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from bottleneck.backbones.backbone import AveragePool, Backbone
from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.weights import load_tensors, read_tensors, tensors_digest
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.files import sha256_hex
from bottleneck.images.decode import DECODER_VERSION
from bottleneck.images.preprocessing import Preprocessing

_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only training uses
_HASH = re.compile(r"-([0-9a-f]{8,})\.")
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def build(request: Request) -> Backbone:
    """Build a torchvision classifier, cut at the input of its last layer.

    Random weights are those of ``torch.manual_seed(seed); torchvision.models.get_model(name, weights=None)``; their
    preprocessing, and Inception's ``transform_input``, are those of the default weights.

    Raises
    ------
    ModelError, WeightsUnavailable
        If there are no such weights, they cannot be fetched, or they do not fit.
    """
    weights = _weights(request)
    official = not request.random and not request.file
    network = _fetched(request, weights) if official else _random(request, weights)
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", True)  # noqa: B010 - to mypy, attributes of a Module are tensors
    _drop_auxiliary(network)
    layer, dim, pooling = _cut(network)
    if request.file:
        load_tensors(network, _renamed(read_tensors(request.file)), request.weights)
    network.eval().requires_grad_(False)
    spec = Spec(
        backbone=request.model,
        weights=tensors_digest(network),
        layer=f"{layer}:input",
        pooling=pooling,
        preprocessing=_preprocessing(weights),
        transform_input=bool(getattr(network, "transform_input", False)),
        precision="fp32",
        decoder=DECODER_VERSION,
    )
    return Backbone(network, spec, dim)


def _weights(request: Request) -> Any:
    known = torchvision.models.get_model_weights(request.model)
    if request.random or request.file or request.weights == "DEFAULT":
        return known.DEFAULT
    if request.weights not in known.__members__:
        raise ModelError(
            f"expected weights of {request.model}: {', '.join(known.__members__)}, none or the path of a "
            f".pth, .pt or .safetensors file; got {request.weights!r}"
        )
    return known[request.weights]


def _random(request: Request, weights: Any) -> nn.Module:
    # A vision transformer takes images of one size: that which the preprocessing gives.
    size = {"image_size": weights.transforms().crop_size[0]} if request.model.startswith("vit_") else {}
    with warnings.catch_warnings():
        # Inception and GoogLeNet announce a change of their random weights, which no version has made yet.
        warnings.filterwarnings("ignore", message="The default weight initialization", category=FutureWarning)
        network: nn.Module = torchvision.models.get_model(request.model, weights=None, **size)
    return network


def _fetched(request: Request, weights: Any) -> nn.Module:
    """Build the network with the weights from torchvision's own cache or address, hash checked."""
    name = urlparse(weights.url).path.rpartition("/")[2]
    _check_kept(Path(torch.hub.get_dir()) / "checkpoints" / name)
    try:
        network: nn.Module = torchvision.models.get_model(request.model, weights=weights)
    except OSError as error:  # URLError is one
        reason = getattr(error, "reason", None) or error
        raise WeightsUnavailable(
            f"expected {name}, the weights {weights} of {request.model}; it is not on this machine and "
            f"{weights.url} cannot be reached ({reason}). Fetch that file where there is a network and name it with "
            f"--weights PATH, or use --weights none for random weights"
        ) from error
    except RuntimeError as error:  # torch.hub: the hash in the file's name does not match
        raise WeightsUnavailable(f"{weights.url} did not give {name}: {error}") from error
    return network


def _check_kept(file: Path) -> None:
    """Check the hash in the name of a file that an earlier download has left: torch looks at it only then."""
    wanted = _HASH.search(file.name)
    if wanted and file.is_file() and not sha256_hex(file.read_bytes()).startswith(wanted[1]):
        raise ModelError(f"expected weights whose SHA-256 begins with {wanted[1]} in {file}, found others: delete it")


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of torchvision's old DenseNet files under the names of today (``norm.1`` is ``norm1``)."""
    return {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items()}


def _drop_auxiliary(network: nn.Module) -> None:
    if hasattr(network, "aux_logits"):
        for name, value in (("aux_logits", False), *((name, None) for name in _AUXILIARY)):
            if hasattr(network, name):
                setattr(network, name, value)


def _cut(network: nn.Module) -> tuple[str, int, str]:
    """Take the classifier off; return its name, the width of its input, and how positions are pooled."""
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if isinstance(last, nn.Linear):
        _replace(network, name, nn.Identity())
        return name, last.in_features, "none"
    # SqueezeNet classifies each position and then averages; its classifier's input is pooled the same way.
    classifier = name.rpartition(".")[0]
    _replace(network, classifier, AveragePool())
    return classifier, last.in_channels, "avg"


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def _preprocessing(weights: Any) -> Preprocessing:
    transforms = weights.transforms()
    return Preprocessing(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )

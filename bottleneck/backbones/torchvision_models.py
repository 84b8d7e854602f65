"""torchvision's classifiers, with the preprocessing of their weights."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn

from bottleneck.backbones.backbone import PretrainedModel, replace
from bottleneck.backbones.downloads import HASH_IN_NAME, Published, check_download, fetch, first_line, unreachable
from bottleneck.backbones.pooling import OutputLayout, pooled
from bottleneck.backbones.request import Request, no_such_weights
from bottleneck.backbones.tuned import read_tuned
from bottleneck.backbones.weights import Tensors, read_checkpoint
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.files import file_sha256
from bottleneck.utils.process_settings import ignored_warnings

_SLOW_TO_INITIALISE = ("googlenet", "inception_v3")
_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # heads that only training uses
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])(?=\.)")


class AveragePool(nn.Module):
    """Replaces a convolutional classifier: averages its input over the positions."""

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, d, h, w)``."""
        return pooled(features, OutputLayout((2, 3)), "avg")


def names() -> list[str]:
    """Return the names of torchvision's classifiers."""
    listed: list[str] = torchvision.models.list_models(module=torchvision.models)
    return listed


def build(request: Request) -> PretrainedModel:
    """Build a torchvision classifier.

    Random weights are those of ``torch.manual_seed(seed); torchvision.models.get_model(name, weights=None)``, with the
    preprocessing and ``transform_input`` (Inception) of the default weights. A weights file with the hash of one of
    torchvision's own gets the preprocessing of that entry, any other file that of the default weights.

    Raises
    ------
    ModelError, WeightsUnavailable
        If there are no such weights, or they cannot be downloaded.
    """
    entry, remarks = _entry(request)
    preprocessing = preprocessing_of(entry)
    size = request.crop or preprocessing.crop_size[0]
    official = not request.random and not request.file
    network = _random(request.model, size, initialised=not official)
    published = _fill(network, request, entry) if official else None
    if hasattr(network, "transform_input"):
        setattr(network, "transform_input", True)  # noqa: B010 - to mypy, attributes of a Module are tensors
    known = tuple(network.state_dict())
    _drop_auxiliary(network)
    classifier, layer, pooling, dim = _classifier(network)

    def remove_classifier() -> nn.Module:
        replace(network, classifier, AveragePool() if pooling == "avg" else nn.Identity())
        return network

    return PretrainedModel(
        network=network,
        layer=layer,
        pooling=pooling,
        dim=dim,
        remove_classifier=remove_classifier,
        preprocessing=preprocessing,
        known=known,
        transform_input=bool(getattr(network, "transform_input", False)),
        rename=lambda tensors: _renamed(network, tensors),
        remarks=remarks,
        published=published,
    )


def entries(model: str) -> list[Any]:
    """Return torchvision's weights entries of a model, the default first."""
    known = torchvision.models.get_model_weights(model)
    return sorted(known, key=lambda entry: entry != known.DEFAULT)


def file_name(entry: Any) -> str:
    """Return the name of an entry's weights file."""
    return str(urlparse(entry.url).path.rpartition("/")[2])


def _entry(request: Request) -> tuple[Any, tuple[str, ...]]:
    """Return the weights entry that decides the preprocessing, and remarks on it."""
    known = {entry.name: entry for entry in entries(request.model)}
    default = next(iter(known.values()))
    if request.file:
        return _entry_of_file(request.file, list(known.values()))
    if request.random or request.weights == "DEFAULT":
        return default, ()
    if request.weights.upper() not in known:
        raise ModelError(no_such_weights(request, ["DEFAULT", *known]))
    return known[request.weights.upper()], ()


def _entry_of_file(path: Path, known: list[Any]) -> tuple[Any, tuple[str, ...]]:
    """Recognise torchvision's own files by their hash, and fine-tuned ones by their metadata."""
    if found := read_tuned(path):
        return next((entry for entry in known if entry.name == found.weights.upper()), known[0]), ()
    try:
        digest = file_sha256(path)
    except OSError:
        return known[0], ()  # reading the tensors raises the error
    for entry in known:
        wanted = HASH_IN_NAME.search(file_name(entry))
        if wanted and digest.startswith(wanted[1]):
            return entry, (f"these are torchvision's {entry.name}",)
    several = len({preprocessing_of(entry) for entry in known}) > 1
    return known[0], ((f"images are preprocessed as for {known[0].name}",) if several else ())


def _random(model: str, size: int, *, initialised: bool = True) -> nn.Module:
    options = _sized(model, size)
    if not initialised and model in _SLOW_TO_INITIALISE:
        options["init_weights"] = False
    # Inception and GoogLeNet announce a change of their random weights, which no version has made yet.
    with ignored_warnings("The default weight initialization", FutureWarning):
        try:
            network: nn.Module = torchvision.models.get_model(model, weights=None, **options)
        except NotImplementedError:  # on the meta device
            raise
        except (ValueError, RuntimeError, AssertionError) as error:
            raise ModelError(
                f"{model} does not accept images of {size} x {size} pixels: {first_line(error)}"
            ) from error
    return network.eval()


def _sized(model: str, size: int) -> dict[str, Any]:
    """Return the arguments of networks that are built for one image size, in pixels."""
    if model.startswith("vit_"):
        return {"image_size": size}
    return {"input_size": (size, size)} if model.startswith("maxvit") else {}


def _fill(network: nn.Module, request: Request, entry: Any) -> Published:
    """Load the weights of an entry, from torch's cache or downloaded, after checking their hash."""
    name = file_name(entry)
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    wanted = HASH_IN_NAME.search(name)
    if not file.is_file():
        try:
            fetch(entry.url, file, hashed=True)
        except OSError as error:  # URLError is one
            raise unreachable(f"{name}, the weights {entry} of {request.model}", entry.url, error) from error
        except RuntimeError as error:  # the hash in the file's name does not match
            raise WeightsUnavailable(f"{entry.url} did not return {name}: {error}") from error
    published = Published(name, check_download(file, wanted[1] if wanted else ""))
    try:
        network.load_state_dict(_renamed(network, read_checkpoint(file).tensors))
    except RuntimeError as error:
        raise ModelError(
            f"expected the weights {entry} of {request.model} in {file}, found other weights: {first_line(error)}. "
            f"Delete the file"
        ) from error
    return published


def _renamed(network: nn.Module, tensors: Tensors) -> Tensors:
    """Convert tensors to the names and the image size of this network.

    Old DenseNet files have ``norm.1`` for ``norm1``. Position embeddings of vision transformers are interpolated as
    in torchvision if the network was built for another image size.
    """
    tensors = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items()}
    place = "encoder.pos_embedding"
    transformers = torchvision.models.vision_transformer
    if not isinstance(network, transformers.VisionTransformer) or place not in tensors:
        return tensors
    return dict(transformers.interpolate_embeddings(network.image_size, network.patch_size, tensors))


def _drop_auxiliary(network: nn.Module) -> None:
    if hasattr(network, "aux_logits"):
        for name, value in (("aux_logits", False), *((name, None) for name in _AUXILIARY)):
            if hasattr(network, name):
                setattr(network, name, value)


def _classifier(network: nn.Module) -> tuple[str, str, str, int]:
    """Return the classifier, the layer at its input, the pooling of that layer and its width."""
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if isinstance(last, nn.Linear):
        return name, f"{name}:input", "none", last.in_features
    # SqueezeNet classifies each position and then averages; its classifier's input is pooled the same way.
    classifier = name.rpartition(".")[0]
    return classifier, f"{classifier}:input", "avg", last.in_channels


def preprocessing_of(entry: Any) -> Preprocessing:
    """Return the preprocessing of a weights entry."""
    transforms = entry.transforms()
    return Preprocessing(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
        antialias=bool(transforms.antialias),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )

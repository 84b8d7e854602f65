"""Every model of timm, as ``timm/NAME`` or ``timm/NAME.TAG``, with the data configuration of its weights."""

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from timm.data.config import resolve_data_config
from timm.layers.classifier import ClassifierHead
from torch import Tensor, nn

from bottleneck.backbones.backbone import Whole, replace
from bottleneck.backbones.downloads import HASH_IN_NAME, check_kept, check_reachable, first_line
from bottleneck.backbones.nearest import did_you_mean, nearest
from bottleneck.backbones.pooling import layout_of, pooled
from bottleneck.backbones.request import Request
from bottleneck.backbones.restore import Rename
from bottleneck.backbones.weights import Tensors, read_checkpoint
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.images.preprocessing import Preprocessing

PREFIX = "timm/"

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PreLogits(nn.Module):
    """A network of timm up to its classifier, by timm's own definition.

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
    """An encoder that was made without a classifier: the mean over the positions of its features.

    Parameters
    ----------
    network : nn.Module
    image : (int, int)
        Height and width of its images, in pixels.
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
    return [f"{PREFIX}{name}" for name in timm.list_models()]


def build(request: Request) -> Whole:
    """Build a model of timm.

    Random weights are those of ``torch.manual_seed(seed); timm.create_model(name)``; their preprocessing, and that of a
    weights file, is the data configuration of the tag, or of the default tag.

    Raises
    ------
    ModelError, WeightsUnavailable
        If there are no such weights, or they cannot be fetched.
    """
    name, tag = _chosen(request)
    config = config_of(name, tag)
    preprocessing = preprocessing_of(config)
    sized: dict[str, Any] = {}
    if request.crop and config["fixed_input_size"] and request.crop != preprocessing.crop:
        sized["img_size"] = request.crop
    full_name = f"{name}.{tag}" if tag else name
    network: Any = _created(full_name, config, request, sized)
    known = tuple(network.state_dict())
    classifiers = _classifiers(network)
    if not hasattr(network, "get_classifier"):
        layer, pooling, dim = "forward_features", "avg", network.num_features
    else:
        lone = len(classifiers) == 1 and not isinstance(network.get_submodule(classifiers[0]), nn.ModuleList)
        layer, pooling, dim = (f"{classifiers[0]}:input" if lone else "pre_logits"), "none", network.head_hidden_size

    def end() -> nn.Module:
        if pooling == "avg":
            return MeanFeatures(network, preprocessing.crop_size)
        for classifier in classifiers:
            replace(network, classifier, nn.Identity())
        return PreLogits(network)

    return Whole(
        network=network,
        layer=layer,
        pooling=pooling,
        dim=dim,
        end=end,
        preprocessing=preprocessing,
        known=known,
        rename=renamer(network),
    )


def tags(name: str) -> list[str]:
    """Return the tags under which timm has weights of a model, without prefix, the default first."""
    listed = timm.models.get_arch_pretrained_cfgs(name)
    return [full.partition(".")[2] for full, config in listed.items() if config.has_weights]


def config_of(name: str, tag: str) -> dict[str, Any]:
    """Return timm's configuration of a model's weights.

    Raises
    ------
    ModelError
        If there is no such tag.
    """
    known = {full.partition(".")[2]: config for full, config in timm.models.get_arch_pretrained_cfgs(name).items()}
    if not tag:
        return dict(vars(timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()))
    if tag not in known:
        hint = did_you_mean(nearest(tag, known)) or f"there are {', '.join(tags(name)) or 'none'}"
        raise ModelError(f"expected weights of {PREFIX}{name} in timm, got {tag!r}; {hint}")
    return dict(vars(known[tag]))


def preprocessing_of(config: dict[str, Any]) -> Preprocessing:
    """Return what timm's own ``create_transform`` would do for a configuration, outside of training."""
    data = resolve_data_config({}, pretrained_cfg=config)
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


def prefix_tokens(network: nn.Module) -> int:
    """Return how many tokens come before those of the positions: the class token, registers."""
    own = getattr(network, "num_prefix_tokens", None)
    if isinstance(own, int):
        return own
    return 1 if hasattr(network, "class_token") else 0  # torchvision's vision transformers


def has_class_token(network: nn.Module) -> bool:
    """Whether the first of these is a class token, and not a register."""
    own = getattr(network, "has_class_token", None)
    if isinstance(own, bool):
        return own
    return any(getattr(network, name, None) is not None for name in ("cls_token", "class_token"))


def renamer(network: nn.Module) -> Rename:
    """Return timm's own rule for checkpoints in other forms of this kind of network, used where it helps."""
    rule = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    wanted = {name: value.shape for name, value in network.state_dict().items()}

    def fitting(tensors: Tensors) -> int:
        return sum(name in tensors and tensors[name].shape == shape for name, shape in wanted.items())

    def rename(tensors: Tensors) -> Tensors:
        if rule is None:
            return tensors
        try:
            other = rule(dict(tensors), network)
        except Exception:  # it was written for files that this one is not
            return tensors
        return other if isinstance(other, dict) and fitting(other) > fitting(tensors) else tensors

    return rename


def where(config: dict[str, Any]) -> tuple[str, list[str], str]:
    """Return the address of the weights' page or file, the names that the file may have, and the hub's repository.

    The repository is empty where the file comes from an address of its own.
    """
    if config["hf_hub_id"]:
        files = [config["hf_hub_filename"]] if config["hf_hub_filename"] else list(_HUB_FILES)
        return f"{constants.ENDPOINT}/{config['hf_hub_id']}", files, config["hf_hub_id"]
    return config["url"] or "", [Path(urlparse(config["url"] or "").path).name], ""


def kept(config: dict[str, Any]) -> Path | None:
    """Return the weights file that an earlier download has left on this machine."""
    _, files, repository = where(config)
    for name in files:
        found = try_to_load_from_cache(repository, name) if repository else _checkpoint(name)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def _checkpoint(name: str) -> str:
    return str(Path(torch.hub.get_dir()) / "checkpoints" / name)


def _chosen(request: Request) -> tuple[str, str]:
    """Return the name of the model without its prefix, and the tag of its weights."""
    name, _, tag = request.model.removeprefix(PREFIX).partition(".")
    if request.random or request.file or request.weights == "DEFAULT":
        return name, tag
    if tag and tag != request.weights:
        raise ModelError(f"expected one tag, got {tag!r} in --model and {request.weights!r} in --weights")
    return name, request.weights


def _created(name: str, config: dict[str, Any], request: Request, sized: dict[str, Any]) -> nn.Module:
    if sized:
        _check_size(name, sized)
    if request.random or request.file:
        network: nn.Module = timm.create_model(name, pretrained=False, **sized)
    else:
        network = _pretrained(name, config, sized)
    return network.eval()


def _check_size(name: str, sized: dict[str, Any]) -> None:
    try:
        with torch.device("meta"):
            timm.create_model(name, pretrained=False, **sized)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        size = sized["img_size"]
        raise ModelError(f"{PREFIX}{name} cannot take images of {size} x {size} pixels: {first_line(error)}") from error


def _pretrained(name: str, config: dict[str, Any], sized: dict[str, Any]) -> nn.Module:
    """Build a network with the weights that timm has kept, or fetches, of one tag."""
    if not (config["hf_hub_id"] or config["url"]):
        raise WeightsUnavailable(
            f"timm has no weights of {PREFIX}{name}: use --weights PATH, or --weights none for random weights"
        )
    found = kept(config)
    if found:
        return _from_kept(name, found, sized)
    address, files, repository = where(config)
    full_name = f"{PREFIX}{config['architecture']}" + (f".{config['tag']}" if config["tag"] else "")
    wanted = f"{files[0]}, the weights of {full_name}"
    check_reachable(wanted, hf_hub_url(repository, files[0]) if repository else address, full_name)
    try:
        with _download_settings(hashed=bool(repository or _hash_in(files[0]))):
            network: nn.Module = timm.create_model(name, pretrained=True, **sized)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # of the hub, of httpx, of safetensors, of torch: a broken line, a page instead of a file
        raise WeightsUnavailable(
            f"{address} did not give {wanted}: {first_line(error)}. Fetch that file by other means and name it with "
            f"--model {full_name} --weights PATH"
        ) from error
    found = kept(config)
    if found:
        _check_hash(found)
    return network


def _from_kept(name: str, file: Path, sized: dict[str, Any]) -> nn.Module:
    """Build a network with the weights of a file that is here, without asking anybody."""
    _check_hash(file)
    overlay = {"state_dict": read_checkpoint(file).tensors}
    try:
        network: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sized)
    except RuntimeError as error:
        raise ModelError(
            f"expected the weights of {PREFIX}{name} in {file.resolve()}, found others: {first_line(error)}. Delete it"
        ) from error
    return network


@contextmanager
def _download_settings(*, hashed: bool) -> Iterator[None]:
    """Let timm show its progress and check the hash that a file has in its name, while it downloads."""
    before = timm.models._builder._DOWNLOAD_PROGRESS, timm.models._builder._CHECK_HASH
    timm.models.set_pretrained_download_progress(True)
    timm.models.set_pretrained_check_hash(hashed)
    try:
        yield
    finally:
        timm.models.set_pretrained_download_progress(before[0])
        timm.models.set_pretrained_check_hash(before[1])


def _check_hash(file: Path) -> None:
    """Prove a kept file: the hub's cache calls it by its SHA-256, other addresses give its beginning."""
    blob = file.resolve()
    if _SHA256.fullmatch(blob.name):
        check_kept(blob, blob.name)
    elif wanted := _hash_in(file.name):
        check_kept(blob, wanted)


def _hash_in(name: str) -> str:
    """Return the digits of a SHA-256 in a file's name; ``300e`` in that of I-JEPA's are epochs."""
    found = HASH_IN_NAME.search(name)
    return found[1] if found else ""


def _classifiers(network: Any) -> list[str]:
    """Return the names of the modules that come after the default features."""
    if not hasattr(network, "get_classifier"):
        return []
    found = network.get_classifier()
    modules = list(found) if isinstance(found, tuple | list) else [found]
    modules = [module.fc if isinstance(module, ClassifierHead) else module for module in modules]
    return [name for name, module in network.named_modules() if any(module is one for one in modules)]

"""timm's weights: their configurations, and how they are found on this machine or downloaded."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from torch import nn

from bottleneck.backbones.catalogue_table import HUB_FILES
from bottleneck.backbones.downloads import (
    HASH_IN_NAME,
    Published,
    check_download,
    check_reachable,
    fetch,
    first_line,
    unreachable,
)
from bottleneck.backbones.names import no_such_tag
from bottleneck.backbones.request import TIMM
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.process_settings import SharedContext, attribute_set

_SHA256 = re.compile(r"[0-9a-f]{64}")

# The hub's client reads the environment variable of this name when it is imported. Without it, the client downloads a
# list of AI agents and reports which one runs it and which packages are installed.
_without_telemetry = SharedContext(lambda: attribute_set(constants, "HF_HUB_DISABLE_TELEMETRY", True))


def tags(name: str) -> list[str]:
    """Return the tags of a model's weights, the default first; `name` has no ``timm/``."""
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
        raise ModelError(no_such_tag(f"{TIMM}{name}", tag, tags(name)))
    return dict(vars(known[tag]))


def where(config: dict[str, Any]) -> tuple[str, list[str], str]:
    """Return the address of the weights' page or file, the possible file names, and the hub repository.

    The repository is empty if the weights are not on the hub.
    """
    if config["hf_hub_id"]:
        files = [config["hf_hub_filename"]] if config["hf_hub_filename"] else list(HUB_FILES)
        return f"{constants.ENDPOINT}/{config['hf_hub_id']}", files, config["hf_hub_id"]
    return config["url"] or "", [Path(urlparse(config["url"] or "").path).name], ""


def downloaded(config: dict[str, Any]) -> Path | None:
    """Return the weights file if it is already on this machine."""
    _, files, repository = where(config)
    for name in files:
        found = try_to_load_from_cache(repository, name) if repository else _checkpoint(name)
        if isinstance(found, str) and Path(found).is_file():
            return Path(found)
    return None


def _checkpoint(name: str) -> str:
    return str(Path(torch.hub.get_dir()) / "checkpoints" / name)


def pretrained(name: str, config: dict[str, Any], sized: dict[str, Any]) -> tuple[nn.Module, Published]:
    """Build a network with the weights of one tag, from this machine or downloaded.

    Parameters
    ----------
    name : str
        Name of the model, with the tag if there is one, without ``timm/``.
    config : dict
        See `config_of`.
    sized : dict
        Arguments of the network for a different image size.

    Returns
    -------
    nn.Module, Published

    Raises
    ------
    WeightsUnavailable
        If there are none, or they cannot be downloaded.
    ModelError
        If they are damaged, or belong to another network.
    """
    if not (config["hf_hub_id"] or config["url"]):
        raise WeightsUnavailable(
            f"timm has no weights of {TIMM}{name}: use --weights PATH, or --weights none for random weights"
        )
    file = downloaded(config) or _fetched(config)
    _, _, repository = where(config)
    published = Published(f"{repository}/{file.name}" if repository else file.name, _verified_sha256(file))
    overlay = {"state_dict": read_checkpoint(file).tensors}
    try:
        network: nn.Module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sized)
    except RuntimeError as error:
        raise ModelError(
            f"expected the weights of {TIMM}{name} in {file.resolve()}, found other weights: "
            f"{first_line(error)}. Delete the file"
        ) from error
    return network, published


def _fetched(config: dict[str, Any]) -> Path:
    """Download the weights file to the place where timm expects it, without reading it.

    Raises
    ------
    WeightsUnavailable
        If it cannot be downloaded.
    """
    address, files, repository = where(config)
    full_name = f"{TIMM}{config['architecture']}" + (f".{config['tag']}" if config["tag"] else "")
    wanted = f"{files[0]}, the weights of {full_name}"
    if repository and constants.HF_HUB_OFFLINE:
        raise unreachable(wanted, address, OSError("HF_HUB_OFFLINE is set"), full_name)
    check_reachable(wanted, hf_hub_url(repository, files[0]) if repository else address, full_name)
    try:
        if repository:
            return _from_hub(repository, files)
        file = Path(_checkpoint(files[0]))
        fetch(address, file, hashed=bool(_hash_in(files[0])))
        return file
    except MemoryError:
        raise
    except Exception as error:  # of httpx, the hub or urllib: a broken connection, a page instead of a file
        raise WeightsUnavailable(
            f"{address} did not return {wanted}: {first_line(error)}. Download that file another way and pass it with "
            f"--model {full_name} --weights PATH"
        ) from error


def _from_hub(repository: str, files: list[str]) -> Path:
    """Download the first of the files that a repository has, with the hub's client and into its cache."""
    *others, last = files
    with _without_telemetry:
        for name in others:
            with suppress(EntryNotFoundError):
                return Path(hf_hub_download(repository, name))
        return Path(hf_hub_download(repository, last))


def _verified_sha256(file: Path) -> str:
    """Verify the digits of the hash in a file's name (all of them in the hub's cache), and return its SHA-256."""
    blob = file.resolve()
    return check_download(blob, blob.name if _SHA256.fullmatch(blob.name) else _hash_in(file.name))


def _hash_in(name: str) -> str:
    """Return the digits of a SHA-256 in a file name, if any; ``300e`` in I-JEPA's are epochs."""
    found = HASH_IN_NAME.search(name)
    return found[1] if found else ""

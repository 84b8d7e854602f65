"""What timm says of its weights, and how they come from its hub or address, or from what is kept of them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from torch import nn

from bottleneck.backbones.catalogue import HUB_FILES, no_such_tag
from bottleneck.backbones.downloads import HASH_IN_NAME, check_kept, check_reachable, first_line
from bottleneck.backbones.packages import timm
from bottleneck.backbones.request import TIMM
from bottleneck.backbones.weights import read_checkpoint
from bottleneck.errors import ModelError, WeightsUnavailable

_SHA256 = re.compile(r"[0-9a-f]{64}")


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
        raise ModelError(no_such_tag(f"{TIMM}{name}", tag, tags(name)))
    return dict(vars(known[tag]))


def where(config: dict[str, Any]) -> tuple[str, list[str], str]:
    """Return the address of the weights' page or file, the names that the file may have, and the hub's repository.

    The repository is empty where the file comes from an address of its own.
    """
    if config["hf_hub_id"]:
        files = [config["hf_hub_filename"]] if config["hf_hub_filename"] else list(HUB_FILES)
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


def pretrained(name: str, config: dict[str, Any], sized: dict[str, Any]) -> nn.Module:
    """Build a network with the weights that timm has kept, or fetches, of one tag.

    Parameters
    ----------
    name : str
        Of the model, with the tag if there is one, without ``timm/``.
    config : dict
        See `config_of`.
    sized : dict
        Arguments for images of another size.

    Raises
    ------
    WeightsUnavailable
        If there are none, or they cannot be fetched.
    ModelError
        If what is kept is damaged, or of another network.
    """
    if not (config["hf_hub_id"] or config["url"]):
        raise WeightsUnavailable(
            f"timm has no weights of {TIMM}{name}: use --weights PATH, or --weights none for random weights"
        )
    found = kept(config)
    if found:
        return _from_kept(name, found, sized)
    address, files, repository = where(config)
    full_name = f"{TIMM}{config['architecture']}" + (f".{config['tag']}" if config["tag"] else "")
    wanted = f"{files[0]}, the weights of {full_name}"
    check_reachable(wanted, hf_hub_url(repository, files[0]) if repository else address, full_name)
    try:
        with _download_settings(hashed=bool(repository or _hash_in(files[0]))):
            network: nn.Module = timm.create_model(name, pretrained=True, **sized)
    except MemoryError:
        raise
    except Exception as error:  # of httpx, the hub, safetensors, torch: a broken line, a page that is no file
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
            f"expected the weights of {TIMM}{name} in {file.resolve()}, found others: {first_line(error)}. Delete it"
        ) from error
    return network


@contextmanager
def _download_settings(*, hashed: bool) -> Iterator[None]:
    """Let timm show its progress and check the hash that a file has in its name, while it downloads."""
    settings = getattr(timm.models, "_builder", None)  # which has setters only; both are off unless somebody set them
    before = [getattr(settings, name, False) for name in ("_DOWNLOAD_PROGRESS", "_CHECK_HASH")]
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

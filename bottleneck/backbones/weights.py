"""Tensors from files, safely; their digest; fitting them to a network."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bottleneck.errors import ModelError, WeightsUnavailable

Tensors = Mapping[str, Tensor]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_SHOWN = 4


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint: ``.safetensors``, or ``.pth``/``.pt`` as PyTorch saves them, without running code.

    A dictionary inside ``state_dict``, ``model_state_dict`` or ``model`` is taken out, and the prefix ``module.``
    that DataParallel leaves is dropped.

    Raises
    ------
    ModelError
        If the file cannot be read, or holds anything but tensors.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailable(f"expected a weights file at {path}, found none") from error
    except Exception as error:  # zipfile, pickle and safetensors each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"expected tensors (a state_dict) in {path}, could not read them: {reason:.300}. Save them with "
            f"torch.save(model.state_dict(), PATH) or as .safetensors"
        ) from error
    return _unwrapped(found, path)


def _unwrapped(found: object, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"expected a state_dict of tensors in {path}, found {type(found).__name__}")
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    return found


def load_tensors(network: nn.Module, tensors: Tensors, source: str) -> None:
    """Copy `tensors` into `network`, every one by its name.

    What the network has and does not use for features (a classifier that was cut off) is not asked for;
    `tensors` may hold more.

    Raises
    ------
    ModelError
        If a tensor is missing or has another shape; the first ones are named.
    """
    wanted = {name: value for name, value in network.state_dict().items() if not _is_counter(name)}
    missing = [name for name in wanted if name not in tensors]
    shapes = [
        f"{name} (expected {tuple(value.shape)}, found {tuple(tensors[name].shape)})"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if missing or shapes:
        raise ModelError(
            f"the weights {source} do not fit: of {len(wanted)} tensors {len(missing)} are missing"
            f"{_named(missing)}, {len(shapes)} have another shape{_named(shapes)}. Is it a checkpoint of this model?"
        )
    network.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def tensors_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, 64 hexadecimal digits.

    Each tensor counts with its name, dtype, shape and little-endian bytes, in the order of the names. Counters of
    batches, which no feature depends on, do not.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if _is_counter(name):
            continue
        values = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        hasher.update(values.view(torch.uint8).numpy().data if values.dim() else values.numpy().tobytes())
    return hasher.hexdigest()


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _named(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f": {', '.join(names[:_SHOWN])}{more}"

"""Tensors from files, safely; their digest."""

import argparse
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck.backbones.downloads import first_line
from bottleneck.errors import ModelError, WeightsUnavailable

Tensors = Mapping[str, Tensor]

_FOREIGN = re.compile(r"(?:GLOBAL|class) ([\w.]+\.\w+)")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")  # of several, the first counts


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Parameters
    ----------
    source : str
        The file.
    tensors : dict of str to Tensor
        By name.
    remarks : tuple of str
        What was taken off to get at them, in words.
    """

    source: str
    tensors: dict[str, Tensor]
    remarks: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or what PyTorch saves (``.pth``, ``.pt``, ``.bin``, ...), without running code.

    Where the tensors stand inside another dictionary, as ``state_dict``, ``model`` or the like, they are taken out.

    Raises
    ------
    WeightsUnavailable
        If there is no such file.
    ModelError
        If the file cannot be read, or holds no dictionary of tensors, or several.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            # The settings of a training script, which a checkpoint may hold, are only data.
            with torch.serialization.safe_globals([argparse.Namespace]):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsUnavailable(f"expected a weights file at {path}, found none") from error
    except IsADirectoryError as error:
        raise ModelError(f"expected a weights file at {path}, found a folder: could not read it") from error
    except Exception as error:  # zipfile, pickle and safetensors each raise their own
        raise ModelError(
            f"expected tensors (a state_dict) in {path}, could not read them: {_reason(error):.300}. Save them with "
            f"torch.save(model.state_dict(), PATH) or as .safetensors"
        ) from error
    tensors, remarks = _unwrapped(found, path)
    return Checkpoint(str(path), tensors, remarks)


def _reason(error: Exception) -> str:
    if "TorchScript" in str(error):
        return "it is a TorchScript program, not tensors"
    if type(error).__name__ != "UnpicklingError":  # whose words go on to tell how torch's safety is turned off
        reason = first_line(error)
        return reason if any(sign.isalpha() for sign in reason) else "it is no file that torch.save has written"
    found = _FOREIGN.search(str(error))
    if not found:
        return "it is no file that torch.save has written"
    return f"it holds Python objects ({found[1]}) beside tensors, which could run code and are never loaded"


def _unwrapped(found: object, path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    remarks = []
    while isinstance(found, dict) and not _is_state(found):
        inside = [key for key, value in found.items() if isinstance(value, dict) and _holds_state(value)]
        known = [key for key in _WRAPPERS if key in inside]
        if not inside or (len(inside) > 1 and not known):
            break
        key = (known or inside)[0]
        others = ", ".join(repr(other) for other in inside if other != key)
        remarks.append(f"taken from {key!r}" + (f" ({others} not used)" if others else ""))
        found = found[key]
    if isinstance(found, dict) and _is_state(found):
        return found, tuple(remarks)
    names = ", ".join(str(key) for key in found) if isinstance(found, dict) else ""
    holds = f"a dictionary of {names:.200}" if names else type(found).__name__
    raise ModelError(
        f"expected a state_dict of tensors in {path}, found {holds}. Save them with "
        f"torch.save(model.state_dict(), PATH) or as .safetensors"
    )


def _is_state(found: dict[Any, Any]) -> bool:
    return bool(found) and all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for name, value in found.items()
    )


def _holds_state(found: dict[Any, Any]) -> bool:
    return _is_state(found) or any(isinstance(value, dict) and _is_state(value) for value in found.values())


def tensors_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, 64 hexadecimal digits.

    Each tensor counts with its name, dtype, shape and little-endian bytes, in the order of the names. Counters of
    batches, which no feature depends on, do not.
    """
    hasher = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if is_counter(name):
            continue
        values = tensor.detach().cpu().contiguous()
        hasher.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        hasher.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def is_counter(name: str) -> bool:
    """Whether a tensor only counts batches."""
    return name.endswith("num_batches_tracked")

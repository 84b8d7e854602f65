"""Read tensors from files safely, and compute their digest."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck.backbones.downloads import first_line
from bottleneck.backbones.inert import HoldsCode, Inert, Unread
from bottleneck.backbones.torch_files import module_tensors, read_plain, read_tensor
from bottleneck.backbones.tuned import check_header
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.files import NotRegularError

Tensors = Mapping[str, Tensor]

# If there are several, the first counts: a teacher or a moving average is the network to use.
_WRAPPERS = (
    "state_dict", "model_state_dict", "model", "net", "network", "teacher", "target_encoder", "ema", "model_ema",
    "state_dict_ema", "ema_state_dict", "params_ema",
)  # fmt: skip
_DEEPEST = 8  # nested wrappers
_REPEATED = 1 << 20  # bytes by which a tensor may exceed the size of its file
_SHARED = 8  # times as many bytes for all tensors, which may share storage
_SHOWN = 4
_LISTED = 40


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file.

    Parameters
    ----------
    source : str
        Path of the file.
    tensors : dict of str to Tensor
        Tensors by name.
    remarks : tuple of str
        Remarks on how they were unwrapped.
    """

    source: str
    tensors: dict[str, Tensor]
    remarks: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object: the names, shapes and types of the tensors, without their values."""
        tensors = [
            {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in self.tensors.items()
        ]
        return {"checkpoint": self.source, "remarks": self.remarks, "tensors": tensors}


def read_checkpoint(path: Path) -> Checkpoint:
    """Read ``.safetensors``, or what PyTorch saves (``.pth``, ``.pt``, ``.bin``, ...), without running code.

    Files of ``torch.save`` are read as data, without an unpickler. This needs no more memory than the size of the file,
    and a little for names; a file that claims more is refused.

    If the tensors are inside another dictionary, under ``state_dict``, ``model`` or a similar key, they are unwrapped.
    Settings and metrics of any type are ignored; see `bottleneck.backbones.unpickling`.

    Raises
    ------
    WeightsUnavailable
        If there is no such file.
    ModelError
        If the file cannot be read, or does not contain exactly one dictionary of tensors.
    """
    try:
        tensors, remarks = _unwrapped(_loaded(path), path)
        _check_size(tensors, path)
        read = {name: read_tensor(one) if isinstance(one, Unread) else one for name, one in tensors.items()}
    except HoldsCode as error:
        raise _unreadable(
            path, f"it contains Python objects ({error}) besides tensors, which could run code and are never loaded"
        ) from error
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise WeightsUnavailable(f"expected a weights file at {path}, found none") from error
    except NotRegularError as error:
        kind = "a folder" if path.is_dir() else "something else"
        raise ModelError(f"expected a weights file at {path}, found {kind}: could not read it") from error
    except Exception as error:  # zipfile, pickle and safetensors each raise their own
        raise _unreadable(path, _reason(error)) from error
    return Checkpoint(str(path), read, remarks)


def _loaded(path: Path) -> object:
    if path.suffix.lower() == ".safetensors":
        check_header(path)
        from safetensors.torch import load_file

        return load_file(path)
    try:
        return read_plain(path)
    except HoldsCode:
        raise
    except ModelError as error:
        raise _unreadable(path, str(error)) from error


def _check_size(tensors: Mapping[str, Any], path: Path) -> None:
    """Refuse tensors that are much larger than their file: views that repeat a few numbers.

    Raises
    ------
    ValueError
    """
    file_size = path.stat().st_size
    sizes = [math.prod(one.shape) * one.dtype.itemsize for one in tensors.values()]
    if max(sizes) > file_size + _REPEATED or sum(sizes) > _SHARED * (file_size + _REPEATED):
        raise ValueError(f"it has {file_size:,} bytes, but tensors of {sum(sizes):,} bytes")


def _unreadable(path: Path, reason: str) -> ModelError:
    return ModelError(
        f"expected tensors (a state_dict) in {path}, could not read them: {reason:.300}. Save them with "
        f"torch.save(model.state_dict(), PATH) or as .safetensors"
    )


def _reason(error: Exception) -> str:
    reason = first_line(error)
    return reason if any(sign.isalpha() for sign in reason) else "it was not written by torch.save"


def _unwrapped(found: object, path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the tensors of a file, read or unread, and remarks on how they were unwrapped."""
    remarks: list[str] = []
    known_states: dict[int, bool] = {}  # of values that occur under several keys
    for _ in range(_DEEPEST):
        if tensors := module_tensors(found):
            return tensors, (*remarks, "taken from a pickled network")
        if not isinstance(found, dict) or _is_state(found):
            break
        inside = [key for key, value in found.items() if _holds_state(value, known_states)]
        known = [key for key in _WRAPPERS if key in inside]
        if not inside or (len(inside) > 1 and not known):
            break
        key = (known or inside)[0]
        others = ", ".join(repr(other) for other in inside if other != key)
        remarks.append(f"taken from {key!r}" + (f" ({others} not used)" if others else ""))
        found = found[key]
    if isinstance(found, dict) and (tensors := _tensors(found)):
        left = [str(name) for name in found if name not in tensors]
        more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
        others_left = [f"{', '.join(left[:_SHOWN])}{more} not used: not tensors"] if left else []
        return tensors, (*remarks, *others_left)
    names = ", ".join(str(key) for key in islice(found, _LISTED)) if isinstance(found, dict) else ""
    content = f"a dictionary of {names:.200}" if names else _kind(found)
    raise ModelError(
        f"expected a state_dict of tensors in {path}, found {content}. Save them with "
        f"torch.save(model.state_dict(), PATH) or as .safetensors"
    )


def _kind(found: object) -> str:
    if isinstance(found, Inert):
        return str(found.kind)
    return "Tensor" if isinstance(found, Unread) else type(found).__name__


def _is_state(found: dict[Any, Any]) -> bool:
    return bool(found) and len(_tensors(found)) == len(found)


def _tensors(found: dict[Any, Any]) -> dict[str, Any]:
    """Return the tensors of a dictionary that consists mostly of tensors, not all of them single numbers."""
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and _is_tensor(value)}
    mostly = 2 * len(tensors) > len(found) and any(len(value.shape) for value in tensors.values())
    return tensors if mostly else {}


def _is_tensor(value: object) -> bool:
    return isinstance(value, Unread) or (isinstance(value, Tensor) and value.layout == torch.strided)


def _holds_state(value: object, known: dict[int, bool], *, deep: bool = True) -> bool:
    """Return whether a value is a state_dict or a network, or contains one; `known` caches answers by identity."""
    if not isinstance(value, dict):
        return False
    place = 2 * id(value) + deep
    if place not in known:
        own = bool(module_tensors(value) or _tensors(value))
        known[place] = own or (deep and any(_holds_state(inner, known, deep=False) for inner in value.values()))
    return known[place]


def tensors_digest(network: nn.Module) -> str:
    """Return the SHA-256 of a network's parameters and buffers, 64 hexadecimal digits.

    The hash covers the name, dtype, shape and little-endian bytes of each tensor, in the order of the names. Counters
    of batches are excluded, since no feature depends on them.
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
    """Return whether a tensor only counts batches."""
    return name.endswith("num_batches_tracked")

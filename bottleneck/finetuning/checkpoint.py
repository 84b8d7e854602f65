"""Checkpoints: a safetensors file of tensors, and a JSON state file that names it and is written last.

A running fine-tuning is locked (`bottleneck.runs.lock`), but locks on a network file system may not work between
machines. So each tensors file has a unique name, and a writer deletes only files that no state names: its own, the one
of the state that it replaced, and those that a killed writer left behind.
"""

import itertools
import json
import math
import re
import secrets
from contextlib import suppress
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bottleneck.errors import RunError
from bottleneck.finetuning.history import Epoch, History, Tensors
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.tree import Tree

_VERSION = 1
_STATE = "state.json"
_TENSORS = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{8}-\d+)?\.safetensors")
_MAX_BYTES = 64 << 30  # of a tensors file
_ABANDONED = 3600.0  # seconds after which a tensors file that no state names is abandoned
_ADAMW, _SGD = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}  # the state of each parameter
_ATTEMPTS = 3  # to read a checkpoint that another writer replaces
_WRITER, _saves = secrets.token_hex(4), itertools.count()


def save_checkpoint(folder: Path, history: History, tensors: Tensors, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint atomically: it survives any kill once this returns, and until then the previous one does.

    Parameters
    ----------
    folder : Path
    history : History
    tensors : dict of str to Tensor
        The current trained tensors.
    optimizer : torch.optim.Optimizer
    """
    groups = {"now": tensors, "best": history.best_tensors, "average": history.average or {}}
    saved = {f"{kind}/{name}": value for kind, group in groups.items() for name, value in group.items()}
    scalars: dict[str, Any] = {}
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                saved[f"optimizer/{place}/{name}"] = value
            else:
                scalars[f"{place}/{name}"] = value
    data = save({name: value.detach().cpu().clone().contiguous() for name, value in saved.items()})
    runs, replaced = Tree.above(folder, 2), _named(folder)
    name = f"{sha256_hex(data)}-{_WRITER}-{next(_saves)}.safetensors"
    runs.write(folder / name, data)
    state = {"version": _VERSION, "tensors": name, "optimizer": scalars, **history.to_json()}
    runs.write(folder / _STATE, (json.dumps(state, indent=2) + "\n").encode())
    _clean(folder, replaced, name)


def _named(folder: Path) -> str | None:
    """Return the name of the tensors file that the state names."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(Tree.above(folder, 2).read_json(folder / _STATE)["tensors"])
    return None


def _clean(folder: Path, replaced: str | None, fresh: str) -> None:
    """Delete the tensors files that no state names, except recent ones that another writer may be about to name."""
    runs, named = Tree.above(folder, 2), _named(folder)
    with suppress(OSError):
        now = runs.status(folder / fresh).st_mtime
        for other in filter(_TENSORS.fullmatch, runs.names(folder)):
            ours = other == replaced or f"-{_WRITER}-" in other
            if other not in (fresh, named) and (ours or now - runs.status(folder / other).st_mtime > _ABANDONED):
                runs.unlink(folder / other)


def load_checkpoint(folder: Path, optimizer: torch.optim.Optimizer) -> tuple[History, Tensors] | None:
    """Read a checkpoint, and restore the optimizer from it; return None if there is none.

    Returns
    -------
    History, dict of str to Tensor
        The history, and the trained tensors.

    Raises
    ------
    RunError
        If it is damaged, or from another version or recipe.
    """
    file = folder / _STATE
    try:
        state, tensors = _read(folder)
        history = History(epochs=[_epoch(epoch) for epoch in state["epochs"]], best=state["best"])
        _check(history)
        history.best_tensors = _group(tensors, "best")
        history.average = _group(tensors, "average") or None
        trained = _group(tensors, "now")
        shapes = _shapes(trained)
        if _shapes(history.best_tensors) != shapes or _shapes(history.average or {}).items() - shapes.items():
            raise ValueError("expected the same tensors in all groups")
        _restore(optimizer, _group(tensors, "optimizer"), state["optimizer"])
        return history, trained
    except FileNotFoundError:
        if file.exists():
            raise RunError(f"expected the tensors of a checkpoint in {folder}, found none: start again") from None
        return None
    except RunError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise RunError(f"expected a checkpoint in {folder}, cannot read it: {error!r}. Start again") from error


def _read(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """Return the state and its tensors; retry if another writer replaces both in between."""
    runs, file = Tree.above(folder, 2), folder / _STATE
    for attempt in range(_ATTEMPTS):
        state = runs.read_json(file)
        if state["version"] != _VERSION:
            raise RunError(f"expected a checkpoint of version {_VERSION} in {file}, found {state['version']!r}")
        name = state["tensors"]
        if Path(name).name != name:
            raise ValueError(f"expected the name of a file in the same folder, found {name!r}")
        try:
            data = runs.read(folder / name, _MAX_BYTES)
        except FileNotFoundError:
            if attempt + 1 == _ATTEMPTS or _named(folder) == name:
                raise
            continue
        if name.removesuffix(".safetensors").partition("-")[0] != sha256_hex(data):
            raise RunError(f"expected {folder / name} to match its checksum; it has changed")
        return state, load(data)
    raise FileNotFoundError(folder)


def _epoch(values: dict[str, Any]) -> Epoch:
    """Return an epoch after checking its values."""
    epoch = Epoch(**values)
    train = (epoch.train_loss, epoch.train_accuracy)
    numbers = [epoch.val_loss, epoch.val_accuracy, epoch.lr, epoch.seconds, *(one for one in train if one is not None)]
    if not (_is_whole(epoch.number) and all(_is_finite(one) for one in numbers)):
        raise ValueError(f"expected finite numbers of each epoch, found {values}")
    if min(epoch.lr, epoch.seconds) < 0 or not all(0 <= one <= 1 for one in (epoch.val_accuracy, train[1] or 0)):
        raise ValueError(f"expected accuracies from 0 to 1, a rate and seconds of each epoch, found {values}")
    return epoch


def _check(history: History) -> None:
    """Refuse epochs that are not numbered 0, 1, 2, ..., or a best epoch that is not among them."""
    if [epoch.number for epoch in history.epochs] != list(range(len(history.epochs))):
        raise ValueError("expected the epochs 0, 1, 2, ...")
    if not (_is_whole(history.best) and 0 <= history.best < len(history.epochs)):
        raise ValueError(f"expected the best of {len(history.epochs)} epochs, found {history.best!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _shapes(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _group(tensors: Tensors, kind: str) -> Tensors:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def _restore(optimizer: torch.optim.Optimizer, tensors: Tensors, scalars: dict[str, Any]) -> None:
    """Restore the state of an optimizer after checking the type and shape of each value."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *scalars.items()]:
        place, _, name = key.partition("/")
        if not (0 <= int(place) < len(parameters) and _fits(name, value, parameters[int(place)])):
            raise ValueError(f"expected the state of {len(parameters)} parameters, found {key}, which belongs to none")
        state.setdefault(int(place), {})[name] = value
    expected = _ADAMW if isinstance(optimizer, torch.optim.AdamW) else _SGD
    if any(one.keys() != expected for one in state.values()):
        raise ValueError(f"expected {', '.join(sorted(expected))} of each parameter, found something else")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fits(name: str, value: object, parameter: Tensor) -> bool:
    """Return whether a value can be part of the state of a parameter: a step count, or a tensor of its shape."""
    if name == "step":
        return _is_finite(value) or (isinstance(value, Tensor) and value.numel() == 1)
    return value is None or (isinstance(value, Tensor) and value.shape == parameter.shape)

"""A checkpoint after each epoch: tensors in a safetensors file, and a JSON file that names it and comes last.

A run at work is locked (`bottleneck.finetuning.lock`), but the lock of a folder on a network may not hold between
two machines. So each file of tensors has a name that no other writer uses, and a writer deletes only files that no
state names any more: its own, those of the state that it replaced, and what a killed writer has left.
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
from bottleneck.finetuning.history import Epoch, Progress, Tensors
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.tree import Tree

_VERSION = 1
_STATE = "state.json"
_TENSORS = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{8}-\d+)?\.safetensors")
_LARGEST = 64 << 30  # bytes of tensors
_ABANDONED = 3600.0  # seconds after which no writer still needs a file of tensors that no state names
_ADAMW, _SGD = {"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}  # what each keeps of a parameter
_ATTEMPTS = 3  # to read tensors that another writer replaces
_WRITER, _saves = secrets.token_hex(4), itertools.count()


def save_checkpoint(folder: Path, progress: Progress, now: Tensors, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint; when this returns it survives any kill, and until then the one before does.

    Parameters
    ----------
    folder : Path
    progress : Progress
    now : dict of str to Tensor
        All that training changes, as it is.
    optimizer : torch.optim.Optimizer
    """
    groups = {"now": now, "best": progress.best_tensors, "average": progress.average or {}}
    tensors = {f"{kind}/{name}": value for kind, group in groups.items() for name, value in group.items()}
    scalars: dict[str, Any] = {}
    for place, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{place}/{name}"] = value
            else:
                scalars[f"{place}/{name}"] = value
    data = save({name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()})
    runs, before = Tree.above(folder, 2), _named(folder)
    name = f"{sha256_hex(data)}-{_WRITER}-{next(_saves)}.safetensors"
    runs.write(folder / name, data)
    state = {"version": _VERSION, "tensors": name, "optimizer": scalars, **progress.to_json()}
    runs.write(folder / _STATE, (json.dumps(state, indent=2) + "\n").encode())
    _clean(folder, before, name)


def _named(folder: Path) -> str | None:
    """Return the name of the file of tensors of the checkpoint that there is."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(Tree.above(folder, 2).read_json(folder / _STATE)["tensors"])
    return None


def _clean(folder: Path, before: str | None, fresh: str) -> None:
    """Delete the files of tensors that no state names, but for those of another writer who is about to name them."""
    runs, named = Tree.above(folder, 2), _named(folder)
    with suppress(OSError):
        now = runs.status(folder / fresh).st_mtime
        for other in filter(_TENSORS.fullmatch, runs.names(folder)):
            ours = other == before or f"-{_WRITER}-" in other
            if other not in (fresh, named) and (ours or now - runs.status(folder / other).st_mtime > _ABANDONED):
                runs.unlink(folder / other)


def load_checkpoint(folder: Path, optimizer: torch.optim.Optimizer) -> tuple[Progress, Tensors] | None:
    """Read what `save_checkpoint` wrote; None where no checkpoint was written yet.

    Returns
    -------
    Progress, dict of str to Tensor
        And all that training changes, as it was; the optimiser is as it was, too.

    Raises
    ------
    RunError
        If it is damaged, of another version, or of another recipe.
    """
    file = folder / _STATE
    try:
        state, tensors = _read(folder)
        progress = Progress(epochs=[_epoch(epoch) for epoch in state["epochs"]], best=state["best"])
        _check(progress)
        progress.best_tensors = _group(tensors, "best")
        progress.average = _group(tensors, "average") or None
        now = _group(tensors, "now")
        shapes = _shapes(now)
        if _shapes(progress.best_tensors) != shapes or _shapes(progress.average or {}).items() - shapes.items():
            raise ValueError("its groups of tensors differ")
        _restore(optimizer, _group(tensors, "optimizer"), state["optimizer"])
        return progress, now
    except FileNotFoundError:
        if file.exists():
            raise RunError(f"expected the tensors of a checkpoint in {folder}, found none: start again") from None
        return None
    except RunError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise RunError(f"expected a checkpoint in {folder}, cannot read it: {error!r}. Start again") from error


def _read(folder: Path) -> tuple[dict[str, Any], Tensors]:
    """Return the state and its tensors, again where another writer has replaced both in between."""
    runs, file = Tree.above(folder, 2), folder / _STATE
    for attempt in range(_ATTEMPTS):
        state = runs.read_json(file)
        if state["version"] != _VERSION:
            raise RunError(f"expected a checkpoint of version {_VERSION} in {file}, found {state['version']!r}")
        name = state["tensors"]
        if Path(name).name != name:
            raise ValueError(f"expected the name of a file in the same folder, found {name!r}")
        try:
            data = runs.read(folder / name, _LARGEST)
        except FileNotFoundError:
            if attempt + 1 == _ATTEMPTS or _named(folder) == name:
                raise
            continue
        if name.removesuffix(".safetensors").partition("-")[0] != sha256_hex(data):
            raise RunError(f"expected {folder / name} to be as it was written; it has changed")
        return state, load(data)
    raise FileNotFoundError(folder)


def _epoch(values: dict[str, Any]) -> Epoch:
    """Return an epoch whose numbers are numbers."""
    epoch = Epoch(**values)
    train = (epoch.train_loss, epoch.train_accuracy)
    numbers = [epoch.val_loss, epoch.val_accuracy, epoch.lr, epoch.seconds, *(one for one in train if one is not None)]
    if not (_is_whole(epoch.number) and all(_is_finite(one) for one in numbers)):
        raise ValueError(f"expected finite numbers of each epoch, found {values}")
    if min(epoch.lr, epoch.seconds) < 0 or not all(0 <= one <= 1 for one in (epoch.val_accuracy, train[1] or 0)):
        raise ValueError(f"expected accuracies from 0 to 1, a rate and seconds of each epoch, found {values}")
    return epoch


def _check(progress: Progress) -> None:
    """Refuse epochs that are not 0, 1, 2, ..., or a best one that is none of them."""
    if [epoch.number for epoch in progress.epochs] != list(range(len(progress.epochs))):
        raise ValueError("expected the epochs 0, 1, 2, ...")
    if not (_is_whole(progress.best) and 0 <= progress.best < len(progress.epochs)):
        raise ValueError(f"expected the best of {len(progress.epochs)} epochs, found {progress.best!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _shapes(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _group(tensors: Tensors, kind: str) -> Tensors:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def _restore(optimizer: torch.optim.Optimizer, tensors: Tensors, scalars: dict[str, Any]) -> None:
    """Give an optimiser the state of each of its parameters: numbers, and tensors of one number or of its shape."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *scalars.items()]:
        place, _, name = key.partition("/")
        if not (0 <= int(place) < len(parameters) and _fits(name, value, parameters[int(place)])):
            raise ValueError(f"expected the state of {len(parameters)} parameters, found {key} that is of none")
        state.setdefault(int(place), {})[name] = value
    wanted = _ADAMW if isinstance(optimizer, torch.optim.AdamW) else _SGD
    if any(one.keys() != wanted for one in state.values()):
        raise ValueError(f"expected {', '.join(sorted(wanted))} of each parameter, found something else")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _fits(name: str, value: object, parameter: Tensor) -> bool:
    """Whether a value can be what an optimiser keeps of a parameter: a number of steps, or a tensor of its shape."""
    if name == "step":
        return _is_finite(value) or (isinstance(value, Tensor) and value.numel() == 1)
    return value is None or (isinstance(value, Tensor) and value.shape == parameter.shape)

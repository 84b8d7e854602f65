"""A checkpoint after each epoch: tensors in a safetensors file, and a JSON file that names it and comes last."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from bottleneck.errors import RunError
from bottleneck.files import sha256_hex
from bottleneck.finetuning.progress import Epoch, Progress, Tensors
from bottleneck.utils.tree import Tree

_VERSION = 1
_STATE = "state.json"
_TENSORS = re.compile(r"[0-9a-f]{64}\.safetensors")
_LARGEST = 64 << 30  # bytes


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
    name = f"{sha256_hex(data)}.safetensors"
    runs = Tree.above(folder, 2)
    runs.write(folder / name, data)
    state = {"version": _VERSION, "tensors": name, "optimizer": scalars, **progress.to_json()}
    runs.write(folder / _STATE, (json.dumps(state, indent=2) + "\n").encode())
    with suppress(OSError):
        for other in runs.names(folder):
            if _TENSORS.fullmatch(other) and other != name:
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
    file, runs = folder / _STATE, Tree.above(folder, 2)
    try:
        state = runs.read_json(file)
        if state["version"] != _VERSION:
            raise RunError(f"expected a checkpoint of version {_VERSION} in {file}, found {state['version']!r}")
        if Path(state["tensors"]).name != state["tensors"]:
            raise ValueError(f"no tensors called {state['tensors']!r}")
        data = runs.read(folder / state["tensors"], _LARGEST)
        if f"{sha256_hex(data)}.safetensors" != state["tensors"]:
            raise RunError(f"expected {folder / state['tensors']} to be as it was written; it has changed")
        tensors = load(data)
        progress = Progress(epochs=[Epoch(**epoch) for epoch in state["epochs"]], best=int(state["best"]))
        if not 0 <= progress.best < len(progress.epochs):
            raise ValueError(f"no epoch {progress.best}")
        progress.best_tensors = _group(tensors, "best")
        progress.average = _group(tensors, "average") or None
        _restore(optimizer, _group(tensors, "optimizer"), state["optimizer"])
        return progress, _group(tensors, "now")
    except FileNotFoundError:
        if file.exists():
            raise RunError(f"expected the tensors of a checkpoint in {folder}, found none: start again") from None
        return None
    except RunError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
        raise RunError(f"expected a checkpoint in {folder}, cannot read it: {error!r}. Start again") from error


def _group(tensors: Tensors, kind: str) -> Tensors:
    return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}


def _restore(optimizer: torch.optim.Optimizer, tensors: Tensors, scalars: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *scalars.items()]:
        place, _, name = key.partition("/")
        state.setdefault(int(place), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

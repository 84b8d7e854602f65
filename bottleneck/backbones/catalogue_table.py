"""The table of models and weights in this package, and whether weights are on this machine."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bottleneck.backbones.request import TIMM

TABLE = Path(__file__).with_name("catalogue.csv")
COLUMNS = ("name", "weights", "parameters", "height", "width", "dim", "file")
PACKAGES = ("torchvision", "timm")
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository, in the order in which timm tries them


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model with one set of weights.

    Parameters
    ----------
    name : str
        Name, as for ``--model``.
    weights : str
        Name of the weights, as for ``--weights``: ``IMAGENET1K_V2``, or a tag of timm; empty if none are published.
    parameters : int or None
        Number of parameters with the classifier, without auxiliary classifiers; None if not counted.
    input_size : (int, int)
        Height and width of its images, in pixels.
    dim : int or None
        Number of default features; None if not counted.
    file : str
        Where the weights are: a repository of the hub (with a ``/``), a file name, or a package (``pip NAME``).
    """

    name: str
    weights: str
    parameters: int | None
    input_size: tuple[int, int]
    dim: int | None
    file: str

    @property
    def source(self) -> str:
        """The source of the model, see `source_of`."""
        return source_of(self.name)

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        if not self.weights:
            return False
        if self.file.startswith("pip "):
            return find_spec(self.file.removeprefix("pip ").replace("-", "_")) is not None
        return _is_in_hub_cache(self.file) if "/" in self.file else (torch_checkpoints() / self.file).is_file()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        names = ("name", "source", "weights", "parameters", "input_size", "dim", "is_here")
        return {name: getattr(self, name) for name in names}


def source_of(name: str) -> str:
    """Return where a model comes from: ``bundled``, ``torchvision`` or ``timm``."""
    if name.startswith(TIMM):
        return "timm"
    return "bundled" if name.startswith("efficientnet_lite") else "torchvision"


def read_table(path: Path) -> tuple[ModelEntry, ...]:
    """Read the table written by `bottleneck.backbones.catalogue_maker`."""
    with open(path, encoding="ascii", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            ModelEntry(
                name=row["name"],
                weights=row["weights"],
                parameters=int(row["parameters"]),
                input_size=(int(row["height"]), int(row["width"])),
                dim=int(row["dim"]),
                file=row["file"],
            )
            for row in rows
        )


def written_for(path: Path) -> dict[str, str]:
    """Return the package versions that a table describes."""
    with open(path, encoding="ascii") as file:
        words = file.readline().removeprefix("#").split()
    return dict(zip(words[::2], words[1::2], strict=True))


def installed(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the installed versions of torchvision and timm; empty if unknown."""
    return {name: _version(name).partition("+")[0] for name in packages}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def torch_checkpoints() -> Path:
    """Return the folder of torch's downloaded weights files, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _is_in_hub_cache(repository: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    if not os.path.isdir(os.path.join(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")):
        return False
    from huggingface_hub import try_to_load_from_cache  # which is slow to import

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in HUB_FILES)

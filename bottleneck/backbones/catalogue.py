"""Which models there are, told from a table and without torch; what of their weights is on this machine."""

import csv
import functools
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from bottleneck.backbones.nearest import did_you_mean, nearest
from bottleneck.backbones.request import TIMM, Request
from bottleneck.errors import ModelError, WeightsUnavailable

TABLE = Path(__file__).with_name("catalogue.csv")
COLUMNS = ("name", "weights", "parameters", "height", "width", "dim", "file")
PACKAGES = ("torchvision", "timm")

HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of a repository, in the order in which timm looks for them


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model with one set of weights.

    Parameters
    ----------
    name : str
        As ``--model`` takes it.
    weights : str
        As ``--weights`` takes it: ``IMAGENET1K_V2``, a tag of timm; empty where nobody has published any.
    parameters : int or None
        Of the network with its classifier, without auxiliary ones; None where they were not counted.
    input_size : (int, int)
        Height and width of its images, in pixels.
    dim : int or None
        How many features it gives by default.
    file : str
        Where its weights are: a repository of the hub (with a ``/``), a file's name, or a package (``pip NAME``).
    """

    name: str
    weights: str
    parameters: int | None
    input_size: tuple[int, int]
    dim: int | None
    file: str

    @property
    def source(self) -> str:
        """As `source_of`."""
        return source_of(self.name)

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        if not self.weights:
            return False
        if self.file.startswith("pip "):
            return find_spec(self.file.removeprefix("pip ").replace("-", "_")) is not None
        return _in_hubs_cache(self.file) if "/" in self.file else (torch_checkpoints() / self.file).is_file()


def models(pattern: str = "", *, weights: bool = False) -> list[Entry]:
    """Return the models whose name has `pattern` in it, or is matched by it where it has a ``*``, ``?`` or ``[``.

    No network is built, and torch is imported only where the installed torchvision or timm is of another version than
    the table of this package; models that it does not have are then listed without parameters and features.

    Parameters
    ----------
    pattern : str
        Of a name such as ``resnet50`` or ``timm/convnext*``. A pattern with a ``.`` asks for weights: ``NAME.WEIGHTS``.
    weights : bool
        Whether each set of weights is listed, and not the default ones of each model alone.

    Returns
    -------
    list of Entry
        The bundled ones first, then torchvision's, then timm's, each by name; of a model the default weights first.

    Raises
    ------
    ModelError
        If there is none; the nearest names are given.
    """
    found, seen = [], set()
    for entry in entries():
        by_name, by_weights = _matches(entry.name, pattern), _matches(f"{entry.name}.{entry.weights}", pattern)
        if not (by_name or by_weights):
            continue
        if weights or not by_name or entry.name not in seen:
            found.append(entry)
        seen.add(entry.name)
    if not found:
        hint = did_you_mean(nearest_names(pattern, {entry.name for entry in entries()}))
        hint = hint or "`bottleneck models` lists all"
        raise ModelError(f"expected the name of a model or a part of it, or a pattern, got {pattern!r}; {hint}")
    return found


def check_request(request: Request) -> None:
    """Refuse a request that cannot be met before torch is imported to find that out.

    Raises
    ------
    ModelError
        If there is no such model; the nearest names are given. Nothing is said where the installed torchvision and timm
        are of other versions than the table.
    WeightsUnavailable
        If there is no such weights file.
    """
    if request.file and not request.file.exists():
        raise WeightsUnavailable(f"expected a weights file at {request.file}, found none")
    known = {entry.name for entry in entries()} if written_for(TABLE) == installed() else {request.model}
    if request.model not in known and not (source_of(request.model) == "timm" and _without_tag(request.model) in known):
        raise ModelError(unknown(request.model, known))


def unknown(model: str, known: Collection[str]) -> str:
    """Return what to say of a name that no model has."""
    if model and Path(model).exists():
        hint = f"that is a file or a folder; a checkpoint goes with --model NAME --weights {model}."
    else:
        hint = did_you_mean(nearest_names(model, known)) or f"some are {', '.join(sorted(known)[:5])}."
    return (
        f"expected the name of a model (efficientnet_lite0, one of torchvision's classifiers or timm/NAME), got "
        f"{model!r}; {hint} `bottleneck models` lists all"
    )


def _without_tag(model: str) -> str:
    return model.partition(".")[0]


def source_of(name: str) -> str:
    """Return where a model comes from: ``bundled``, ``torchvision`` or ``timm``."""
    if name.startswith(TIMM):
        return "timm"
    return "bundled" if name.startswith("efficientnet_lite") else "torchvision"


def nearest_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names of models that are nearest to a misspelt one; the prefix and the tag do not count."""
    bare = {one.removeprefix(TIMM): one for one in sorted(known, reverse=True)}  # torchvision's name before timm's
    asked = _without_tag(name.lower().removeprefix(TIMM))
    if asked in bare:
        return [bare[asked]]
    near = nearest(asked, bare, most=6)
    return [bare[one] for one in sorted(near, key=lambda one: one.startswith("test_"))[:3]]  # timm's tiny ones last


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Return all models with all their weights, for the installed versions of torchvision and timm."""
    table = read_table(TABLE)
    if written_for(TABLE) == installed():
        return table
    from bottleneck.backbones.catalogue_maker import published

    known = {(entry.name, entry.weights): entry for entry in table}
    return tuple(known.get((entry.name, entry.weights), entry) for entry in published())


def read_table(path: Path) -> tuple[Entry, ...]:
    """Read the table that `bottleneck.backbones.catalogue_maker` writes."""
    with open(path, encoding="ascii", newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return tuple(
            Entry(
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
    """Return the versions of the packages that a table was written for."""
    with open(path, encoding="ascii") as file:
        words = file.readline().removeprefix("#").split()
    return dict(zip(words[::2], words[1::2], strict=True))


def installed() -> dict[str, str]:
    """Return the installed versions of the packages that the models come from."""
    return {name: metadata.version(name).partition("+")[0] for name in PACKAGES}


def torch_checkpoints() -> Path:
    """Return the folder of the weights files that torch has fetched, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name


def _in_hubs_cache(repository: str) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    if not os.path.isdir(os.path.join(HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")):
        return False
    from huggingface_hub import try_to_load_from_cache  # which takes its time to import

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in HUB_FILES)

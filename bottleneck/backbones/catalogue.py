"""Which models there are, and which of their weights are on this machine: without torch."""

import csv
import functools
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from bottleneck.backbones.nearest import did_you_mean, nearest
from bottleneck.backbones.request import TIMM, Request, no_such_weights, other_ways
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.names import written

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

    Neither torch nor a network is needed, whatever versions of torchvision and timm are installed. Models that are not
    in the table of this package, which is of one version of each, are listed without parameters and features.

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
    check = Arguments(ModelError)
    pattern, weights = check.text("pattern", pattern), check.flag("weights", weights)
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
    """Refuse a request that cannot be met, without importing torch to find that out.

    Raises
    ------
    ModelError
        If there is no such model, or it has no such weights; the nearest names are given.
    WeightsUnavailable
        If there is no such weights file.
    """
    if request.file and not request.file.exists():
        raise WeightsUnavailable(f"expected a weights file at {request.file}, found none")
    name, _, tag = request.model.partition(".")
    known = names()
    if name not in known or (tag and source_of(name) != "timm"):
        raise ModelError(unknown(request.model, known))
    named = request.weights if not (request.random or request.file or request.weights == "DEFAULT") else ""
    if tag or named:
        _check_weights(request, name, [one for one in (tag, named) if one])


def _check_weights(request: Request, name: str, asked: Sequence[str]) -> None:
    known = [entry.weights for entry in entries() if entry.name == name and entry.weights]
    if source_of(name) != "timm":
        if not {one.upper() for one in asked} <= set(known):
            raise ModelError(no_such_weights(request, list(dict.fromkeys(["DEFAULT", *known]))))
        return
    for tag in asked:
        if tag not in known and not _may_be_tag(name, tag):
            raise ModelError(no_such_tag(name, tag, known))


def _may_be_tag(name: str, tag: str) -> bool:
    """Whether timm has a tag, with weights or without; True where only building the network tells."""
    from bottleneck.backbones import published

    try:
        return tag in published.timm_tags(published.models_folder("timm"), name.removeprefix(TIMM))
    except published.NotPlain:
        return True


def unknown(model: str, known: Collection[str]) -> str:
    """Return what to say of a name that no model has."""
    if model and os.path.exists(model):
        hint = f"that is a file or a folder; a checkpoint goes with --model NAME --weights {written(Path(model))}."
    else:
        hint = did_you_mean(nearest_names(model, known)) or f"some are {', '.join(sorted(known)[:5])}."
    return (
        f"expected the name of a model (efficientnet_lite0, one of torchvision's classifiers or timm/NAME), got "
        f"{model!r}; {hint} `bottleneck models` lists all"
    )


def no_such_tag(name: str, tag: str, known: Sequence[str]) -> str:
    """Return what to say of a tag that a model of timm does not have; `known` are those under which it has weights."""
    hint = did_you_mean(nearest(tag, known)) or f"there are {', '.join(known) or 'none'}"
    return f"expected weights of {name} in timm, got {tag!r}; {hint}; or name {other_ways(tag)}"


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
    counted = {(entry.name, entry.weights, entry.input_size): entry for entry in table}
    found = _published([entry for entry in table if entry.source == "bundled"])
    return tuple(_with_counts(entry, counted.get((entry.name, entry.weights, entry.input_size))) for entry in found)


@functools.cache
def names() -> frozenset[str]:
    """Return the names of all models, timm's without tags, for the installed versions of torchvision and timm."""
    if written_for(TABLE) == installed():
        return frozenset(entry.name for entry in entries())
    from bottleneck.backbones import published

    try:
        torchvision, timm = (published.model_names(published.models_folder(package)) for package in PACKAGES)
    except published.NotPlain:
        return frozenset(entry.name for entry in entries())
    bundled = {entry.name for entry in read_table(TABLE) if entry.source == "bundled"}
    return frozenset({*bundled, *torchvision, *(f"{TIMM}{name}" for name in timm)})


def _published(bundled: Sequence[Entry]) -> Sequence[Entry]:
    """Return what the installed packages publish: by their sources, or where these do not tell, by importing them."""
    from bottleneck.backbones import published

    try:
        torchvision, timm = (published.models_folder(package) for package in PACKAGES)
        return [*bundled, *published.torchvision_entries(torchvision), *published.timm_entries(timm)]
    except published.NotPlain:
        from bottleneck.backbones import catalogue_maker

        return list(catalogue_maker.published())


def _with_counts(entry: Entry, counted: Entry | None) -> Entry:
    return replace(entry, parameters=counted.parameters, dim=counted.dim) if counted else entry


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
    """Return the installed versions of the packages that the models come from; empty where one is not recorded."""
    return {name: _version(name).partition("+")[0] for name in PACKAGES}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


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

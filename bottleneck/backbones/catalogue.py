"""List the available models and their weights, without importing torch."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from bottleneck.backbones import published
from bottleneck.backbones.catalogue_table import (
    PACKAGES,
    TABLE,
    ModelEntry,
    installed,
    read_table,
    source_of,
    written_for,
)
from bottleneck.backbones.names import did_you_mean, nearest_names, no_such_tag, unknown
from bottleneck.backbones.request import TIMM, Request, no_such_weights
from bottleneck.errors import ModelError, WeightsUnavailable
from bottleneck.utils.arguments import Arguments


def models(pattern: str = "", *, weights: bool = False) -> list[ModelEntry]:
    """Return the models whose name contains `pattern`, or matches it if it has a ``*``, ``?`` or ``[``.

    This imports no torch and uses no network. The package contains a table for one version of torchvision and
    one of timm; for other installed versions, models that are not in it are listed without their numbers of parameters
    and features.

    Parameters
    ----------
    pattern : str
        A name such as ``resnet50`` or ``timm/convnext*``. A pattern with a ``.`` also matches weights:
        ``NAME.WEIGHTS``.
    weights : bool
        Whether to list every set of weights instead of only the default of each model.

    Returns
    -------
    list of ModelEntry
        Bundled models first, then torchvision's, then timm's, sorted by name; default weights first.

    Raises
    ------
    ModelError
        If no model matches; the message suggests similar names.
    """
    check = Arguments(ModelError)
    return _catalogue().models(check.text("pattern", pattern), weights=check.flag("weights", weights))


def check_request(request: Request) -> None:
    """Check that the requested model and weights exist, without importing torch.

    Raises
    ------
    ModelError
        If there is no such model, or it has no such weights; the message suggests similar names.
    WeightsUnavailable
        If the weights file does not exist.
    """
    if request.file and not request.file.exists():
        raise WeightsUnavailable(f"expected a weights file at {request.file}, found none")
    _catalogue().check(request)


def entries() -> tuple[ModelEntry, ...]:
    """Return all models with all their weights in the installed versions of torchvision and timm."""
    return _catalogue().entries


@dataclass(frozen=True)
class Catalogue:
    """The models in given versions of torchvision and timm, by default the installed ones.

    Parameters
    ----------
    table : Path
        The table of one version of torchvision and timm each.
    versions : mapping
        The version of torchvision and that of timm.
    models_folder : callable
        Returns the folder with a package's model definitions, see `bottleneck.backbones.published.models_folder`.
    """

    table: Path = TABLE
    versions: Mapping[str, str] = field(default_factory=installed)
    models_folder: Callable[[str], Path] = published.models_folder

    def models(self, pattern: str = "", *, weights: bool = False) -> list[ModelEntry]:
        """Return the models that match a pattern, see `models`."""
        found, seen = [], set()
        for entry in self.entries:
            by_name, by_weights = _matches(entry.name, pattern), _matches(f"{entry.name}.{entry.weights}", pattern)
            if not (by_name or by_weights):
                continue
            if weights or not by_name or entry.name not in seen:
                found.append(entry)
            seen.add(entry.name)
        if not found:
            hint = did_you_mean(nearest_names(pattern, {entry.name for entry in self.entries}))
            hint = hint or "`bottleneck models` lists all"
            raise ModelError(f"expected the name of a model or a part of it, or a pattern, got {pattern!r}; {hint}")
        return found

    def check(self, request: Request) -> None:
        """Check that the requested model and published weights exist, see `check_request`."""
        name, _, tag = request.model.partition(".")
        if name not in self.names or (tag and source_of(name) != "timm"):
            raise ModelError(unknown(request.model, self.names))
        named = request.weights if not (request.random or request.file or request.weights == "DEFAULT") else ""
        if tag or named:
            self._check_weights(request, name, [one for one in (tag, named) if one])

    def _check_weights(self, request: Request, name: str, requested: Sequence[str]) -> None:
        known = [entry.weights for entry in self.entries if entry.name == name and entry.weights]
        if source_of(name) != "timm":
            if not {one.upper() for one in requested} <= set(known):
                raise ModelError(no_such_weights(request, list(dict.fromkeys(["DEFAULT", *known]))))
            return
        for tag in requested:
            if tag not in known and not self._may_be_tag(name, tag):
                raise ModelError(no_such_tag(name, tag, known))

    def _may_be_tag(self, name: str, tag: str) -> bool:
        """Return whether timm has a tag, with or without weights; True if only building the network can show it."""
        try:
            return tag in published.timm_tags(self.models_folder("timm"), name.removeprefix(TIMM))
        except published.NotPlain:
            return True

    @cached_property
    def entries(self) -> tuple[ModelEntry, ...]:
        """All models with all their weights."""
        table = read_table(self.table)
        if written_for(self.table) == self.versions:
            return table
        counted = {(entry.name, entry.weights, entry.input_size): entry for entry in table}
        found = self._published([entry for entry in table if entry.source == "bundled"])
        return tuple(_with_counts(entry, counted.get((entry.name, entry.weights, entry.input_size))) for entry in found)

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all models, without tags."""
        if written_for(self.table) == self.versions:
            return frozenset(entry.name for entry in self.entries)
        try:
            torchvision, timm = (published.model_names(self.models_folder(package)) for package in PACKAGES)
        except published.NotPlain:
            return frozenset(entry.name for entry in self.entries)
        bundled = {entry.name for entry in read_table(self.table) if entry.source == "bundled"}
        return frozenset({*bundled, *torchvision, *(f"{TIMM}{name}" for name in timm)})

    def _published(self, bundled: Sequence[ModelEntry]) -> Sequence[ModelEntry]:
        """Return the models of the packages: from their source files if possible, else by importing them."""
        try:
            torchvision, timm = map(self.models_folder, PACKAGES)
            return [*bundled, *published.torchvision_entries(torchvision), *published.timm_entries(timm)]
        except published.NotPlain:
            from bottleneck.backbones import catalogue_maker

            return list(catalogue_maker.published())


_catalogue = functools.cache(Catalogue)


def _with_counts(entry: ModelEntry, counted: ModelEntry | None) -> ModelEntry:
    return replace(entry, parameters=counted.parameters, dim=counted.dim) if counted else entry


def _matches(name: str, pattern: str) -> bool:
    name, pattern = name.lower(), pattern.lower()
    return fnmatchcase(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name

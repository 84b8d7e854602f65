"""Make the table of models from torchvision, timm and one forward pass of each network on the ``meta`` device.

``make catalogue`` runs this; it takes a few minutes.
"""

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TextIO

import torch

from bottleneck.backbones import bundled, timm_models, timm_weights, torchvision_models
from bottleneck.backbones.catalogue_table import COLUMNS, TABLE, ModelEntry, installed
from bottleneck.backbones.registry import build_without_numbers
from bottleneck.backbones.request import TIMM, Request
from bottleneck.utils.output_file import in_utf8, write_output


def published() -> Iterator[ModelEntry]:
    """Yield every model with every set of weights, without numbers of parameters and features."""
    for name in bundled.NAMES:
        config = timm_weights.config_of(bundled.NAMES[name], "")
        yield _entry(name, "DEFAULT", config["input_size"][1:], f"pip {bundled.package_of(name)}")
    for name in torchvision_models.names():
        for entry in torchvision_models.entries(name):
            size = torchvision_models.preprocessing_of(entry).crop_size
            yield _entry(name, entry.name, size, torchvision_models.file_name(entry))
    for name in timm_models.names():
        bare = name.removeprefix(TIMM)
        for tag in timm_weights.tags(bare) or [""]:
            config = timm_weights.config_of(bare, tag)
            _, files, repository = timm_weights.where(config)
            file = (repository or files[0]) if tag else ""
            yield _entry(name, tag, config["input_size"][1:], file)


def measured(entry: ModelEntry) -> ModelEntry:
    """Return `entry` with its numbers of parameters and features, counted on the ``meta`` device."""
    if entry.source == "torchvision":
        request = Request(model=entry.name, weights="none", crop=entry.input_size[0])
    else:
        tag = f".{entry.weights}" if entry.source == "timm" and entry.weights else ""
        request = Request(model=f"{entry.name}{tag}", weights="none")
    pretrained = build_without_numbers(request)
    parameters = sum(parameter.numel() for parameter in pretrained.network.parameters())
    with torch.no_grad():
        features = pretrained.remove_classifier()(torch.zeros(1, 3, *entry.input_size, device="meta"))
    assert features.shape[1] == pretrained.dim, (
        f"{entry.name}: expected {pretrained.dim} features, found {features.shape}"
    )
    return replace(entry, parameters=parameters, dim=pretrained.dim)


def write(target: TextIO, entries: Iterable[ModelEntry]) -> None:
    """Write the table of these models, and count their parameters and features."""
    target.write("# " + " ".join(f"{name} {version}" for name, version in installed().items()) + "\n")
    rows = csv.writer(target, lineterminator="\n")
    rows.writerow(COLUMNS)
    for entry in entries:
        found = measured(entry)
        rows.writerow([found.name, found.weights, found.parameters, *found.input_size, found.dim, found.file])
        target.flush()


def _entry(name: str, weights: str, size: Sequence[int], file: str) -> ModelEntry:
    height, width = size
    return ModelEntry(name=name, weights=weights, parameters=None, input_size=(height, width), dim=None, file=file)


if __name__ == "__main__":
    write_output(sys.argv[1] if len(sys.argv) > 1 else TABLE, in_utf8(lambda target: write(target, published())))

"""Describe a network's modules, and compare it with a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.backbones.catalogue import check_request, entries
from bottleneck.backbones.catalogue_table import ModelEntry, source_of
from bottleneck.backbones.request import Request
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.utils.gc_paused import no_collection
from bottleneck.utils.names import written
from bottleneck.utils.text import one_line

if TYPE_CHECKING:
    from bottleneck.backbones.restore import Restored
    from bottleneck.backbones.weights import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Module:
    """One module of a network.

    Parameters
    ----------
    name : str
        Name, as for ``--layer`` and ``--unfreeze``.
    kind : str
        Name of its class.
    output : tuple of int or None
        Shape of its output for one image; None if it does not run, or returns no tensor.
    parameters : int
        Number of parameters, including submodules.
    macs : int
        Multiply-adds of convolutions and matrix products for one image, including submodules.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int

    @property
    def depth(self) -> int:
        """1 for a direct child of the network, 2 for its children, and so on."""
        return self.name.count(".") + 1


@dataclass(frozen=True, kw_only=True)
class Description:
    """A pretrained network.

    Parameters
    ----------
    model : str
    source : str
        ``bundled``, ``torchvision`` or ``timm``.
    weights : tuple of ModelEntry
        Published weights, the default first.
    preprocessing : Preprocessing
    transform_input : bool
        Whether it first maps ImageNet's mean and std to 0.5.
    layer, pooling : str
        Layer and pooling of the default features.
    dim : int
        Number of default features.
    parameters, macs : int
        With the classifier, without auxiliary classifiers, which only training uses.
    stages : tuple of str
        See `bottleneck.backbones.stages.stages`.
    modules : tuple of Module
        All modules, depth first.
    """

    model: str
    source: str
    weights: tuple[ModelEntry, ...]
    preprocessing: Preprocessing
    transform_input: bool
    layer: str
    pooling: str
    dim: int
    parameters: int
    macs: int
    stages: tuple[str, ...]
    modules: tuple[Module, ...]

    def __repr__(self) -> str:
        size = f"{self.parameters / 1e6:,.1f} M parameters", f"{self.macs / 1e9:,.2f} G multiply-adds"
        return one_line(self, self.model, *size, f"{self.dim} features of {self.layer}")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            **vars(self),
            "weights": [{"name": entry.weights, "is_here": entry.is_here} for entry in self.weights],
            "preprocessing": self.preprocessing.to_json(),
            "input_size": self.preprocessing.crop_size,
            "modules": [vars(module) for module in self.modules],
        }


def describe(model: str) -> Description:
    """Describe a network for its default image size, without weights and without computing.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    request = Request(model=model, weights="none")
    check_request(request)  # before torch is imported
    with no_collection():
        import torch

        from bottleneck.backbones.registry import build_without_numbers
        from bottleneck.backbones.stages import stages
        from bottleneck.backbones.tracing import trace

    model, pretrained = request.model, build_without_numbers(request)
    network, (height, width) = pretrained.network, pretrained.preprocessing.crop_size
    images = torch.zeros(1, 3, height, width, device="meta")
    calls = trace(network, images)
    modules = []
    for name, module in network.named_modules():
        call = calls.get(name)
        output = call.outputs[1:] if call and call.outputs else None
        parameters = sum(parameter.numel() for parameter in module.parameters())
        kind, macs = type(module).__name__, call.macs if call else 0
        modules.append(Module(name=name, kind=kind, output=output, parameters=parameters, macs=macs))
    top = modules.pop(0)
    name, _, tag = model.partition(".")
    published = tuple(entry for entry in entries() if entry.name == name and tag in ("", entry.weights))
    return Description(
        model=model,
        source=source_of(model),
        weights=tuple(entry for entry in published if entry.weights),
        preprocessing=pretrained.preprocessing,
        transform_input=pretrained.transform_input,
        layer=pretrained.layer,
        pooling=pretrained.pooling,
        dim=pretrained.dim,
        parameters=top.parameters,
        macs=top.macs,
        stages=tuple(stages(network)),
        modules=tuple(modules),
    )


def compare(path: Path, model: str, exclude: Sequence[str] = ()) -> "tuple[Checkpoint, Restored]":
    """Read a checkpoint, and match its tensors with those that `model` needs for its default features.

    Raises
    ------
    ModelError
        If the file cannot be read, there is no such model, or a pattern of `exclude` matches nothing.
    """
    check_request(Request(model=model, weights="none"))  # before torch is imported
    with no_collection():
        from bottleneck.backbones.registry import build_without_numbers
        from bottleneck.backbones.restore import match
        from bottleneck.backbones.weights import read_checkpoint

    checkpoint = read_checkpoint(path)
    request = Request(model=model, weights=written(path))  # some files are recognised by their hash
    pretrained = build_without_numbers(request)
    pretrained.remove_classifier()
    found, _ = match(pretrained.network, checkpoint, known=pretrained.known, rename=pretrained.rename, exclude=exclude)
    return checkpoint, found

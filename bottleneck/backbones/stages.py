"""The stages of a network: its main parts in the order in which they run."""

from collections.abc import Iterator

from torch import nn

# Names in torchvision and timm of modules that only contain the stages.
_HOLDERS = ("blocks", "encoder", "features", "layers", "stages", "trunk_output")


def stages(network: nn.Module) -> list[str]:
    """Return the names of the stages, in the order in which the network defines them.

    Stages are the top-level modules that have parameters. A module that only contains stages (``features`` of DenseNet,
    ``blocks`` of EfficientNet, ``encoder.layers`` of a transformer) is replaced by its children.
    """
    return list(_parts("", network))


def has_parameters(module: nn.Module) -> bool:
    """Return whether a module has parameters, including those of its submodules."""
    return any(True for _ in module.parameters())


def _parts(prefix: str, holder: nn.Module) -> Iterator[str]:
    for name, module in holder.named_children():
        if not has_parameters(module):
            continue
        if name in _HOLDERS and any(has_parameters(child) for child in module.children()):
            yield from _parts(f"{prefix}{name}.", module)
        else:
            yield f"{prefix}{name}"

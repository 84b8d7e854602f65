"""The stages of a network: the parts that it runs one after the other, coarse enough to be named by a person."""

from collections.abc import Iterator

from torch import nn

# What torchvision and timm call a module that holds the stages, and is none itself.
_HOLDERS = ("blocks", "encoder", "features", "layers", "stages", "trunk_output")


def stages(network: nn.Module) -> list[str]:
    """Return the names of the modules that are stages, in the order in which the network defines them.

    They are the modules at the top that have parameters; in the place of one that holds the stages (``features`` of
    DenseNet, ``blocks`` of EfficientNet, ``encoder.layers`` of a transformer) stands what is inside.
    """
    return list(_parts("", network))


def has_parameters(module: nn.Module) -> bool:
    """Whether a module, or one inside, has any."""
    return any(True for _ in module.parameters())


def _parts(prefix: str, holder: nn.Module) -> Iterator[str]:
    for name, module in holder.named_children():
        if not has_parameters(module):
            continue
        if name in _HOLDERS and any(has_parameters(child) for child in module.children()):
            yield from _parts(f"{prefix}{name}.", module)
        else:
            yield f"{prefix}{name}"

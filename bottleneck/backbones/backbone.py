"""A pretrained network, and a backbone: the same network cut at a layer and frozen, with the spec of its features."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from bottleneck.backbones.downloads import Published
from bottleneck.backbones.restore import Rename, Restored
from bottleneck.backbones.spec import Spec
from bottleneck.images.preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """A network with its classifier, before it is cut.

    Parameters
    ----------
    network : nn.Module
        In eval mode, with the requested weights; with random weights if they will come from a file.
    layer, pooling : str
        Layer and pooling of the default features, as in a `Spec`.
    dim : int
        Number of default features.
    remove_classifier : callable
        Removes the classifier from `network` and returns a module that computes the default features: normalised
        pixels ``float32 (b, 3, h, w)`` to ``float32 (b, d)``.
    preprocessing : Preprocessing
        The preprocessing that the weights were trained with.
    known : tuple of str
        Names of all tensors, including those of auxiliary classifiers.
    transform_input : bool
        Whether the network first maps ImageNet's mean and std to 0.5.
    rename : callable, optional
        Renames the tensors of files in other formats to the network's names.
    remarks : tuple of str
        Remarks for the user on how a weights file was read.
    published : Published, optional
        The published file that the weights come from.
    """

    network: nn.Module
    layer: str
    pooling: str
    dim: int
    remove_classifier: Callable[[], nn.Module]
    preprocessing: Preprocessing
    known: tuple[str, ...]
    transform_input: bool = False
    rename: Rename | None = None
    remarks: tuple[str, ...] = ()
    published: Published | None = None


@dataclass(frozen=True)
class Backbone:
    """A network that computes features of normalised pixels.

    Parameters
    ----------
    network : nn.Module
        In eval mode, without gradients: ``float32 (b, 3, h, w)`` in, ``float32 (b, d)`` out.
    spec : Spec
        Everything that determines the features.
    dim : int
        Number of features of an image, d.
    restored : Restored, optional
        Which tensors came from a weights file, if one was given.
    pretrained : PretrainedModel, optional
        The network before the cut; it shares its modules with `network`.
    """

    network: nn.Module
    spec: Spec
    dim: int
    restored: Restored | None = None
    pretrained: PretrainedModel | None = None


class Mirrored(nn.Module):
    """Averages the features of images and of their mirror images.

    Parameters
    ----------
    network : nn.Module
        Maps ``(b, 3, h, w)`` to ``(b, d)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, 3, h, w)``."""
        mean: Tensor = (self.network(images) + self.network(images.flip(-1))) / 2
        return mean


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Replace the module called `name` in a network by `module`."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)

"""A network as it was published, and a backbone: that network cut at a layer, frozen, with the spec of its features."""

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
        In eval mode, with the weights that were asked for, or random ones where these come from a file.
    layer, pooling : str
        Of the default features, as in a `Spec`.
    dim : int
        How many the default features are.
    remove_classifier : callable
        Takes the classifier out of `network` and returns a module that gives the default features: ``float32
        (b, 3, h, w)`` of normalised pixels in, ``float32 (b, d)`` out.
    preprocessing : Preprocessing
        That the weights were trained with.
    known : tuple of str
        The names of all its tensors, those of auxiliary classifiers included.
    transform_input : bool
        Whether the network first maps ImageNet's mean and std to 0.5.
    rename : callable, optional
        Gives the tensors of files in other forms the network's names.
    remarks : tuple of str
        What the user should know of how a weights file was taken.
    published : Published, optional
        The file that others publish, where the weights are from one.
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
    """A network that turns normalised pixels into features.

    Parameters
    ----------
    network : nn.Module
        In eval mode, without gradients: ``float32 (b, 3, h, w)`` in, ``float32 (b, d)`` out.
    spec : Spec
        What decides the features.
    dim : int
        d, the number of features of an image.
    restored : Restored, optional
        What was taken from a weights file, where there was one.
    pretrained : PretrainedModel, optional
        The network that was cut, which shares its modules with `network`.
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
        ``(b, 3, h, w)`` to ``(b, d)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, 3, h, w)``."""
        mean: Tensor = (self.network(images) + self.network(images.flip(-1))) / 2
        return mean


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the network has the one called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)

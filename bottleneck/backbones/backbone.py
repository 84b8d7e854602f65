"""A frozen network cut at a layer, with the spec of its features."""

from dataclasses import dataclass

from torch import Tensor, nn

from bottleneck.backbones.spec import Spec


@dataclass(frozen=True)
class Backbone:
    """A network that turns normalised pixels into features.

    Parameters
    ----------
    network : nn.Module
        In eval mode, without gradients: ``float32 (b, 3, crop, crop)`` in, ``float32 (b, d)`` out.
    spec : Spec
        What decides the features.
    dim : int
        d, the number of features of an image.
    """

    network: nn.Module
    spec: Spec
    dim: int


class AveragePool(nn.Module):
    """Stands where a convolutional classifier stood: the mean over the positions of its input."""

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, d, h, w)``."""
        return features.mean(dim=(2, 3))

"""A network with a linear layer for its classes: the names of its parts, its numbers, its weights file."""

from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.tracing import Call, trace
from bottleneck.backbones.weights import is_counter
from bottleneck.finetuning.handback import Layer

_LAYER = "bottleneck_head"  # where a network's own classifier is no linear layer


class Network(nn.Module):
    """A backbone and the linear layer that turns its features into logits.

    Parameters
    ----------
    backbone : Backbone
        Cut at the input of its classifier.
    layer : Layer
        What the last layer begins with.

    Attributes
    ----------
    trunk : nn.Module
        Normalised pixels ``float32 (b, 3, h, w)`` to features ``(b, d)``.
    head : nn.Linear
        Features to logits ``(b, k)``.
    classifier : str
        What the network itself calls the place of `head`.
    """

    def __init__(self, backbone: Backbone, layer: Layer) -> None:
        super().__init__()
        assert backbone.pretrained is not None
        self.backbone = backbone
        self.trunk = backbone.network
        self.head = nn.Linear(backbone.dim, len(layer.bias))
        self.reset(layer)
        self._named = (backbone.pretrained.network,)  # in a tuple, so that it does not count as a second child
        lone = backbone.spec.layer.endswith(":input")
        self.classifier = backbone.spec.layer.removesuffix(":input") if lone else _LAYER
        own = next(name for name, module in self.trunk.named_modules() if module is self.named)
        self._prefix = f"{own}." if own else ""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(b, k)`` of normalised pixels ``(b, 3, h, w)``."""
        logits: Tensor = self.head(self.trunk(images))
        return logits

    @property
    def named(self) -> nn.Module:
        """The network whose names ``bottleneck inspect`` prints."""
        return self._named[0]

    def reset(self, layer: Layer) -> None:
        """Give the last layer other numbers."""
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(layer.weight))
            self.head.bias.copy_(torch.from_numpy(layer.bias))

    def trace(self) -> dict[str, Call]:
        """Run the trunk once and return what each module did, by the names of `named`; see `tracing.trace`."""
        image = torch.zeros(2, 3, *self.backbone.spec.preprocessing.crop_size, device=self.head.weight.device)
        calls = trace(self.trunk, image)
        return {
            name.removeprefix(self._prefix): call
            for name, call in calls.items()
            if name.startswith(self._prefix) and name != self._prefix
        }

    def parameters_by_name(self) -> dict[str, nn.Parameter]:
        """Return all parameters; those of `head` under the name of the network's classifier."""
        own = {f"{self.classifier}.{name}": parameter for name, parameter in self.head.named_parameters()}
        return {**dict(self.named.named_parameters()), **own}

    def state(self) -> dict[str, Tensor]:
        """Return all tensors, as the network would have them in a file, without copying them."""
        own = {f"{self.classifier}.{name}": value for name, value in self.head.state_dict().items()}
        return {**self.named.state_dict(), **own}

    def set_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy some tensors into their places."""
        with torch.no_grad():
            state = self.state()
            for name, value in tensors.items():
                state[name].copy_(value)

    def layer(self) -> Layer:
        """Return what the last layer has become."""
        weight, bias = (value.detach().cpu().numpy().astype(np.float32) for value in self.head.parameters())
        return Layer(weight.copy(), bias.copy())

    def file(self, metadata: Mapping[str, str]) -> bytes:
        """Return the weights as a safetensors file, under the names that torchvision or timm give them."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state().items()}
        shared: set[int] = set()
        tensors = {}
        for name, value in state.items():
            if is_counter(name):
                continue
            tensors[name] = value.clone() if value.data_ptr() in shared else value
            shared.add(value.data_ptr())
        data: bytes = save(tensors, dict(metadata))
        return data

"""A network with a linear layer for its classes: its named modules, its tensors, its weights file."""

from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from bottleneck.backbones.backbone import Backbone
from bottleneck.backbones.tracing import Call, trace
from bottleneck.backbones.weights import is_counter
from bottleneck.finetuning.handback import LinearLayer

_LAYER = "bottleneck_head"  # the name of the head if the network's own classifier is no single linear layer


class Network(nn.Module):
    """A backbone and the linear layer that maps its features to logits.

    Parameters
    ----------
    backbone : Backbone
        Cut at the input of its classifier.
    layer : LinearLayer
        The initial last layer.

    Attributes
    ----------
    trunk : nn.Module
        Normalised pixels ``float32 (b, 3, h, w)`` to features ``(b, d)``.
    head : nn.Linear
        Features to logits ``(b, k)``.
    classifier : str
        The name of `head` in the base model.
    """

    def __init__(self, backbone: Backbone, layer: LinearLayer) -> None:
        super().__init__()
        assert backbone.pretrained is not None
        self.backbone = backbone
        self.trunk = backbone.network
        # Unlike nn.Linear itself, this draws no random numbers.
        self.head = nn.utils.skip_init(nn.Linear, backbone.dim, len(layer.bias))  # type: ignore[no-untyped-call]
        self.set_layer(layer)
        self._base_model = (
            backbone.pretrained.network,
        )  # in a tuple, so that torch does not register it a second time
        lone = backbone.spec.layer.endswith(":input")
        self.classifier = backbone.spec.layer.removesuffix(":input") if lone else _LAYER
        own = next(name for name, module in self.trunk.named_modules() if module is self.base_model)
        self._prefix = f"{own}." if own else ""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(b, k)`` of normalised pixels ``(b, 3, h, w)``."""
        logits: Tensor = self.head(self.trunk(images))
        return logits

    @property
    def base_model(self) -> nn.Module:
        """The pretrained network, whose module names ``bottleneck inspect`` prints."""
        return self._base_model[0]

    def set_layer(self, layer: LinearLayer) -> None:
        """Replace the weights of the last layer."""
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(layer.weight))
            self.head.bias.copy_(torch.from_numpy(layer.bias))

    def trace(self) -> dict[str, Call]:
        """Run the trunk once and return the call of each module, by its name in `base_model`; see `tracing.trace`."""
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
        return {**dict(self.base_model.named_parameters()), **own}

    def state(self) -> dict[str, Tensor]:
        """Return all tensors under their names in a weights file, without copying them."""
        own = {f"{self.classifier}.{name}": value for name, value in self.head.state_dict().items()}
        return {**self.base_model.state_dict(), **own}

    def set_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy some tensors, by name, into the network."""
        with torch.no_grad():
            state = self.state()
            for name, value in tensors.items():
                state[name].copy_(value)

    def layer(self) -> LinearLayer:
        """Return a copy of the last layer."""
        weight, bias = (value.detach().cpu().numpy().astype(np.float32) for value in self.head.parameters())
        return LinearLayer(weight.copy(), bias.copy())

    def to_safetensors(self, metadata: Mapping[str, str]) -> bytes:
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

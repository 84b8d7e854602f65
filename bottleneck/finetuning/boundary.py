"""The boundary between the frozen and the trained part of a network: the frozen part runs only once per image."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck.backbones.cut import Cut, FeaturePoint
from bottleneck.backbones.pooling import OutputLayout
from bottleneck.backbones.tracing import Call
from bottleneck.finetuning.freeze import TrainablePlan
from bottleneck.finetuning.network import Network

_MAX_CANDIDATES = 64
_IMAGES = 2
_TOLERANCE = 1e-5  # of the largest feature: the largest difference between the features of a tail and the network


@dataclass(frozen=True)
class Boundary:
    """The output of a frozen module; the trained part depends on the image only through this output.

    Parameters
    ----------
    module : str
        Its name in the network.
    shape : tuple of int
        Of its output for one image.
    before : tuple of str
        The outermost modules that have run by then, this module last; they need not run again.
    """

    module: str
    shape: tuple[int, ...]
    before: tuple[str, ...]

    @property
    def size(self) -> int:
        """The number of elements of the output for one image."""
        return math.prod(self.shape)

    def frozen_part(self, network: Network) -> Cut:
        """Return the network up to the boundary: normalised pixels ``(b, 3, h, w)`` to ``(b, size)``."""
        return Cut(network.base_model, [FeaturePoint(self.module, False, 1, OutputLayout(()))], "none")


class Tail(nn.Module):
    """The part of a network after a boundary, which maps activations to logits; it shares the network's modules.

    Parameters
    ----------
    network : Network
    boundary : Boundary or None
        None for the whole network, which takes normalised pixels.
    """

    def __init__(self, network: Network, boundary: Boundary | None) -> None:
        super().__init__()
        self.network = network
        self.boundary = boundary
        self._replay = _Replay(network, boundary) if boundary else None

    def forward(self, values: Tensor) -> Tensor:
        """Return logits ``(b, k)`` of activations ``(b, *shape)``, or of normalised pixels ``(b, 3, h, w)``."""
        logits: Tensor = self.network.head(self.features(values))
        return logits

    def features(self, values: Tensor) -> Tensor:
        """Return the features ``(b, d)``, the input of the last layer."""
        if self._replay is None:
            found: Tensor = self.network.trunk(values)
            return found
        with self._replay.at(values) as images:
            found = self.network.trunk(images)
        return found


def find_boundary(network: Network, plan: TrainablePlan, calls: dict[str, Call]) -> Boundary | None:
    """Find the last boundary before the trained part.

    Candidates are the modules that end before the first trained one begins. The boundary is the last candidate whose
    output reproduces the features of the network while the outputs of all earlier modules are NaN. So the trained part
    cannot depend on anything else, such as a shortcut around the boundary, even if it is multiplied by a gate with the
    initial value zero.

    Parameters
    ----------
    network : Network
        In eval mode.
    plan : TrainablePlan
    calls : dict of str to Call
        From `Network.trace`.

    Returns
    -------
    Boundary or None
        None if there is no such module: the whole network must run.
    """
    first = _first_trained(network, plan, calls)
    ended = [name for name, call in calls.items() if call.closed <= first and name != network.classifier]
    outermost = [name for name in ended if not any(name.startswith(f"{other}.") for other in ended)]
    outermost.sort(key=lambda name: calls[name].entered)
    images = _noise(network)
    with torch.no_grad():
        expected = network.trunk(images)
    for last in range(len(outermost), max(0, len(outermost) - _MAX_CANDIDATES), -1):
        name, call = outermost[last - 1], calls[outermost[last - 1]]
        if call.calls != 1 or not call.outputs or call.outputs[0] != _IMAGES or len(call.outputs) < 2:
            continue
        boundary = Boundary(name, call.outputs[1:], tuple(outermost[:last]))
        if _reproduces(network, boundary, images, expected):
            return boundary
    return None


def _first_trained(network: Network, plan: TrainablePlan, calls: dict[str, Call]) -> int:
    """Return when the first trained module begins, in units of `Call.entered`.

    If only the last layer is trained, the result is after all modules. If the module of a parameter does not run
    itself, the nearest enclosing module that runs is used. A parameter of the network itself is used from the start,
    and a shared parameter from the first module that has it.
    """
    first = len(calls) + 1
    own = network.parameters_by_name()
    trained = {own[name] for name in plan.parameters if plan.depth[name]}
    tensors = network.base_model.named_parameters(remove_duplicate=False)
    names = [*plan.buffers, *(name for name, tensor in tensors if tensor in trained)]
    owners = {name.rpartition(".")[0] for name in names}
    for name in {*owners, *plan.modules}:
        while name and name not in calls:
            name = name.rpartition(".")[0]
        first = min(first, calls[name].entered if name else 0)
    return first


def _reproduces(network: Network, boundary: Boundary, images: Tensor, expected: Tensor) -> bool:
    """Return whether the part after the boundary reproduces the features."""
    try:
        frozen = boundary.frozen_part(network)
        try:
            with torch.no_grad():
                values = frozen(images)
        finally:
            frozen.release()
        with torch.no_grad():
            replay = _Replay(network, boundary, fill=math.nan)
            with replay.at(values.unflatten(1, boundary.shape)) as placeholder:
                found = network.trunk(placeholder)
    except Exception:  # the code of a network may raise any exception for NaN
        return False
    return found.shape == expected.shape and bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())


class _Replay:
    """Replaces the modules before a boundary: the last returns given values, the others a constant in the right shapes.

    Parameters
    ----------
    network : Network
    boundary : Boundary
    fill : float
        The constant.
    """

    def __init__(self, network: Network, boundary: Boundary, fill: float = 0.0) -> None:
        self._fill = fill
        self._modules = [network.base_model.get_submodule(name) for name in boundary.before]
        self._image_size = network.backbone.spec.preprocessing.crop_size
        self._outputs = _outputs(network, self._modules)

    @contextmanager
    def at(self, values: Tensor) -> Iterator[Tensor]:
        """Yield placeholder images, which take no memory, for which the network continues from `values`."""
        with ExitStack() as undo:
            for module, outputs in zip(self._modules, self._outputs, strict=True):
                queue = iter([_mapped(partial(_filled, values, self._fill), one) for one in outputs])
                module.forward = partial(_next, queue)
                undo.callback(delattr, module, "forward")
            self._modules[-1].forward = lambda *_, **__: values
            yield values.new_full((1,), self._fill).expand(len(values), 3, *self._image_size)


def _outputs(network: Network, modules: list[nn.Module]) -> list[list[Any]]:
    """Return the output of each call of each module for two images, with shapes in place of tensors."""
    found: dict[nn.Module, list[Any]] = {module: [] for module in modules}
    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_hook(lambda one, _, output: found[one].append(_mapped(_shape, output)))
            hooks.callback(hook.remove)
        with torch.no_grad():
            network.trunk(_noise(network))
    return [found[module] for module in modules]


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to every leaf of nested tuples, lists and dictionaries."""
    if isinstance(value, dict):
        changed = copy(value)  # keeps a subclass of dict
        changed.update({key: _mapped(function, one) for key, one in value.items()})
        return changed
    if isinstance(value, list | tuple):
        items = [_mapped(function, one) for one in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return function(value)


@dataclass(frozen=True)
class _Shape:
    """The shape of a tensor."""

    shape: tuple[int, ...]


def _shape(value: Any) -> Any:
    return _Shape(tuple(value.shape)) if isinstance(value, Tensor) else value


def _filled(like: Tensor, fill: float, value: Any) -> Any:
    if not isinstance(value, _Shape):
        return value
    first = len(like) if value.shape[:1] == (_IMAGES,) else value.shape[0]
    return like.new_full((1,), fill).expand(first, *value.shape[1:])


def _next(queue: Iterator[Any], *_: Any, **__: Any) -> Any:
    return next(queue)


def _noise(network: Network) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(_IMAGES, 3, *network.backbone.spec.preprocessing.crop_size, generator=generator)
    return images.to(network.head.weight.device)

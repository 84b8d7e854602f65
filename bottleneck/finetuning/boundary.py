"""The boundary between what is frozen and what is trained: what stands before it need run only once for an image."""

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
from bottleneck.finetuning.freeze import Plan
from bottleneck.finetuning.network import Network

_MOST_TRIED = 64
_IMAGES = 2
_LIKE = 1e-5  # of the largest feature: how far the features of a tail may be from those of the network


@dataclass(frozen=True)
class Boundary:
    """The output of a module on which all that is trained depends, and through which alone it sees the image.

    Parameters
    ----------
    module : str
        Its name in the network.
    shape : tuple of int
        Of its output for one image.
    before : tuple of str
        The outermost modules that have run when it has, itself the last; they need not run again.
    """

    module: str
    shape: tuple[int, ...]
    before: tuple[str, ...]

    @property
    def size(self) -> int:
        """How many numbers the output has for one image."""
        return math.prod(self.shape)

    def front(self, network: Network) -> Cut:
        """Return the network up to here: normalised pixels ``(b, 3, h, w)`` to ``(b, size)``."""
        return Cut(network.named, [FeaturePoint(self.module, False, 1, OutputLayout(()))], "none")


class Tail(nn.Module):
    """A network from a boundary on, logits of what stands there: its modules are the network's own.

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
        self._stands_in = _Replay(network, boundary) if boundary else None

    def forward(self, values: Tensor) -> Tensor:
        """Return logits ``(b, k)`` of activations ``(b, *shape)``, or of normalised pixels ``(b, 3, h, w)``."""
        logits: Tensor = self.network.head(self.features(values))
        return logits

    def features(self, values: Tensor) -> Tensor:
        """Return what the last layer receives, ``(b, d)``."""
        if self._stands_in is None:
            found: Tensor = self.network.trunk(values)
            return found
        with self._stands_in.at(values) as images:
            found = self.network.trunk(images)
        return found


def find(network: Network, plan: Plan, calls: dict[str, Call]) -> Boundary | None:
    """Find the last boundary before all that a plan trains.

    Candidates are modules that have ended before the first trained one begins. The last is taken from which on the
    network gives the features that it gives from the pixels on, while all that ran before gives NaN: so nothing that is
    trained can depend on anything else, on a shortcut around the boundary, say, and be it one times zero, as gates
    begin.

    Parameters
    ----------
    network : Network
        In eval mode.
    plan : Plan
    calls : dict of str to Call
        What `Network.trace` gave.

    Returns
    -------
    Boundary or None
        None where there is no such module: the whole network must run.
    """
    first = _first_trained(network, plan, calls)
    ended = [name for name, call in calls.items() if call.closed <= first and name != network.classifier]
    outermost = [name for name in ended if not any(name.startswith(f"{other}.") for other in ended)]
    outermost.sort(key=lambda name: calls[name].entered)
    images = _noise(network)
    with torch.no_grad():
        wanted = network.trunk(images)
    for last in range(len(outermost), max(0, len(outermost) - _MOST_TRIED), -1):
        name, call = outermost[last - 1], calls[outermost[last - 1]]
        if call.calls != 1 or not call.outputs or call.outputs[0] != _IMAGES or len(call.outputs) < 2:
            continue
        boundary = Boundary(name, call.outputs[1:], tuple(outermost[:last]))
        if _carries(network, boundary, images, wanted):
            return boundary
    return None


def _first_trained(network: Network, plan: Plan, calls: dict[str, Call]) -> int:
    """Return when the first module begins that is trained, in the count of `Call.entered`.

    The last layer alone is trained after all others. A parameter that a module reads without running what owns it
    counts with the next module above that runs; the network's own count from its beginning; one that several modules
    have, with the first of them.
    """
    first = len(calls) + 1
    own = network.parameters_by_name()
    trained = {own[name] for name in plan.parameters if plan.depth[name]}
    tensors = network.named.named_parameters(remove_duplicate=False)
    names = [*plan.buffers, *(name for name, tensor in tensors if tensor in trained)]
    owners = {name.rpartition(".")[0] for name in names}
    for name in {*owners, *plan.modules}:
        while name and name not in calls:
            name = name.rpartition(".")[0]
        first = min(first, calls[name].entered if name else 0)
    return first


def _carries(network: Network, boundary: Boundary, images: Tensor, wanted: Tensor) -> bool:
    """Whether the features come out the same from the boundary on."""
    try:
        front = boundary.front(network)
        try:
            with torch.no_grad():
                values = front(images)
        finally:
            front.release()
        with torch.no_grad():
            replay = _Replay(network, boundary, fill=math.nan)
            with replay.at(values.unflatten(1, boundary.shape)) as nothing:
                found = network.trunk(nothing)
    except Exception:  # whatever the network's own code says to numbers that are none
        return False
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= _LIKE * wanted.abs().max())


class _Replay:
    """Lets the modules before a boundary give one number in the right shapes, and the last of them what it is told.

    Parameters
    ----------
    network : Network
    boundary : Boundary
    fill : float
        The number.
    """

    def __init__(self, network: Network, boundary: Boundary, fill: float = 0.0) -> None:
        self._fill = fill
        self._modules = [network.named.get_submodule(name) for name in boundary.before]
        self._image = network.backbone.spec.preprocessing.crop_size
        self._made = _outputs(network, self._modules)

    @contextmanager
    def at(self, values: Tensor) -> Iterator[Tensor]:
        """Give images, of no content and no memory, that stand for those of `values` in the network."""
        with ExitStack() as undo:
            for module, made in zip(self._modules, self._made, strict=True):
                queue = iter([_mapped(partial(_filled, values, self._fill), one) for one in made])
                module.forward = partial(_next, queue)
                undo.callback(delattr, module, "forward")
            self._modules[-1].forward = lambda *_, **__: values
            yield values.new_full((1,), self._fill).expand(len(values), 3, *self._image)


def _outputs(network: Network, modules: list[nn.Module]) -> list[list[Any]]:
    """Return what each module gives in each of its calls, for two images: tensors without numbers, in any structure."""
    found: dict[nn.Module, list[Any]] = {module: [] for module in modules}
    with ExitStack() as hooks:
        for module in modules:
            hook = module.register_forward_hook(lambda one, _, output: found[one].append(_mapped(_shape, output)))
            hooks.callback(hook.remove)
        with torch.no_grad():
            network.trunk(_noise(network))
    return [found[module] for module in modules]


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a module gives with `function` applied to all that its tuples, lists and dictionaries hold."""
    if isinstance(value, dict):
        changed = copy(value)  # a class of its own stays one
        changed.update({key: _mapped(function, one) for key, one in value.items()})
        return changed
    if isinstance(value, list | tuple):
        items = [_mapped(function, one) for one in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return function(value)


@dataclass(frozen=True)
class _Shape:
    """Stands for a tensor."""

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

"""Cut any network at one or more of its layers."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bottleneck.backbones.names import did_you_mean, nearest
from bottleneck.backbones.pooling import LARGEST_ROW, OutputLayout, layout_of, pooled
from bottleneck.backbones.stages import stages
from bottleneck.backbones.tracing import Call, first_tensor, trace
from bottleneck.errors import ModelError

_INPUT = ":input"
_TOKENS = {"cls": ("cls_token", "class_token"), "dist": ("dist_token",)}  # prefixes of their parameters


@dataclass(frozen=True)
class FeaturePoint:
    """A place in a network where features are taken.

    Parameters
    ----------
    module : str
        Name of the module.
    is_input : bool
        Whether to take the module's input instead of its output.
    calls : int
        How often the module runs; the last run counts.
    layout : OutputLayout
    """

    module: str
    is_input: bool
    calls: int
    layout: OutputLayout


class Dropped(nn.Module):
    """Replaces a module that no feature needs. It is not an ``nn.Identity``, which some networks test for."""


class _Reached(Exception):
    """Raised when all features are computed, so that the rest of the network does not run."""


class Cut(nn.Module):
    """Runs a network up to the last of some points, and concatenates the features of all of them.

    Parameters
    ----------
    network : nn.Module
    points : sequence of FeaturePoint
    pooling : str
        As for `bottleneck.backbones.pooling.pooled`.
    """

    def __init__(self, network: nn.Module, points: Sequence[FeaturePoint], pooling: str) -> None:
        super().__init__()
        self.network = network
        self._points = tuple(points)
        self._pooling = pooling
        self._run = threading.local()  # ``seen`` and ``rows`` of a thread's current batch
        self._hooks: list[RemovableHandle] = []
        for point in self._points:
            module = network.get_submodule(point.module)
            if point.is_input:
                hook = module.register_forward_pre_hook(lambda _, args, point=point: self._take(point, args))
            else:
                hook = module.register_forward_hook(lambda _, args, output, point=point: self._take(point, output))
            self._hooks.append(hook)

    def release(self) -> None:
        """Remove the hooks, so that the network runs to its end again."""
        for hook in self._hooks:
            hook.remove()

    @property
    def layer(self) -> str:
        """Where the network is cut, as in a `Spec`."""
        return "+".join(f"{point.module}{_INPUT if point.is_input else ''}" for point in self._points)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(b, d)`` of ``(b, 3, h, w)``."""
        run = self._run
        run.seen, run.rows = dict.fromkeys(self._points, 0), {}
        try:
            self.network(images)
        except _Reached:
            rows, run.rows = run.rows, {}
            return torch.cat([rows[point] for point in self._points], dim=1)
        raise ModelError(f"the network did not reach {', '.join(point.module for point in self._points)}")

    def _take(self, point: FeaturePoint, value: Any) -> None:
        run = self._run
        run.seen[point] += 1
        if run.seen[point] == point.calls:
            tensor = first_tensor(value)
            assert tensor is not None  # there was one when the network was traced
            run.rows[point] = pooled(tensor, point.layout, self._pooling)
            if len(run.rows) == len(self._points):
                raise _Reached


def cut(
    network: nn.Module,
    layers: Sequence[str],
    pool: str | None,
    image: tuple[int, int],
) -> tuple[Cut, str, int]:
    """Cut a network at `layers`, and remove the modules after them.

    Parameters
    ----------
    network : nn.Module
        In eval mode. It is changed in place: modules that no feature needs are replaced by `Dropped`.
    layers : sequence of str
        Names of modules for their outputs, ``NAME:input`` for their inputs.
    pool : str, optional
        See `bottleneck.backbones.pooling.pooled`; by default ``avg`` if a layer has positions, else ``none``.
    image : (int, int)
        Height and width of the network's images, in pixels.

    Returns
    -------
    Cut, str, int
        The network, the pooling, and d.

    Raises
    ------
    ModelError
        If there is no such layer (the message suggests similar names), if it does not run, if its output is not one
        row or one map per image, or if there would be more than 131,072 features.
    """
    layers = [_own_name(network, layer) for layer in layers]
    if len(set(layers)) < len(layers):
        raise ModelError(f"expected different layers to concatenate, got {', '.join(layers)}")
    prefix = prefix_tokens(network)
    images = torch.zeros(2, 3, *image)
    calls = trace(network, images)
    counts = {call.outputs[1] for call in calls.values() if call.outputs and len(call.outputs) == 3}
    points = [_point(layer, calls, image, prefix, pool, counts) for layer in layers]
    pooling = _pooling(points, layers, pool, calls, image)
    if pooling == "cls" and not (has_class_token(network) and all(point.layout.prefix for point in points)):
        raise ModelError(f"expected a layer with a class token for --pool cls, {'+'.join(layers)} has none")
    dim = sum(_width(point, calls, pooling) for point in points)
    if dim > LARGEST_ROW:
        raise ModelError(
            f"expected at most {LARGEST_ROW:,} features per image, {'+'.join(layers)} with --pool {pooling} has "
            f"{dim:,}: choose --pool avg, or another layer"
        )
    dropped = _drop_later_modules(network, points, calls)
    ended = Cut(network, points, pooling)
    try:
        with torch.no_grad():
            ended(images)
    except Exception:  # the network reads attributes of modules that it runs later: restore them
        ended.release()
        for module, child, original in dropped:
            setattr(module, child, original)
        ended = Cut(network, points, pooling)
        with torch.no_grad():
            ended(images)
    return ended, pooling, dim


def prefix_tokens(network: nn.Module) -> int:
    """Return the number of tokens before those of the positions: class token and registers."""
    own = getattr(network, "num_prefix_tokens", None)
    return own if isinstance(own, int) and own else sum(_own_tokens(network).values())


def has_class_token(network: nn.Module) -> bool:
    """Return whether the first token is a class token, not a register."""
    own = getattr(network, "has_class_token", None)
    return own if isinstance(own, bool) else bool(_own_tokens(network).get("cls"))


def _own_tokens(network: nn.Module) -> dict[str, int]:
    """Return the numbers of class and distillation tokens among a network's parameters.

    Networks with several branches, or stages, have one of each (``cls_token1``, ``cls_token2``, ...).
    """
    found: dict[str, int] = {}
    for name, parameter in network.named_parameters(recurse=False):
        for kind, beginnings in _TOKENS.items():
            if name.startswith(beginnings) and parameter.dim() == 3:
                found[kind] = max(found.get(kind, 0), parameter.shape[1])
    return found


def _own_name(network: nn.Module, layer: str) -> str:
    """Return the layer with the first name of its module, which may have several."""
    names = {name: module for name, module in network.named_modules(remove_duplicate=False) if name}
    name = layer.removesuffix(_INPUT)
    if name in names:
        first: str = next(own for own, module in names.items() if module is names[name])
        return first + layer.removeprefix(name)
    hint = did_you_mean(nearest(name, names)) or f"the stages are {', '.join(stages(network))}."
    raise ModelError(f"expected the name of a layer, got {layer!r}; {hint} `bottleneck inspect MODEL` lists all")


def _point(
    layer: str, calls: dict[str, Call], image: tuple[int, int], prefix: int, pool: str | None, counts: set[int]
) -> FeaturePoint:
    """Return the point of a layer in a traced network; `counts` are the token counts that occur in it."""
    module, is_input = layer.removesuffix(_INPUT), layer.endswith(_INPUT)
    call = calls.get(module)
    shape = (call.inputs if is_input else call.outputs) if call else None
    if not call or not shape:
        raise ModelError(f"the layer {layer} cannot be used: it does not run, or has no tensor")
    if shape[0] != 2 or len(shape) < 2:  # the network was traced with two images
        raise ModelError(
            f"the layer {layer} cannot be used: for 2 images it has the shape {shape}, which is not one row per image"
        )
    try:
        layout = layout_of(shape, image, prefix)
        if layout.positions == (2, 3) and shape[2] == shape[3] and shape[2] in counts:
            raise ModelError(f"its output has the shape {shape}, which is the attention between tokens")
    except ModelError as error:
        if pool != "none":
            raise ModelError(f"the layer {layer} cannot be pooled: {error}. --pool none uses all its values") from None
        layout = OutputLayout((1,))
    return FeaturePoint(module, is_input, call.calls, layout)


def _pooling(
    points: Sequence[FeaturePoint],
    layers: Sequence[str],
    pool: str | None,
    calls: dict[str, Call],
    image: tuple[int, int],
) -> str:
    if not any(point.layout.positions for point in points):
        if pool in (None, "none"):
            return "none"
        raise ModelError(_no_positions("+".join(layers), pool, calls, image))
    if pool in (None, "avg", "max") and all(_is_one_row(point, calls) for point in points):
        return "none"  # the values are the same, and so must be the name
    return pool or "avg"


def _shape(point: FeaturePoint, calls: dict[str, Call]) -> tuple[int, ...]:
    call = calls[point.module]
    return (call.inputs if point.is_input else call.outputs) or ()


def _is_one_row(point: FeaturePoint, calls: dict[str, Call]) -> bool:
    """Return whether a point has at most one position."""
    shape = _shape(point, calls)
    return not point.layout.prefix and math.prod(shape[place] for place in point.layout.positions) == 1


def _no_positions(layer: str, pool: str, calls: dict[str, Call], image: tuple[int, int]) -> str:
    """Return the error message for a layer without positions; it suggests the last layer that has some."""
    with_positions = []
    for name, call in calls.items():
        try:
            positions = layout_of(call.outputs, image, 0).positions if name and call.outputs else ()
            if call.outputs and math.prod(call.outputs[place] for place in positions) > 1:
                with_positions.append((name.count("."), -call.entered, name))
        except ModelError:
            continue
    example = f": name a layer that has some, for example --layer {min(with_positions)[2]}" if with_positions else ""
    return f"--pool {pool} has nothing to pool: {layer} is one row per image, without positions{example}"


def _width(point: FeaturePoint, calls: dict[str, Call], pooling: str) -> int:
    return pooled(torch.empty(_shape(point, calls), device="meta"), point.layout, pooling).shape[1]


def _drop_later_modules(
    network: nn.Module, points: Sequence[FeaturePoint], calls: dict[str, Call]
) -> list[tuple[nn.Module, str, nn.Module]]:
    """Replace the modules that first run after the last point, so that the digest does not include their weights.

    Returns
    -------
    list of (nn.Module, str, nn.Module)
        The replaced modules: parent, name in the parent, module.
    """
    last = max(calls[point.module].opened if point.is_input else calls[point.module].closed for point in points)
    early = {name for name, call in calls.items() if call.entered < last}
    kept = {".".join(parts[:end]) for parts in (name.split(".") for name in early) for end in range(len(parts) + 1)}
    late = {name for name in calls if name not in kept}
    modules = dict(network.named_modules())
    gone = {id(modules[name]) for name in late}
    found = []
    for name, module in list(network.named_modules(remove_duplicate=False)):
        parent, _, child = name.rpartition(".")
        if id(module) in gone and not _inside(parent, late):
            found.append((network.get_submodule(parent), child, module))
    for owner, child, _ in found:
        setattr(owner, child, Dropped())
    return found


def _inside(name: str, modules: set[str]) -> bool:
    """Return whether a module is in `modules`, or inside one of them."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in modules for end in range(1, len(parts) + 1))

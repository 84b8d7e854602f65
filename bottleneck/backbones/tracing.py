"""Trace one forward pass: which modules run, in which order, on which shapes, with how many multiply-adds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bottleneck.backbones.downloads import first_line
from bottleneck.errors import ModelError
from bottleneck.utils.process_settings import SharedContext

Shape = tuple[int, ...]


@dataclass
class Call:
    """What a module did in one forward pass.

    Parameters
    ----------
    entered : int
        Its index in the order in which modules first ran.
    calls : int
        Number of its calls.
    opened, closed : int
        Number of modules entered when its last call began and ended.
    inputs, outputs : tuple of int or None
        Shapes of the first tensor of its input and output in the last call; None if there was none.
    macs : int
        Multiply-adds of its convolutions and matrix products, over all its calls.
    """

    entered: int
    calls: int = 0
    opened: int = 0
    closed: int = 0
    inputs: Shape | None = None
    outputs: Shape | None = None
    macs: int = 0


def trace(network: nn.Module, images: Tensor) -> dict[str, Call]:
    """Run the network once and return the calls of its modules by name; the network itself is ``""``.

    Parameters
    ----------
    network : nn.Module
    images : Tensor
        ``float32 (b, 3, h, w)`` on the network's device, which may be ``meta``.

    Raises
    ------
    ModelError
        If the network does not accept these images.
    """
    found: dict[str, Call] = {}
    counter = FlopCounterMode(display=False)
    begun: list[int] = []

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any) -> None:
            entered = len(found)
            call = found.setdefault(name, Call(entered))
            call.calls += 1
            call.opened = entered
            call.inputs = _shape(args)
            begun.append(counter.get_total_flops())

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            call = found[name]
            call.closed = len(found)
            call.outputs = _shape(output)
            call.macs += (counter.get_total_flops() - begun.pop()) // 2

        return hook

    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    handles = []
    for name, module in network.named_modules():
        handles += [module.register_forward_pre_hook(before(name)), module.register_forward_hook(after(name))]
    try:
        for parameter in trained:  # the counter fails on views of those that require gradients
            parameter.requires_grad_(False)
        with torch.no_grad(), _plain_attention, counter:
            run(network, images)
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
    return found


def run(network: nn.Module, images: Tensor) -> Any:
    """Run the network.

    Raises
    ------
    ModelError
        If it does not accept these images.
    """
    try:
        return network(images)
    except Exception as error:  # torch and timm check sizes by assertions, ValueError and RuntimeError
        height, width = images.shape[2:]
        raise ModelError(
            f"the network does not accept images of {height} x {width} pixels: {first_line(error):.300}"
        ) from error


def first_tensor(value: Any) -> Tensor | None:
    """Return the first tensor in a module's input or output."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next((tensor for item in value if (tensor := first_tensor(item)) is not None), None)
    return None


@contextmanager
def _attention_as_products() -> Iterator[None]:
    """Compute attention as matrix products, which are counted; some versions of torch do not count fused kernels."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


_plain_attention = SharedContext(_attention_as_products)


def _shape(value: Any) -> Shape | None:
    tensor = first_tensor(value)
    return None if tensor is None else tuple(tensor.shape)

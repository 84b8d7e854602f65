"""Make a network faster, reversibly: fold batch norm into convolutions, and round weights to bfloat16."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Convolutions whose ``forward`` uses ``weight`` and ``bias`` unchanged, unlike those that standardise their weights.
_PLAIN = ("Conv2d", "Conv2dSame")

_TOLERANCE = 1e-4  # largest difference in fp32 after folding, relative to the largest feature
_BOUND = 1e38  # larger than any activation, and finite in float32 and bfloat16


class ReversibleChanges:
    """Changes to a network that can be undone."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._undo = ExitStack()

    def fold(self, image: Tensor) -> bool:
        """Fold each batch norm that follows a convolution into its weights; return whether any was folded.

        ``w' = w s`` and ``b' = (b - mean) s + beta`` with ``s = gamma / sqrt(variance + eps)``. One run on `image`,
        ``float32 (1, 3, h, w)``, shows which modules follow each other. If the features change, folding is undone.
        """
        with torch.no_grad():
            before = self._network(image)
            pairs = _pairs(self._network, image)
            folding = self._undo.enter_context(ExitStack())
            for convolution, norm in pairs:
                _fold(convolution, norm, folding)
            after = self._network(image)
        if (after - before).abs().max() <= _TOLERANCE * before.abs().max():
            return bool(pairs)
        folding.close()  # also if numbers are not finite: comparisons are then false
        return False

    def round_weights(self) -> None:
        """Round the kernels of convolutions to bfloat16, preserving the sum of each kernel; see `rounded`."""
        for module in self._convolutions():
            weight: Tensor = module.weight
            _swap(module, "weight", rounded(weight.cpu()).to(weight.device), self._undo)

    def narrow_weights(self) -> None:
        """Convert the weights of convolutions and linear layers to bfloat16, as autocast does in every call."""
        for module in self._network.modules():
            if type(module).__name__ in (*_PLAIN, "Linear"):
                weight: Any = module.weight
                _swap(module, "weight", weight.to(torch.bfloat16), self._undo)

    def add_biases_in_fp32(self) -> None:
        """Add the bias of each convolution in a separate operation after it.

        OpenVINO rounds the bias of a bfloat16 convolution to bfloat16, but adds in fp32 if another operation is in
        between: here a clamp to a range that no activation leaves. EfficientNet-Lite0: lowest cosine 0.9994 instead of
        0.9987 on 64 photographs, at the same speed.
        """
        for module in self._convolutions():
            if module.bias is not None:
                shift = module.bias.detach().view(1, -1, 1, 1)
                _swap(module, "bias", None, self._undo)
                _override(module, partial(_clamped_and_shifted, module.forward, shift), self._undo)

    def undo(self) -> None:
        """Undo all changes."""
        self._undo.close()

    def _convolutions(self) -> list[Any]:
        return [module for module in self._network.modules() if type(module).__name__ in _PLAIN]


@contextmanager
def prepared(network: nn.Module) -> Iterator[ReversibleChanges]:
    """Yield the changes of a network, and undo them at the end."""
    changes = ReversibleChanges(network)
    try:
        yield changes
    finally:
        changes.undo()


def probe(crop_size: tuple[int, int]) -> Tensor:
    """Return an image of noise, ``float32 (1, 3, h, w)``, always the same, to trace a network."""
    return torch.rand(1, 3, *crop_size, generator=torch.Generator().manual_seed(0))


def rounded(weight: Tensor) -> Tensor:
    """Round a convolution's weights to bfloat16, preserving the sum of each kernel.

    The weights of a kernel that detects differences sum to about zero. Rounding each to the nearest changes the sum,
    and the kernel then responds to uniform areas. Instead, some weights are rounded the other way to restore the sum.
    EfficientNet-Lite0: lowest cosine to fp32 0.9987 instead of 0.9946 on 64 photographs.

    Parameters
    ----------
    weight : Tensor
        ``float32 (out, in, h, w)``.

    Returns
    -------
    Tensor
        float32, with values that bfloat16 can represent.
    """
    if weight.shape[-2:].numel() == 1 or not torch.isfinite(weight).all():
        return weight.to(torch.bfloat16).float()
    kernels = weight.detach().reshape(-1, weight.shape[-2:].numel())
    nearest = kernels.to(torch.bfloat16)
    up = torch.nextafter(nearest, torch.full_like(nearest, torch.inf))
    down = torch.nextafter(nearest, torch.full_like(nearest, -torch.inf))
    other = torch.where(kernels > nearest.float(), up, down).double()
    chosen, exact = nearest.double(), kernels.double()
    other = torch.where(chosen == exact, chosen, other)
    for _ in range(kernels.shape[1]):
        missing = (exact - chosen).sum(1)
        left = (missing[:, None] - (other - chosen)).abs()
        best, place = left.min(1)
        rows = torch.nonzero(best < missing.abs())[:, 0]
        if not len(rows):
            break
        places = place[rows]
        chosen[rows, places], other[rows, places] = other[rows, places], chosen[rows, places]
    return chosen.float().reshape(weight.shape)


def _pairs(network: nn.Module, image: Tensor) -> list[tuple[Any, Any]]:
    """Return pairs of a convolution and the batch norm that receives its output, if both run exactly once."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # keeping the tensor keeps its id unique
    found: list[tuple[nn.Module, nn.Module]] = []
    calls: Counter[nn.Module] = Counter()

    def ran(module: nn.Module, _: Any, result: Tensor) -> None:
        calls[module] += 1
        made[id(result)] = (module, result)

    def begins(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        calls[module] += 1
        if id(given[0]) in made:
            found.append((made[id(given[0])][0], module))

    with ExitStack() as hooks:
        for module in network.modules():
            if type(module).__name__ in _PLAIN:
                hooks.callback(module.register_forward_hook(ran).remove)
            elif _is_norm(module):
                hooks.callback(module.register_forward_pre_hook(begins).remove)
        network(image)
    return [(convolution, norm) for convolution, norm in found if calls[convolution] == calls[norm] == 1]


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm with running statistics; timm's includes an activation."""
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == "BatchNormAct2d"
    return known and isinstance(getattr(module, "running_var", None), Tensor) and not module.training


def _fold(convolution: Any, norm: Any, undo: ExitStack) -> None:
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else scale * norm.weight
    shift = 0.0 if norm.bias is None else norm.bias
    bias = 0.0 if convolution.bias is None else convolution.bias
    _swap(convolution, "weight", convolution.weight * scale.view(-1, 1, 1, 1), undo)
    _swap(convolution, "bias", (bias - norm.running_mean) * scale + shift, undo)
    _override(norm, _activation(norm), undo)


def _activation(norm: Any) -> Callable[[Tensor], Tensor]:
    """Return the activation that a batch norm applies after normalising."""
    act: nn.Module = getattr(norm, "act", nn.Identity())
    return act.__call__  # not the module, which `norm` would register as a child


def _clamped_and_shifted(forward: Callable[[Tensor], Tensor], shift: Tensor, images: Tensor) -> Tensor:
    return functional.hardtanh(forward(images), -_BOUND, _BOUND) + shift


def _swap(module: Any, name: str, value: Tensor | None, undo: ExitStack) -> None:
    """Replace a parameter of a module, until `undo`."""
    undo.callback(setattr, module, name, getattr(module, name))
    fresh = None if value is None else nn.Parameter(value.detach(), requires_grad=False)
    setattr(module, name, fresh)


def _override(module: Any, forward: Callable[[Tensor], Tensor], undo: ExitStack) -> None:
    """Replace a module's ``forward``, until `undo`; its hooks stay."""
    undo.callback(delattr, module, "forward")
    module.forward = forward

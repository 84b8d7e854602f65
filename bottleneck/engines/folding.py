"""Batch norm folded into the convolutions before it, and weights rounded to bfloat16: a network made fast, undoably."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Convolutions whose ``forward`` uses ``weight`` and ``bias`` as they are; not those that standardise their weights.
_PLAIN = ("Conv2d", "Conv2dSame")

_LIKE = 1e-4  # of the largest feature: how far a folded network in fp32 may be from the network
_BOUND = 1e38  # beyond what any activation reaches, within float32 and bfloat16


class ReversibleChanges:
    """Changes to a network that can be taken back."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._undo = ExitStack()

    def fold(self, image: Tensor) -> bool:
        """Fold each batch norm that follows a convolution into its weights; return whether the features stayed.

        ``w' = w s`` and ``b' = (b - mean) s + beta`` with ``s = gamma / sqrt(variance + eps)``. What follows what is
        seen by running `image`, ``float32 (1, 3, h, w)``, once; where the features then differ, nothing is folded.
        """
        with torch.no_grad():
            before = self._network(image)
            pairs = _pairs(self._network, image)
            folding = self._undo.enter_context(ExitStack())
            for convolution, norm in pairs:
                _fold(convolution, norm, folding)
            after = self._network(image)
        if (after - before).abs().max() <= _LIKE * before.abs().max():
            return bool(pairs)
        folding.close()  # also where there are numbers that are not finite, which compare as no
        return False

    def round_weights(self) -> None:
        """Round the kernels of convolutions to bfloat16 so that the sum of each kernel stays; see `rounded`."""
        for module in self._convolutions():
            weight: Tensor = module.weight
            _swap(module, "weight", rounded(weight.cpu()).to(weight.device), self._undo)

    def narrow_weights(self) -> None:
        """Keep the weights of convolutions and linear layers as bfloat16, as autocast would make them at every call."""
        for module in self._network.modules():
            if type(module).__name__ in (*_PLAIN, "Linear"):
                weight: Any = module.weight
                _swap(module, "weight", weight.to(torch.bfloat16), self._undo)

    def add_biases_in_fp32(self) -> None:
        """Let each convolution's bias be added after it, as a step of its own.

        OpenVINO rounds the bias of a convolution in bfloat16 to bfloat16 too, but adds in fp32 what follows another
        step. The step between clamps to a range that nothing leaves. EfficientNet-Lite0: lowest cosine 0.9994 instead
        of 0.9987 on 64 photographs, at the same speed.
        """
        for module in self._convolutions():
            if module.bias is not None:
                shift = module.bias.detach().view(1, -1, 1, 1)
                _swap(module, "bias", None, self._undo)
                _override(module, partial(_clamped_and_shifted, module.forward, shift), self._undo)

    def undo(self) -> None:
        """Give the network back as it was."""
        self._undo.close()

    def _convolutions(self) -> list[Any]:
        return [module for module in self._network.modules() if type(module).__name__ in _PLAIN]


@contextmanager
def prepared(network: nn.Module) -> Iterator[ReversibleChanges]:
    """Give the network to be changed, and take all changes back at the end."""
    changes = ReversibleChanges(network)
    try:
        yield changes
    finally:
        changes.undo()


def probe(crop_size: tuple[int, int]) -> Tensor:
    """Return an image of noise, ``float32 (1, 3, h, w)``, the same each time, to see what a network does."""
    return torch.rand(1, 3, *crop_size, generator=torch.Generator().manual_seed(0))


def rounded(weight: Tensor) -> Tensor:
    """Round a convolution's weights to bfloat16, keeping the sum of each kernel.

    A kernel that sees differences has weights that sum to about zero. Rounded one by one, its sum moves, and all of an
    even area shows through. Instead the weights whose rounding the other way brings the sum back are rounded the other
    way. EfficientNet-Lite0: lowest cosine to fp32 0.9987 instead of 0.9946 on 64 photographs.

    Parameters
    ----------
    weight : Tensor
        ``float32 (out, in, h, w)``.

    Returns
    -------
    Tensor
        float32, of values that bfloat16 has.
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
    """Return the convolutions that run once and hand their result to a batch norm, with that batch norm."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is kept, so that its id is not given to another
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
    """Whether it is a batch norm with statistics of its own; timm's has an activation inside."""
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
    """Return what a batch norm does after it has normalised."""
    act: nn.Module = getattr(norm, "act", nn.Identity())
    return act.__call__  # not the module, which `norm` would take for a part of itself


def _clamped_and_shifted(forward: Callable[[Tensor], Tensor], shift: Tensor, images: Tensor) -> Tensor:
    return functional.hardtanh(forward(images), -_BOUND, _BOUND) + shift


def _swap(module: Any, name: str, value: Tensor | None, undo: ExitStack) -> None:
    """Put another parameter into a module, until `undo`."""
    undo.callback(setattr, module, name, getattr(module, name))
    fresh = None if value is None else nn.Parameter(value.detach(), requires_grad=False)
    setattr(module, name, fresh)


def _override(module: Any, forward: Callable[[Tensor], Tensor], undo: ExitStack) -> None:
    """Let a module compute something else, until `undo`; its hooks stay."""
    undo.callback(delattr, module, "forward")
    module.forward = forward

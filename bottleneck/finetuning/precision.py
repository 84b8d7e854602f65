"""Numeric precision: of training (fp32 or bf16), and of stored activations (float16 or float32)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bottleneck.engines.hardware import native_bf16
from bottleneck.finetuning.freeze import TrainablePlan
from bottleneck.finetuning.network import Network
from bottleneck.finetuning.recipe import Recipe

_MAX_NOISE = 0.01  # largest change of a channel by rounding, relative to its standard deviation; usually about 1e-3
_MAX_ERROR = 2.0**-10  # largest relative error: twice the rounding error of normal float16 numbers
_CONSTANT = 1e-6  # a channel with a smaller relative deviation is constant, apart from float32 rounding
_ROWS = 16  # rows of a batch checked for rounding errors; all rows are checked for overflow

Floats = NDArray[np.float64]


def training_precision(
    recipe: Recipe,
    network: Network,
    plan: TrainablePlan,
    device: torch.device,
    native: Callable[[], bool] = native_bf16,
) -> str:
    """Return the precision of training: for ``auto``, bf16 if it is faster.

    It is faster if the hardware multiplies bfloat16 natively, except for grouped convolutions on a CPU, whose
    gradients oneDNN computes slowly in bfloat16. On 2 cores with AVX512-BF16 a step takes 0.5 times as long as in fp32
    with the last stage of ResNet-18, 0.6 times with that of ResNet-50, and twice as long with two stages of
    EfficientNet-Lite0.
    """
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    owners = {name.rpartition(".")[0] for name in plan.parameters}
    modules = (module for name, module in network.base_model.named_modules() if name in owners)
    grouped = any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in modules)
    return "bf16" if device.type == "cpu" and native() and not grouped else "fp32"


@dataclass(frozen=True)
class ActivationStats:
    """The distribution of the activations of a sample of the images, by channel.

    Which axis holds the channels depends on the network, so the first and the last are both measured.

    Parameters
    ----------
    shape : tuple of int
        Of the activations of one image.
    means, deviations : tuple of ndarray of float64
        Mean and standard deviation of each slice along each of these axes.
    wide : bool
        Whether float16 loses information on the sample, so that all activations are stored as float32.
    """

    shape: tuple[int, ...]
    means: tuple[Floats, ...] = ()
    deviations: tuple[Floats, ...] = ()
    wide: bool = False

    @classmethod
    def of(cls, values: NDArray[np.float32], shape: Sequence[int]) -> "ActivationStats":
        """Measure the activations ``(n, size)`` of a sample; an empty sample is assumed to fit in float16."""
        shape = tuple(shape)
        if not len(values) or not np.isfinite(values).all():
            return cls(shape)
        moments = [_moments(values, shape, axis) for axis in _axes(shape)]
        means = tuple(mean for mean, _ in moments)
        deviations = tuple(np.sqrt(np.maximum(square - mean**2, 0)) for mean, square in moments)
        stats = cls(shape, means, deviations)
        return cls(shape, means, deviations, wide=stats._loses_information(values, _to_float16(values)))

    @property
    def width(self) -> int:
        """Bytes of one stored number."""
        return 4 if self.wide else 2

    def stored(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return activations ``(n, size)`` as they are stored: in float16 if it loses no information, else float32."""
        if self.wide:
            return values
        rounded = _to_float16(values)
        some = slice(None, None, max(1, len(values) // _ROWS))
        if not np.isfinite(rounded).all() or self._loses_information(values[some], rounded[some]):
            return values
        return rounded

    def _loses_information(self, values: NDArray[np.float32], rounded: NDArray[np.float16]) -> bool:
        if not np.isfinite(rounded).all():
            return bool(np.isfinite(values).all())
        errors = values - rounded
        for axis, mean, deviation in zip(_axes(self.shape), self.means, self.deviations, strict=False):
            own_mean, square = _moments(values, self.shape, axis)
            size = np.sqrt(square)
            from_mean = np.sqrt(np.maximum(square - 2 * mean * own_mean + mean**2, 0))
            deviation = np.maximum(deviation, from_mean)
            tolerance = np.where(deviation > _CONSTANT * size, _MAX_NOISE * deviation, _MAX_ERROR * size)
            if (np.sqrt(_moments(errors, self.shape, axis)[1]) > tolerance).any():
                return True
        return False


def _to_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes that may hold the channels: the first and the last."""
    return (0,) if len(shape) < 2 else (0, len(shape) - 1)


def _moments(values: NDArray[np.float32], shape: tuple[int, ...], axis: int) -> tuple[Floats, Floats]:
    """Return the mean, and the mean square, of each slice of ``(n, size)`` along an axis of the shape."""
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    parts = values.reshape(len(values), before, shape[axis], after)
    count = len(values) * before * after
    total = np.einsum("nbka->k", parts, dtype=np.float64)
    squares = np.einsum("nbka,nbka->k", parts, parts, dtype=np.float64)
    return total / count, squares / count

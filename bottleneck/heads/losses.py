"""Losses of linear heads as functions of scores, with their first two derivatives."""

from dataclasses import dataclass
from typing import Protocol

from bottleneck.heads.arrays import Array, Arrays

_LARGE = 1e-4  # a probability that is safe to divide by


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The loss of a block of rows, with derivatives with respect to the scores.

    Parameters
    ----------
    total : float64, shape (p,)
        Sum over the rows.
    slope : float32, shape (b, p, outputs)
        First derivative.
    curvature : float32, shape (p, outputs)
        Second derivative, summed over the rows.
    """

    total: Array
    slope: Array
    curvature: Array


class Loss(Protocol):
    """A loss of the scores of many problems at once, each with `outputs` columns.

    Attributes
    ----------
    outputs : int
        Number of columns of a problem.
    bias_penalty : float
        Coefficient of half the squared bias in the penalty; that of half the squared weights is 1.
    """

    outputs: int
    bias_penalty: float

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> Losses:
        """Return the loss of each problem and its derivatives.

        Parameters
        ----------
        arrays : Arrays
        scores : float32, shape (b, p, outputs)
            May be overwritten.
        target : shape (b,) or (b, p)
        weights : float32, shape (b, p)
            Weight of each row in each problem.
        """


class SoftmaxLoss:
    """``log sum exp(s) - s_y``, the cross-entropy of ``softmax(s)``; the target ``(b,)`` is y."""

    bias_penalty = 0.0

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> Losses:
        """Return loss and derivatives, see `Loss`."""
        xp, rows = arrays.xp, arrays.range(len(target))
        scores -= xp.amax(scores, axis=2, keepdims=True)
        own = scores[rows, :, target]  # a copy
        shares = xp.exp(scores)
        right = shares[rows, :, target]
        shares[rows, :, target] = 0
        wrong = shares.sum(axis=2)  # not 1 - right, which cancels when right is almost 1
        large = right > _LARGE
        losses = xp.where(large, xp.log1p(wrong / xp.where(large, right, 1 + 0 * right)), xp.log(wrong + right) - own)
        total = (losses * weights).sum(axis=0, dtype=xp.float64)
        away = shares  # absolute difference of each probability from its target
        away[rows, :, target] = wrong
        away *= (1 / (wrong + right))[..., None]
        slope = away * weights[..., None]
        curvature = xp.einsum("bpk,bpk->pk", slope, 1 - away)
        slope[rows, :, target] *= -1
        return Losses(total=total, slope=slope, curvature=curvature)


class LogisticLoss:
    """``log(1 + exp(-y s))`` of one score; the target ``(b, p)`` is y, -1 or 1."""

    outputs = 1
    bias_penalty = 0.0

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> Losses:
        """Return loss and derivatives, see `Loss`."""
        xp = arrays.xp
        margins = target * scores[..., 0]
        losses = xp.log1p(xp.exp(-xp.abs(margins))) + xp.clip(-margins, 0, None)
        wrong = 1 / (1 + xp.exp(xp.clip(margins, None, 80)))
        heavy = wrong * weights
        total = (losses * weights).sum(axis=0, dtype=xp.float64)
        curvature = (heavy * (1 - wrong)).sum(axis=0)[..., None]
        return Losses(total=total, slope=(-target * heavy)[..., None], curvature=curvature)


class SquaredHingeLoss:
    """``max(0, 1 - y s)^2`` of a score; the target ``(b, p)`` is y, -1 or 1; as in LIBLINEAR the bias is penalised."""

    outputs = 1
    bias_penalty = 1.0

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> Losses:
        """Return loss and derivatives, see `Loss`."""
        xp = arrays.xp
        short = xp.clip(1 - target * scores[..., 0], 0, None)
        curvature = 2 * ((short > 0) * weights).sum(axis=0)[..., None]
        slope = short * weights
        total = (short * slope).sum(axis=0, dtype=xp.float64)
        slope *= -2 * target
        return Losses(total=total, slope=slope[..., None], curvature=curvature)

"""The losses of the linear heads: of scores, the sum over rows and its derivative."""

from typing import Protocol

from bottleneck.heads.arrays import Array, Arrays


class Loss(Protocol):
    """A loss of the scores of many problems at once, of which each has `outputs` columns.

    Attributes
    ----------
    outputs : int
        Columns of a problem.
    curvature : float
        An estimate of the loss's second derivative by a score, where all scores are 0.
    bias_penalty : float
        Of half the squared bias, beside 1 of half the squared weights.
    """

    outputs: int
    curvature: float
    bias_penalty: float

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> tuple[Array, Array]:
        """Return the loss of each problem ``(p,)``, float64, and its derivative by the scores ``(b, p, outputs)``.

        Parameters
        ----------
        arrays : Arrays
        scores : float32, shape (b, p, outputs)
            May be overwritten.
        target : shape (b,) or (b, p)
        weights : float32, shape (b, p)
            Of each row in each problem.
        """


class Softmax:
    """``log sum exp(s) - s_y``, the cross-entropy of ``softmax(s)``; the target ``(b,)`` is y."""

    bias_penalty = 0.0

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.curvature = 1 / outputs

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> tuple[Array, Array]:
        """Return loss and derivative, see `Loss`."""
        xp, rows = arrays.xp, arrays.range(len(target))
        scores -= xp.amax(scores, axis=2, keepdims=True)
        own = scores[rows, :, target]  # a copy
        shares = xp.exp(scores)
        total = shares.sum(axis=2, keepdims=True)
        loss = ((xp.log(total[..., 0]) - own) * weights).sum(axis=0, dtype=xp.float64)
        shares /= total
        shares[rows, :, target] -= 1
        shares *= weights[..., None]
        return loss, shares


class Logistic:
    """``log(1 + exp(-y s))`` of one score; the target ``(b, p)`` is y, -1 or 1."""

    outputs = 1
    curvature = 0.25
    bias_penalty = 0.0

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> tuple[Array, Array]:
        """Return loss and derivative, see `Loss`."""
        xp = arrays.xp
        margins = target * scores[..., 0]
        losses = xp.log1p(xp.exp(-xp.abs(margins))) + xp.clip(-margins, 0, None)
        slopes = -target * weights / (1 + xp.exp(xp.clip(margins, None, 80)))
        return (losses * weights).sum(axis=0, dtype=xp.float64), slopes[..., None]


class SquaredHinge:
    """``max(0, 1 - y s)^2`` of a score; the target ``(b, p)`` is y, -1 or 1; as in LIBLINEAR the bias is penalised."""

    outputs = 1
    curvature = 2.0
    bias_penalty = 1.0

    def __call__(self, arrays: Arrays, scores: Array, target: Array, weights: Array) -> tuple[Array, Array]:
        """Return loss and derivative, see `Loss`."""
        xp = arrays.xp
        short = xp.clip(1 - target * scores[..., 0], 0, None)
        slopes = short * weights
        loss = (short * slopes).sum(axis=0, dtype=xp.float64)
        slopes *= -2 * target
        return loss, slopes[..., None]

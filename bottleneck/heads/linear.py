"""Linear heads: weights ``W (k, d)`` and biases ``b (k,)``."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.features import Features
from bottleneck.heads.head import Head


@dataclass(frozen=True, kw_only=True, repr=False)
class LinearHead(Head):
    """A classifier ``argmax(W ((x - mean) / scale) + b)``: logistic, linear SVM, softmax, ridge or centroid.

    Parameters
    ----------
    weight : ndarray of float32, shape (k, d)
    bias : ndarray of float32, shape (k,)
    **common
        See `Head`.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    form: ClassVar[str] = "linear"
    tensors: ClassVar[tuple[str, ...]] = ("weight", "bias", "mean", "scale")

    def shapes(self, count: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Return the expected shapes of weight and bias."""
        return {"weight": (count, dim), "bias": (count,)}

    def moved(self, offset: NDArray[np.float64]) -> "LinearHead":
        """Return the head with an offset ``(k,)`` added to its scores."""
        return replace(self, bias=(self.bias + offset).astype(np.float32))

    def decide(self, scaled: Features) -> NDArray[np.float64]:
        """Return ``x W' + b`` of scaled features, summed in float64."""
        scores: NDArray[Any] = scaled @ self.weight.T.astype(np.float64) + self.bias
        return scores

"""Prediction of support vector machines with a Gaussian kernel, without scikit-learn."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.features import Features
from bottleneck.heads.head import Head

_THIRD = 1 / 3  # upper bound of what scikit-learn adds to the votes to break ties


@dataclass(frozen=True, kw_only=True, repr=False)
class KernelHead(Head):
    """A one-vs-one SVM with the kernel ``K(x, v) = exp(-gamma |x - v|^2)`` and support vectors v.

    Parameters
    ----------
    vectors : ndarray of float32, shape (m, d)
        Scaled support vectors, grouped by class.
    dual : ndarray of float64, shape (k - 1, m)
        As LIBSVM's ``sv_coef``: in column j, the coefficients of vector j against the other classes, in their order.
    intercept : ndarray of float64, shape (k (k - 1) / 2,)
        The intercept of each pair of classes, (0, 1), (0, 2), ...
    sizes : ndarray of int64, shape (k,)
        The number of support vectors of each class.
    gamma : float
    **common
        See `Head`.
    """

    vectors: NDArray[np.float32]
    dual: NDArray[np.float64]
    intercept: NDArray[np.float64]
    sizes: NDArray[np.int64]
    gamma: float

    form: ClassVar[str] = "kernel"
    tensors: ClassVar[tuple[str, ...]] = ("vectors", "dual", "intercept", "sizes", "mean", "scale")
    kinds: ClassVar[dict[str, str]] = {"dual": "float64", "intercept": "float64", "sizes": "int64"}
    numbers: ClassVar[tuple[str, ...]] = ("gamma",)

    def shapes(self, count: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Return the expected shapes of the tensors."""
        total = int(self.sizes.sum())
        if (self.sizes < 0).any() or not 0 < self.gamma < np.inf:
            raise HeadError(f"expected sizes and a gamma above 0, got {self.sizes.tolist()} and {self.gamma}")
        pairs = count * (count - 1) // 2
        return {"vectors": (total, dim), "dual": (count - 1, total), "intercept": (pairs,), "sizes": (count,)}

    def decide(self, scaled: Features) -> NDArray[np.float64]:
        """Return the scores ``(n, k)`` of scaled features; for two classes, the decision and its negative."""
        squares = squared_distances(scaled, self.vectors)
        return pairwise_scores(np.exp(-self.gamma * squares), self.dual, self.intercept, self.sizes)


def squared_distances(a: Features, b: Features) -> NDArray[np.float64]:
    """Return ``|a_i - b_j|^2``, float64, shape (n, m), of features (n, d) and (m, d)."""
    centre = b.mean(axis=0, dtype=np.float64).astype(np.float32) if len(b) else np.float32(0)
    a, b = a - centre, b - centre
    one, other = (np.square(x, dtype=np.float64).sum(axis=1) for x in (a, b))
    squares: NDArray[np.float64] = (a @ b.T).astype(np.float64)
    squares *= -2
    squares += one[:, None]
    squares += other
    np.maximum(squares, 0, out=squares)
    return squares


def pairwise_scores(
    kernel: NDArray[np.float64], dual: NDArray[np.float64], intercept: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return scores ``(n, k)`` from the kernel ``(n, m)`` between rows and support vectors.

    As ``sklearn.svm.SVC.decision_function``: each pair of classes votes, and the sum of the decisions, mapped to
    (-1/3, 1/3), breaks ties.
    """
    count = len(sizes)
    ends = np.cumsum(sizes)
    part = [slice(end - size, end) for end, size in zip(ends.tolist(), sizes.tolist(), strict=True)]
    votes, sums = np.zeros((2, len(kernel), count))
    pair = 0
    for i in range(count):
        for j in range(i + 1, count):
            decision = kernel[:, part[i]] @ dual[j - 1, part[i]] + kernel[:, part[j]] @ dual[i, part[j]]
            decision += intercept[pair]
            if count == 2:
                return np.stack([decision, -decision], axis=1)
            votes[:, i] += decision > 0
            votes[:, j] += decision <= 0
            sums[:, i] += decision
            sums[:, j] -= decision
            pair += 1
    scores: NDArray[np.float64] = votes + _THIRD * sums / (np.abs(sums) + 1)
    return scores

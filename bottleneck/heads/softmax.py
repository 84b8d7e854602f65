"""Softmax regression by mini-batch SGD with momentum: the last layer of a network, trained alone.

In NumPy: two products of matrices and some sums a step need no torch, whose import takes longer than most fits.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bottleneck.heads.family import Codes, Family, Weights

_EPOCHS = 40
_BATCH = 64
_RATE = 1.0
_MOMENTUM = 0.9


def fit_path(
    features: NDArray[np.float32], codes: Codes, count: int, grid: Sequence[float], seed: int
) -> list[Weights]:
    """Fit at all C of `grid` at once: they see the same batches, so their products are one.

    Features are divided by ``sqrt(d)``, so that a row has a squared norm near 1 and one learning rate fits every d.
    The rate falls to zero along a cosine.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        Standardised.
    codes : ndarray of int, shape (n,)
        Classes, from 0 to `count` - 1.
    count : int
        k, the number of classes.
    grid : sequence of float, length g
        Values of C.
    seed : int
        Of the order of the rows.

    Returns
    -------
    list of (ndarray of float32 (k, d), ndarray of float32 (k,)), length g
    """
    n, d = features.shape
    width = np.float32(math.sqrt(d))
    decay = np.array([1 / (C * n * d) for C in grid], np.float32).reshape(-1, 1, 1)
    weight, velocity = np.zeros((2, len(grid), count, d), np.float32)
    bias, bias_velocity = np.zeros((2, len(grid), count, 1), np.float32)
    change = np.empty_like(weight)
    random = np.random.default_rng(seed)
    steps, step = _EPOCHS * math.ceil(n / _BATCH), 0
    for _ in range(_EPOCHS):
        order = random.permutation(n)
        for start in range(0, n, _BATCH):
            chosen = order[start : start + _BATCH]
            batch = features[chosen] / width
            error = _shares((weight.reshape(-1, d) @ batch.T).reshape(len(grid), count, -1) + bias)
            error[:, codes[chosen], np.arange(len(chosen))] -= 1
            error /= np.float32(len(chosen))
            np.matmul(error.reshape(-1, len(chosen)), batch, out=change.reshape(-1, d))
            velocity *= np.float32(_MOMENTUM)
            velocity += change
            bias_velocity *= np.float32(_MOMENTUM)
            bias_velocity += error.sum(axis=2, keepdims=True)
            rate = np.float32(_RATE * (1 + math.cos(math.pi * step / steps)) / 2)
            # The penalty is taken as a proximal step, which is stable however strong it is.
            weight -= np.multiply(velocity, rate, out=change)
            weight /= 1 + rate * decay / np.float32(1 - _MOMENTUM)
            bias -= rate * bias_velocity
            step += 1
    bias[:, np.bincount(codes, minlength=count) == 0] = -1e30
    return list(zip(weight / width, bias[..., 0], strict=True))


def _shares(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of scores ``(grid, k, b)`` over the classes, in their place."""
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


FAMILY = Family("softmax", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), fit_path)

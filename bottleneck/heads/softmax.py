"""Softmax regression by mini-batch SGD with momentum, as for the last layer of a network.

Batches come from memory or from the cache, and all C and folds are trained on the same batches in one product. The
result is close, but not equal, to that of ``logistic`` with the same C.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Array, Arrays
from bottleneck.heads.linear_family import LinearFamily, Theta
from bottleneck.heads.objective import relative
from bottleneck.heads.problem import Problem

_RATE = 4.0  # for features with a mean square near 1; with a quarter of this rate, 40 epochs are not enough
_MOMENTUM = 0.9
_LARGEST_BATCH, _SMALLEST_BATCH = 1024, 64
_STEPS = 64  # per epoch; more if batches have the largest size
_MOST_EPOCHS, _LEAST_EPOCHS = 40, 5
_ROWS = 2_000_000  # over all epochs, within the bounds on epochs


class SoftmaxFamily(LinearFamily):
    """Softmax heads.

    Parameters
    ----------
    dropout : float
        Fraction of the features set to 0 at random in each step; the others are scaled up accordingly.
    epochs : int, optional
        Passes over the rows; 40 by default, fewer for more than 50,000 rows.
    """

    name = "softmax"

    def __init__(self, dropout: float = 0.0, epochs: int | None = None) -> None:
        if not 0 <= dropout < 1:
            raise HeadError(f"expected a dropout from 0 to below 1, got {dropout}")
        if epochs is not None and epochs < 1:
            raise HeadError(f"expected at least one epoch, got {epochs}")
        self.dropout, self.epochs = dropout, epochs

    def paths(self, problem: Problem, Cs: Sequence[float], *, exact: bool, start: Theta | None = None) -> Theta:
        """Return weights, see `LinearFamily.paths`; `exact` and `start` are ignored."""
        n = len(problem.codes)
        size = int(np.clip(2 ** math.floor(math.log2(max(1, n / _STEPS))), _SMALLEST_BATCH, _LARGEST_BATCH))
        epochs = self.epochs or int(np.clip(round(_ROWS / n), _LEAST_EPOCHS, _MOST_EPOCHS))
        random = np.random.default_rng(problem.seed)
        learner = _Learner.of(problem, Cs, steps=epochs * math.ceil(n / size))
        for _ in range(epochs):
            for rows, features in problem.scaled.batches(random, size):
                if self.dropout:
                    mask_of_features = random.random(features.shape, np.float32) >= self.dropout
                    features = features * (mask_of_features.astype(np.float32) / np.float32(1 - self.dropout))
                learner.learn(features, problem.codes[rows], problem.weights[rows])
        return learner.theta()


@dataclass
class _Learner:
    """SGD state for each C and fold: weights ``(g, F, k, d)`` for features divided by sqrt(d).

    A divided row has a squared norm near 1, so that one learning rate suits every d. The rate decays to zero along a
    cosine. The penalty is applied as a proximal step, which is stable for any strength.
    """

    arrays: Arrays
    weight: Array
    bias: Array
    velocity: Array
    bias_velocity: Array
    decay: Array  # (g, F, 1, 1)
    shift: Array | None
    gain: Array | None
    mask: Array  # (F, k)
    mean_weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]  # mean weight of a row in each fold
    steps: int
    step: int = 0

    @classmethod
    def of(cls, problem: Problem, Cs: Sequence[float], steps: int) -> "_Learner":
        arrays, d = problem.arrays, problem.scaled.shape[1]
        shape = len(Cs), len(problem.folds), problem.count
        rows = np.maximum(problem.weights.sum(axis=0, dtype=np.float64), 1e-30)
        decay = 1 / (np.array(Cs)[:, None] * rows * d)
        shift = gain = None
        if problem.scaled_by_rows and len(problem.folds) > 1:
            shift, gain = (arrays.put(one[:, None]) for one in relative(problem.scaling, problem.fold_scalings))
        return cls(
            arrays=arrays,
            weight=arrays.zeros(*shape, d),
            bias=arrays.zeros(*shape),
            velocity=arrays.zeros(*shape, d),
            bias_velocity=arrays.zeros(*shape),
            decay=arrays.put(decay.astype(np.float32)[..., None, None]),
            shift=shift,
            gain=gain,
            mask=arrays.put(np.where(problem.present, 0, -1e30).astype(np.float32)),
            mean_weight=np.maximum(problem.weights.mean(axis=0), np.float32(1e-30)),
            steps=steps,
        )

    def learn(self, features: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> None:
        """Take one step with features ``(b, d)``, classes ``(b,)`` and weights in the folds ``(b, F)``."""
        put, xp = self.arrays.put, self.arrays.xp
        g, folds, count, d = self.weight.shape
        width = math.sqrt(d)
        block = put(features)
        weight, bias = self.weight, self.bias + self.mask
        if self.gain is not None:
            weight = weight * self.gain
            bias = bias - (weight * self.shift).sum(axis=3) / width
        scores = (block @ weight.reshape(-1, d).T).reshape(len(features), g, folds, count)
        scores /= width
        scores += bias
        scores -= xp.amax(scores, axis=3, keepdims=True)
        error = xp.exp(scores)
        error /= error.sum(axis=3, keepdims=True)
        error[self.arrays.range(len(codes)), :, :, put(codes)] -= 1
        error *= put(weights / (self.mean_weight * np.float32(len(codes))))[:, None, :, None]
        change = (error.reshape(len(features), -1).T @ block).reshape(self.weight.shape)
        change /= width
        bias_change = error.sum(axis=0)
        if self.gain is not None and self.shift is not None:
            change -= bias_change[..., None] * (self.shift / width)
            change *= self.gain
        rate = _RATE * (1 + math.cos(math.pi * self.step / self.steps)) / 2
        self.velocity *= _MOMENTUM
        self.velocity += change
        self.bias_velocity *= _MOMENTUM
        self.bias_velocity += bias_change
        self.weight -= rate * self.velocity
        self.weight /= 1 + rate / (1 - _MOMENTUM) * self.decay
        self.bias -= rate * self.bias_velocity
        self.step += 1

    def theta(self) -> Theta:
        """Return the weights for features scaled by the fold, the bias last."""
        weight, bias = self.arrays.get(self.weight), self.arrays.get(self.bias)
        return np.concatenate([weight / np.float32(math.sqrt(weight.shape[3])), bias[..., None]], axis=3)


make = SoftmaxFamily

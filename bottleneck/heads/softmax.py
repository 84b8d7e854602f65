"""Softmax regression by mini-batch SGD in PyTorch: the last layer of a network, trained alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch
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
    """
    n, d = features.shape
    rows = torch.from_numpy(features) / math.sqrt(d)
    targets = torch.from_numpy(codes)
    decay = torch.tensor([1 / (C * n * d) for C in grid], dtype=torch.float32).view(-1, 1, 1)
    weight = torch.zeros(len(grid), count, d)
    bias = torch.zeros(len(grid), count, 1)
    velocity, bias_velocity = torch.zeros_like(weight), torch.zeros_like(bias)
    generator = torch.Generator().manual_seed(seed)
    steps, step = _EPOCHS * math.ceil(n / _BATCH), 0
    with torch.inference_mode():
        for _ in range(_EPOCHS):
            for chosen in torch.split(torch.randperm(n, generator=generator), _BATCH):
                batch, wanted = rows[chosen], targets[chosen]
                error = torch.softmax(weight @ batch.T + bias, dim=1)  # (grid, k, batch)
                error[:, wanted, torch.arange(len(chosen))] -= 1
                error /= len(chosen)
                velocity.mul_(_MOMENTUM).add_(error @ batch)
                bias_velocity.mul_(_MOMENTUM).add_(error.sum(dim=2, keepdim=True))
                rate = _RATE * (1 + math.cos(math.pi * step / steps)) / 2
                # The penalty is taken as a proximal step, which is stable however strong it is.
                weight = (weight - rate * velocity) / (1 + rate * decay / (1 - _MOMENTUM))
                bias -= rate * bias_velocity
                step += 1
    absent = torch.tensor([code not in set(codes.tolist()) for code in range(count)])
    bias[:, absent] = -1e30
    return [(w.numpy(), b.numpy()) for w, b in zip(weight / math.sqrt(d), bias.squeeze(2), strict=True)]


FAMILY = Family("softmax", (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), fit_path)

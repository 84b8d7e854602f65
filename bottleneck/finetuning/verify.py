"""Verification before the first step: the network predicts what its head predicts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import TuningError
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.handback import Agreement, LinearLayer, agreement
from bottleneck.finetuning.loaders import ImageLoader
from bottleneck.finetuning.network import Network
from bottleneck.heads.head import softmax
from bottleneck.images.dataset import Dataset
from bottleneck.utils.text import counted

Features = NDArray[np.float32]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The held-out accuracy of a network before the first step.

    Parameters
    ----------
    accuracy : float
        Of the network, in fp32.
    head_accuracy : float or None
        Of the head on its cached features; None if the last layer is random.
    precision : str
        Of these features.
    agreement : Agreement or None
        Of the network and the head.
    right : ndarray of bool, shape (n,)
        Whether the network classifies each held-out image correctly.
    """

    accuracy: float
    head_accuracy: float | None
    precision: str
    agreement: Agreement | None
    right: NDArray[np.bool_] = field(repr=False, compare=False)


def verify_start(context: FineTuningContext) -> Start:
    """Compare the predictions of the network on the held-out images with those of its head.

    Raises
    ------
    TuningError
        If a predicted label, or a probability by more than 1e-4, differs between the network in fp32 and its head on
        the cached features. If the cached features were rounded to bfloat16, the head is compared on the network's
        own features instead.
    """
    initial, network, heldout = context.initial, context.network, context.partition.heldout
    store, classes = initial.cached.store, initial.classes
    features = trunk_features(network, heldout, str(context.device))
    probabilities = layer_probabilities(network.layer(), features)
    right, precision = correct(probabilities, heldout, classes), store.spec.precision
    if initial.run is None:
        return Start(accuracy=float(right.mean()), head_accuracy=None, precision=precision, agreement=None, right=right)
    head, cached = initial.run.head, store.read(heldout.digests)
    head_probabilities = head.probabilities(cached)
    found = agreement(probabilities, head_probabilities)
    on_own_features = agreement(probabilities, head.probabilities(features))
    if not (found.exact if precision == "fp32" else on_own_features.exact):
        raise TuningError(
            f"expected the network to predict what its head predicts for {counted(found.images, 'held-out image')}, "
            f"found {found.other_labels} other labels and probabilities that differ by up to {found.largest:.2g} "
            f"({on_own_features.largest:.2g} on the network's own features, lowest cosine of features "
            f"{_lowest_cosine(features, cached):.6f}): extract and fit again, with --engine torch --precision fp32"
        )
    return Start(
        accuracy=float(right.mean()),
        head_accuracy=float(correct(head_probabilities, heldout, classes).mean()),
        precision=precision,
        agreement=found,
        right=right,
    )


def trunk_features(network: Network, dataset: Dataset, device: str | None) -> Features:
    """Return the features ``(n, d)`` of images that the trunk of a network in eval mode computes in fp32."""
    images = ImageLoader(dataset, network.backbone.spec.preprocessing)
    found = np.empty((len(dataset), network.backbone.dim), np.float32)
    backbone = replace(network.backbone, network=network.trunk)
    with closing(TorchEngine(backbone, device=device)) as engine, ThreadPoolExecutor(engine.parallel) as pool:
        batches = images.pixels(0, engine.batch_size)
        waiting = []
        for rows, pixels in batches:
            waiting.append((rows, pool.submit(engine, pixels)))
            if len(waiting) > 2 * engine.parallel:
                rows, done = waiting.pop(0)
                found[rows] = done.result()
        for rows, done in waiting:
            found[rows] = done.result()
    return found


def layer_probabilities(layer: LinearLayer, features: Features) -> Probabilities:
    """Return the probabilities ``(n, k)`` of features ``(n, d)`` under a linear layer, computed in fp32."""
    with torch.no_grad():
        logits = torch.nn.functional.linear(*map(torch.from_numpy, (features, layer.weight, layer.bias)))
    return softmax(logits.numpy().astype(np.float64))


def correct(probabilities: Probabilities, dataset: Dataset, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Return whether the most probable class of each image is its label, ``(n,)``."""
    predicted = [classes[code] for code in probabilities.argmax(axis=1)]
    return np.array([label == guess for label, guess in zip(dataset.labels, predicted, strict=True)], bool)


def _lowest_cosine(features: Features, others: Features) -> float:
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(others, axis=1)
    return float(((features * others).sum(axis=1) / np.maximum(lengths, 1e-30)).min())

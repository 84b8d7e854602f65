"""Before the first step: the network says what the head said, and this is proven, not hoped."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bottleneck.engines.torch_engine import TorchEngine
from bottleneck.errors import TuningError
from bottleneck.finetuning.handback import Agreement, Layer, agreement
from bottleneck.finetuning.initial import InitialState
from bottleneck.finetuning.loaders import Images
from bottleneck.finetuning.network import Network
from bottleneck.heads.head import softmax
from bottleneck.images.dataset import Dataset
from bottleneck.utils.text import counted

Features = NDArray[np.float32]
Probabilities = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a network does before the first step.

    Parameters
    ----------
    accuracy : float
        Of the network, in fp32, on the held-out images.
    head_accuracy : float or None
        Of the head that was handed back, on its features; None where the last layer is random.
    precision : str
        Of these features.
    agreement : Agreement or None
        Of the network and the head.
    right : ndarray of bool, shape (n,)
        Whether the network is right about each held-out image.
    """

    accuracy: float
    head_accuracy: float | None
    precision: str
    agreement: Agreement | None
    right: NDArray[np.bool_] = field(repr=False, compare=False)


def start(origin: InitialState, network: Network, heldout: Dataset, device: str | None) -> Start:
    """Run the network over the held-out images, and hold what it says against its head.

    Raises
    ------
    TuningError
        If a network in fp32 with a head on features in fp32 has another label of any image, or a probability that
        differs by more than 1e-4. With a head on features in bfloat16, which are rounded, the same must hold of the
        head on the network's own features.
    """
    features = features_of(network, heldout, device)
    probabilities = probabilities_of(network.layer(), features)
    right, precision = right_of(probabilities, heldout, origin.classes), origin.store.spec.precision
    if origin.run is None:
        return Start(accuracy=float(right.mean()), head_accuracy=None, precision=precision, agreement=None, right=right)
    head, cached = origin.run.head, origin.store.read(heldout.digests)
    of_head = head.probabilities(cached)
    found = agreement(probabilities, of_head)
    folded = agreement(probabilities, head.probabilities(features))
    if not (found.exact if precision == "fp32" else folded.exact):
        raise TuningError(
            f"expected the network to say of {counted(found.images, 'held-out image')} what its head says, found "
            f"{found.other_labels} other labels and probabilities that differ by up to {found.largest:.2g} "
            f"({folded.largest:.2g} on the network's own features, lowest cosine of features "
            f"{_lowest_cosine(features, cached):.6f}): extract and fit again, with --engine torch --precision fp32"
        )
    return Start(
        accuracy=float(right.mean()),
        head_accuracy=float(right_of(of_head, heldout, origin.classes).mean()),
        precision=precision,
        agreement=found,
        right=right,
    )


def features_of(network: Network, dataset: Dataset, device: str | None) -> Features:
    """Return what the trunk of a network in eval mode makes of images, ``(n, d)``, in fp32."""
    images = Images(dataset, network.backbone.spec.preprocessing)
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


def probabilities_of(layer: Layer, features: Features) -> Probabilities:
    """Return the probabilities ``(n, k)`` that a linear layer, computed in fp32, gives features ``(n, d)``."""
    with torch.no_grad():
        logits = torch.nn.functional.linear(*map(torch.from_numpy, (features, layer.weight, layer.bias)))
    return softmax(logits.numpy().astype(np.float64))


def right_of(probabilities: Probabilities, dataset: Dataset, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Return for each image whether its most probable class is its label, ``(n,)``."""
    predicted = [classes[code] for code in probabilities.argmax(axis=1)]
    return np.array([label == guess for label, guess in zip(dataset.labels, predicted, strict=True)], bool)


def _lowest_cosine(features: Features, others: Features) -> float:
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(others, axis=1)
    return float(((features * others).sum(axis=1) / np.maximum(lengths, 1e-30)).min())

"""A linear head and its feature scaling as one layer of a network."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, HeadError, TuningError
from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.options import HeadOptions
from bottleneck.images.dataset import Dataset
from bottleneck.runs.run import Run
from bottleneck.utils.names import written

_LARGEST_DIFFERENCE = 1e-4  # of a probability, between a network and the head that it was given


@dataclass(frozen=True)
class Layer:
    """A linear layer: the logits of features x are ``weight x + bias``.

    Parameters
    ----------
    weight : ndarray of float32, shape (k, d)
    bias : ndarray of float32, shape (k,)
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def why_not(run: Run) -> str | None:
    """Return why the head of a run cannot become a layer of its network, and what to do; None where it can."""
    spec, head = run.card["spec"], run.card.get("head")
    if run.is_tuned:
        return (
            f"{run.name} is fine-tuned already: extract with --weights {written(run.path)}, fit a head on these "
            f"features, and fine-tune that"
        )
    if run.is_final:
        return (
            "it was fitted with --final, on the held-out images too, so nothing would test its network: fit without "
            "--final, and fine-tune that"
        )
    if run.card.get("params", {}).get("kernel", "linear") != "linear" or head == "knn":
        kind = "a head with an rbf kernel" if head == "svm" else f"a {head} head"
        return f"{kind} is no linear layer: fit another, with --head logistic, softmax or svm"
    if run.card.get("normalize") == "l2":
        return "it was fitted with --normalize l2, by which no linear layer can divide: fit with --normalize auto"
    if spec.get("flip"):
        return "its features are means over images and their mirror images: extract without --flip, and fit again"
    return None


def folded(head: Head) -> Layer:
    """Fold the scaling of a linear head and its calibration into its weights.

    The head's probabilities are ``softmax(s (W ((x - mean) / scale) + b))`` with its sharpness s; so
    ``weight = s W / scale`` and ``bias = s (b - W (mean / scale))``.

    Raises
    ------
    TuningError
        If the head is not linear in the features.
    """
    if not isinstance(head, LinearHead) or head.unit:
        raise TuningError(f"expected a linear head on features as they are, got a {head.family} head ({head.form})")
    weight = head.sharpness * head.weight.astype(np.float64) / head.scale.astype(np.float64)
    bias = head.sharpness * head.bias.astype(np.float64) - weight @ head.mean.astype(np.float64)
    return Layer(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True)
class Agreement:
    """How near the predictions of a network are to those of a head, on the same images.

    Parameters
    ----------
    images : int
    other_labels : int
        Images whose labels differ.
    largest : float
        The largest difference of two probabilities.
    """

    images: int
    other_labels: int
    largest: float

    @property
    def exact(self) -> bool:
        """Whether every label is the same, and every probability within 1e-4."""
        return not self.other_labels and self.largest <= _LARGEST_DIFFERENCE


def agreement(probabilities: NDArray[np.float64], others: NDArray[np.float64]) -> Agreement:
    """Compare probabilities ``(n, k)`` of the same images."""
    if not len(probabilities):
        return Agreement(0, 0, 0.0)
    differ = probabilities.argmax(axis=1) != others.argmax(axis=1)
    return Agreement(len(probabilities), int(differ.sum()), float(np.abs(probabilities - others).max()))


def refitted(run: Run, train: Dataset, store: Store) -> Head:
    """Search and fit the head of a run again, with its options, on some of its training images.

    Where that cannot be done, on a single image of a class, say, the head stays as it is, with a warning: the
    validation images then are among those that it was fitted on, and flatter it.
    """
    try:
        return refit(run, train, store)
    except HeadError as error:
        warnings.warn(
            f"the head was fitted on the images that validate, which flatters it, and cannot be fitted without them "
            f"({error}): give folders train/, val/ and test/ for a fair choice of the epoch",
            BottleneckWarning,
            stacklevel=2,
        )
        return run.head


def refit(run: Run, train: Dataset, store: Store) -> Head:
    """Search and fit the head of a run again, with its options, on some of its training images.

    C is chosen anew: one that was just right for classes of one size may let the bias decide where a few images are
    gone.

    Raises
    ------
    HeadError
        If that cannot be done, or a class has no image left.
    """
    card, params = run.card, run.recorded("params")
    search = card.get("search", {})
    options = HeadOptions(
        C=search.get("C"),
        folds=search.get("folds", 5),
        search=search.get("search", "fast"),
        normalize=run.recorded("normalize"),
        select=search.get("select", "simplest"),  # as all were chosen before it was written down
        class_weight=card.get("class_weight"),
        dropout=params.get("dropout", 0.0),
        epochs=params.get("epochs"),
        seed=run.recorded("seed"),
    )
    labels = [str(label) for label in train.labels]
    found = options.searched(card["head"], store.read(train.digests), labels, train.groups, store.spec.fingerprint)
    if found.head.classes != run.head.classes:
        raise HeadError("a class is gone")
    return found.head

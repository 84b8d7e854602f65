"""LP-FT hand-back: a linear head and its feature scaling become the last layer of its network."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import HeadError, TuningError
from bottleneck.heads.head import Head
from bottleneck.heads.linear import LinearHead
from bottleneck.heads.options import HeadOptions
from bottleneck.images.dataset import Dataset
from bottleneck.runs.run import Run
from bottleneck.utils.names import written
from bottleneck.utils.warn import warn

_TOLERANCE = 1e-4  # the largest difference of a probability between a network and its head


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer: the logits of features x are ``weight x + bias``.

    Parameters
    ----------
    weight : ndarray of float32, shape (k, d)
    bias : ndarray of float32, shape (k,)
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def handback_obstacle(run: Run) -> str | None:
    """Return why the head of a run cannot become a layer of its network, and what to do; None if it can."""
    spec, head = run.card["spec"], run.card.get("head")
    if run.is_tuned:
        return (
            f"{run.name} is fine-tuned already: extract with --weights {written(run.path)}, fit a head on these "
            f"features, and fine-tune that"
        )
    if run.is_final:
        return (
            "it was fitted with --final on all images, which leaves none to test the network: fit without --final, and "
            "fine-tune that"
        )
    if run.card.get("params", {}).get("kernel", "linear") != "linear" or head == "knn":
        kind = "a head with an rbf kernel" if head == "svm" else f"a {head} head"
        return f"{kind} is not a linear layer: fit another one with --head logistic, softmax or svm"
    if run.card.get("normalize") == "l2":
        return "it was fitted with --normalize l2, which a linear layer cannot compute: fit with --normalize auto"
    if spec.get("flip"):
        return "its features are means over images and their mirror images: extract without --flip, and fit again"
    return None


def fold_head(head: Head) -> LinearLayer:
    """Fold the feature scaling and the calibration of a linear head into its weights.

    The head's probabilities are ``softmax(s (W ((x - mean) / scale) + b))`` with its
    inverse temperature s; so ``weight = s W / scale`` and ``bias = s (b - W (mean / scale))``.

    Raises
    ------
    TuningError
        If the head is not linear in the features.
    """
    if not isinstance(head, LinearHead) or head.unit:
        raise TuningError(f"expected a linear head on unnormalised features, got a {head.family} head ({head.form})")
    weight = head.inverse_temperature * head.weight.astype(np.float64) / head.scale.astype(np.float64)
    bias = head.inverse_temperature * head.bias.astype(np.float64) - weight @ head.mean.astype(np.float64)
    return LinearLayer(weight.astype(np.float32), bias.astype(np.float32))


@dataclass(frozen=True)
class Agreement:
    """How closely the predictions of a network match those of a head on the same images.

    Parameters
    ----------
    images : int
    other_labels : int
        Images whose predicted labels differ.
    largest : float
        The largest absolute difference of a probability.
    """

    images: int
    other_labels: int
    largest: float

    @property
    def exact(self) -> bool:
        """Whether all labels are equal, and all probabilities within 1e-4."""
        return not self.other_labels and self.largest <= _TOLERANCE


def agreement(probabilities: NDArray[np.float64], others: NDArray[np.float64]) -> Agreement:
    """Compare two arrays of probabilities ``(n, k)`` of the same images."""
    if not len(probabilities):
        return Agreement(0, 0, 0.0)
    differ = probabilities.argmax(axis=1) != others.argmax(axis=1)
    return Agreement(len(probabilities), int(differ.sum()), float(np.abs(probabilities - others).max()))


def refit_or_keep(run: Run, train: Dataset, store: Store) -> Head:
    """Refit the head of a run on some of its training images; see `refit_head`.

    If that fails, for example if only one image of a class is left, warn and return the head itself, whose training
    images then include the validation images.
    """
    try:
        return refit_head(run, train, store)
    except HeadError as error:
        warn(
            f"the head cannot be fitted without the validation images ({error}), so its validation accuracy is "
            f"optimistic: give folders train/, val/ and test/ to select the epoch fairly"
        )
        return run.head


def refit_head(run: Run, train: Dataset, store: Store) -> Head:
    """Search and fit the head of a run again, with its options, on some of its training images.

    C is searched again: a value that suited balanced classes may let the bias dominate once a few images are removed.

    Raises
    ------
    HeadError
        If the head cannot be fitted, or a class has no image left.
    """
    card, params = run.card, run.recorded("params")
    search = card.get("search", {})
    options = HeadOptions(
        C=search.get("C"),
        folds=search.get("folds", 5),
        search=search.get("search", "fast"),
        normalize=run.recorded("normalize"),
        select=search.get("select", "simplest"),  # the rule of versions that did not record it
        class_weight=card.get("class_weight"),
        dropout=params.get("dropout", 0.0),
        epochs=params.get("epochs"),
        seed=run.recorded("seed"),
    )
    labels = [str(label) for label in train.labels]
    found = options.search_head(card["head"], store.read(train.digests), labels, train.groups, store.spec.fingerprint)
    if found.head.classes != run.head.classes:
        raise HeadError("a class has no image left")
    return found.head

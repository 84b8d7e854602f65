"""The familiarity of images to the training images of a fine-tuned network, and its prediction sets."""

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.evaluation.familiarity import familiarity, reference_rows, representative
from bottleneck.finetuning.context import FineTuningContext
from bottleneck.finetuning.verify import trunk_features
from bottleneck.fitting.uncertainty import conformal
from bottleneck.heads.linear import LinearHead
from bottleneck.images.dataset import Dataset
from bottleneck.runs.uncertainty import Uncertainty

_REFERENCES = 2000  # training images whose features the new network computes, which takes longer than their comparison

Features = NDArray[np.float32]


def uncertainty_of(
    context: FineTuningContext, head: LinearHead, probabilities: NDArray[np.float64], *, changed: bool
) -> Uncertainty:
    """Return how familiar images are to the training images of a network, and its prediction sets.

    Both are calibrated on the validation images, which selected the epoch, but were not trained on. If no weight of the
    backbone has changed, and none was fine-tuned before, familiarity is calibrated on the training images, as by `fit`.

    Parameters
    ----------
    context : FineTuningContext
    head : LinearHead
        The head of the run.
    probabilities : ndarray of float64, shape (v, k)
        Of the validation images.
    changed : bool
        Whether the features are those of a new network.
    """
    train, val = context.partition.train, context.partition.val
    labels = [str(label) for label in train.labels]
    store, seed = context.initial.cached.store, context.recipe.seed
    rows = reference_rows(labels, _REFERENCES, seed) if changed else reference_rows(labels, seed=seed)
    own = train.subset(rows.tolist())
    is_fitted = changed or recorded_tuned(store.folder) is not None

    def features(images: Dataset) -> Features:
        if changed:
            return trunk_features(context.network, images, str(context.device))
        return store.read(images.digests)

    usual = familiarity(
        features(own),
        [str(label) for label in own.labels],
        own.groups,
        unseen=features(val) if is_fitted else None,
        calibrates=representative(labels, rows),
        seed=seed,
    )
    return Uncertainty(usual, conformal(head, probabilities, [str(label) for label in val.labels]))

"""The head of `fit --final`: trained on all labelled images after another head was tested."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from bottleneck.fitting.partition import LabelledFeatures, once
from bottleneck.fitting.train import Trained, score_head
from bottleneck.heads.features import InMemoryFeatures
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.refit import refit
from bottleneck.images.dataset import Dataset
from bottleneck.images.keys import DigestSet
from bottleneck.images.naming import examples
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.text import counted
from bottleneck.utils.warn import warn


@dataclass(frozen=True, kw_only=True)
class FinalHead:
    """A head that is trained on all images of the classes of a tested head.

    Parameters
    ----------
    head : Head
    images : Dataset
        The images that it was trained on, each once.
    card : dict
        Its part of a run's card: ``n_train``, the number of its training images; ``agreement``, the share of the
        held-out images for which both heads predict the same label; its ``sharpness`` and ``streamed``, which elsewhere
        in the card are those of the tested head; and ``tested_sha256``, the hash of the file of the tested head, which
        is not saved.
    """

    head: Head
    images: Dataset
    card: dict[str, Any]


def images_of_known_classes(usable: Dataset, train: LabelledFeatures) -> Dataset:
    """Return the images that a final head is trained on, each once: all images of the classes of the training split.

    A class without training images is left out, as in the tested head: its accuracy would be unknown, and an additional
    class changes the probabilities of all others.

    Parameters
    ----------
    usable : Dataset
        Images of all splits, with one label each.
    train : LabelledFeatures

    Warns
    -----
    BottleneckWarning
        If there is such a class.
    """
    images, classes = once(usable), set(train.labels)
    unknown = Counter(str(label) for label in images.labels if label not in classes)
    if unknown:
        warn(
            f"no training image of {examples(sorted(unknown))}: the final head is not trained on its "
            f"{counted(unknown.total(), 'image')} in other splits either, because no test covers the class. Move some "
            f"into the training split"
        )
    return images.subset(row for row, label in enumerate(images.labels) if label in classes)


def train_final(
    head: str,
    options: HeadOptions,
    trained: Trained,
    train: LabelledFeatures,
    test: LabelledFeatures,
    whole: LabelledFeatures,
) -> FinalHead:
    """Train a head on all images, with the parameters of the tested head.

    Parameters
    ----------
    head : str
    options : HeadOptions
        The options of the tested head.
    trained : Trained
        The tested head and its search.
    train, test : LabelledFeatures
        The images that it was trained on, and tested on.
    whole : LabelledFeatures
        All images, see `images_of_known_classes`.

    Raises
    ------
    HeadError
        If the parameters of the head are not finite.
    """
    found = refit(
        trained.head,
        options.family(head),
        trained.search.params,
        whole.table,
        whole.labels,
        seen=DigestSet(train.dataset.digests).find(whole.dataset.digests) >= 0,
        groups=whole.dataset.groups,
        folds=options.folds,
        normalize=trained.search.normalize,
        balanced=options.class_weight == "balanced",
        seed=options.seed,
        device=options.device,
    )
    agrees = np.array(score_head(found, test).predicted) == np.array(trained.predicted)
    card = {
        "n_train": len(whole),
        "agreement": float(agrees.mean()),
        "sharpness": found.inverse_temperature,
        "streamed": not isinstance(whole.table, InMemoryFeatures),
        "tested_sha256": sha256_hex(trained.head.to_bytes()),
    }
    return FinalHead(head=found, images=whole.dataset, card=card)

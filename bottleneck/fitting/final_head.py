"""The head that `fit --final` delivers: trained on all labelled images, once another has been tested for it."""

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
        Those that it was trained on, each once.
    card : dict
        What a run's card says of it: ``n_train``, the images that it was trained on; ``agreement``, the share of the
        held-out images of which both heads say the same; ``sharpness`` and ``streamed``, which outside of this are
        those of the tested head; and ``tested_sha256``, of the tested head's file, which is not kept.
    """

    head: Head
    images: Dataset
    card: dict[str, Any]


def images_of_known_classes(usable: Dataset, train: LabelledFeatures) -> Dataset:
    """Return all images that a final head is trained on, each once: those of the classes of the training part.

    A class without training images is left out, as it is of the tested head: nothing tells how well it would do, and
    one more class changes the probabilities of all others.

    Parameters
    ----------
    usable : Dataset
        Labelled images, each under one label, in all splits.
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
            f"no training image of {examples(sorted(unknown))}: the final head does not learn "
            f"{counted(unknown.total(), 'image')} of other splits either, as nothing would test it on such a class. "
            f"Move some into the training part"
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
    """Train a head with the parameters of the tested one on all images.

    Parameters
    ----------
    head : str
    options : HeadOptions
        Those of the tested head.
    trained : Trained
        The tested head and its search.
    train, test : LabelledFeatures
        What that head was trained on, and tested on.
    whole : LabelledFeatures
        All images that are trained on now, see `images_of_known_classes`.

    Raises
    ------
    HeadError
        If nothing finite comes of it.
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
    same = np.array(score_head(found, test).predicted) == np.array(trained.predicted)
    card = {
        "n_train": len(whole),
        "agreement": float(same.mean()),
        "sharpness": found.sharpness,
        "streamed": not isinstance(whole.table, InMemoryFeatures),
        "tested_sha256": sha256_hex(trained.head.to_bytes()),
    }
    return FinalHead(head=found, images=whole.dataset, card=card)

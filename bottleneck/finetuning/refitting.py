"""A head fitted again without the images that now validate, so that they can tell one epoch from another."""

import warnings

from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, HeadError
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.images.dataset import Dataset
from bottleneck.runs.run import Run


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

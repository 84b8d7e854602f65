"""From the training images of a head to the familiarity of other images, and to prediction sets."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.cache.store import Store
from bottleneck.evaluation.conformal import Conformal
from bottleneck.evaluation.familiarity import REFERENCES, familiarity, reference_rows, representative
from bottleneck.fitting.partition import LabelledFeatures, part
from bottleneck.fitting.train import Trained
from bottleneck.heads.head import Head
from bottleneck.images.dataset import Dataset
from bottleneck.runs.images import Role
from bottleneck.runs.run import images_of_weights
from bottleneck.runs.uncertainty import Uncertainty
from bottleneck.utils.warn import warn

Features = NDArray[np.float32]


def uncertainty_of(
    trained: Trained, train: LabelledFeatures, references: LabelledFeatures, unseen: LabelledFeatures | None, seed: int
) -> Uncertainty:
    """Return how familiar images are to the training images of a head, and its prediction sets.

    Parameters
    ----------
    trained : Trained
        The tested head.
    train : LabelledFeatures
        The images that it was trained on.
    references : LabelledFeatures
        The images that the saved head was trained on, of which at most 10,000 are used.
    unseen : LabelledFeatures, optional
        The images to calibrate with, see `unseen_by_network`; by default the training images, each compared with
        others and classified by a head of other folds.
    seed : int
    """
    rows = reference_rows(references.labels, seed=seed)
    own = references.dataset.subset(rows.tolist())
    aside = None if unseen is None else unseen.table.take(np.arange(min(len(unseen), REFERENCES)))
    usual = familiarity(
        references.table.take(rows),
        [str(label) for label in own.labels],
        own.groups,
        unseen=aside,
        calibrates=representative(references.labels, rows),
        seed=seed,
    )
    if aside is None or unseen is None:
        labels = [train.labels[row] for row in trained.search.rows.tolist()]
        return Uncertainty(usual, conformal(trained.head, trained.search.probabilities, labels))
    return Uncertainty(usual, conformal(trained.head, trained.head.probabilities(aside), unseen.labels[: len(aside)]))


def conformal(head: Head, probabilities: NDArray[np.float64], labels: list[str]) -> Conformal:
    """Return the prediction sets of a head from probabilities ``(c, k)`` of images that it was not trained on.

    Images whose label is not a class of the head are left out.
    """
    code = {name: place for place, name in enumerate(head.classes)}
    codes = np.array([code.get(label, -1) for label in labels], np.intp)
    return Conformal.of(probabilities[codes >= 0], codes[codes >= 0])


def unseen_by_network(
    usable: Dataset, store: Store, heldout: str, runs: Path, *, final: bool, memory: int | None
) -> LabelledFeatures | None:
    """Return validation images that a fine-tuned backbone was not trained on; None for any other backbone.

    Training images are closer to each other in the features of a network that was trained on them than they are to
    new images, and their classes are more certain.

    Parameters
    ----------
    usable : Dataset
    store : Store
        The features of the head.
    heldout : str
        The held-out split, which is only for tests.
    runs : Path
        The folder of all runs.
    final : bool
        Whether the head is trained on all images, so that none is left.
    memory : int, optional
        As for `bottleneck.fitting.partition.part`.

    Warns
    -----
    BottleneckWarning
        If the backbone is fine-tuned and there is no such image.
    """
    if recorded_tuned(store.folder) is None:
        return None
    known = images_of_weights(store.asked(), runs)
    if heldout != "val" and not final and known is not None:
        seen = known.role_of(usable.digests) == Role.TRAINED
        digests = [digest.tobytes() for digest in usable.digests]
        own = {digest for digest, split in zip(digests, usable.splits, strict=True) if split == "train"}
        rows = [row for row, digest in enumerate(digests) if not seen[row] and digest not in own]
        found = part(usable.subset(rows), store, "val", memory=memory)
        if len(found):
            return found
    warn(
        f"{store.short_name} are features of a fine-tuned network, and no validation image is left that it was not "
        f"trained on: predict will call more images unfamiliar than stated, and its sets contain the label less often"
    )
    return None


def uncertainty_card(found: Uncertainty, *, tuned: bool) -> dict[str, object]:
    """Return the part of a run's card about the references and the calibration images.

    Parameters
    ----------
    found : Uncertainty
    tuned : bool
        Whether the backbone was fine-tuned; the calibration is then optimistic unless it used unseen images.
    """
    return {
        "references": len(found.familiarity.references),
        "calibrated": len(found.familiarity.calibration),
        "calibrated_sets": len(found.conformal.scores),
        "unseen": found.familiarity.unseen,
        "optimistic": tuned and not found.familiarity.unseen,
    }

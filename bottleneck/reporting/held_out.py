"""The held-out images of a run, with what it predicts for each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckError
from bottleneck.heads.features import StreamedFeatures
from bottleneck.images.keys import as_digests
from bottleneck.runs.run import Run

TOP = 3  # classes of an image that are shown
_ROWS = 4096  # images that are classified at once
_ROUNDING = 1e-5  # of the probabilities in predictions.csv

Cell = tuple[str, str]  # label, prediction


@dataclass(frozen=True, kw_only=True)
class HeldOutImage:
    """A held-out image and its prediction.

    Parameters
    ----------
    digest : str
        Hexadecimal.
    label, predicted : str
    probability : float
        Of the predicted class.
    top : tuple of (str, float)
        The most probable classes with their probabilities; only the predicted one if the others are unknown.
    familiarity : float or None
        None if it is unknown.
    """

    digest: str
    label: str
    predicted: str
    probability: float
    top: tuple[tuple[str, float], ...]
    familiarity: float | None = None

    @property
    def is_right(self) -> bool:
        """Whether the prediction is the label."""
        return self.label == self.predicted


@dataclass(frozen=True)
class HeldOutImages(Sequence[HeldOutImage]):
    """All held-out images, each once.

    Parameters
    ----------
    images : tuple of HeldOutImage
    remark : str
        Why probabilities of other classes, and familiarities, are unknown; empty if they are known.
    """

    images: tuple[HeldOutImage, ...]
    remark: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        return self.images[index]

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of each predicted class, ``(n,)``."""
        return np.array([one.probability for one in self.images])

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether each prediction is right, ``(n,)``."""
        return np.array([one.is_right for one in self.images], np.bool_)

    @cached_property
    def cells(self) -> dict[Cell, list[HeldOutImage]]:
        """The images of each cell of the confusion matrix, the most confident prediction first."""
        found: defaultdict[Cell, list[HeldOutImage]] = defaultdict(list)
        for one in sorted(self.images, key=lambda one: (-one.probability, one.digest)):
            found[one.label, one.predicted].append(one)
        return dict(found)

    def mistakes(self) -> list[HeldOutImage]:
        """Return the images that are predicted wrongly, the most confident prediction first."""
        return sorted((one for one in self.images if not one.is_right), key=lambda one: (-one.probability, one.digest))

    def uncertain(self) -> list[HeldOutImage]:
        """Return the images that are predicted correctly, the least confident prediction first."""
        return sorted((one for one in self.images if one.is_right), key=lambda one: (one.probability, one.digest))

    def unfamiliar(self) -> list[HeldOutImage]:
        """Return the images whose familiarity is known, the least familiar first."""
        known = (one for one in self.images if one.familiarity is not None)
        return sorted(known, key=lambda one: (one.familiarity, one.digest))


def held_out_images(run: Run, store: Store | None) -> HeldOutImages:
    """Return the held-out images of a run; probabilities of all classes are predicted again from cached features.

    Parameters
    ----------
    run : Run
    store : Store or None
        The features of its head; None if there are none.
    """
    images = tuple({one.digest: one for one in _recorded(run)}.values())
    if run.is_final:
        return HeldOutImages(images, "The head in this run was trained on the held-out images after its test.")
    with suppress(BottleneckError):
        if store is not None and store.has(_digests(images)).all():
            return HeldOutImages(tuple(_classified(run, store, images)))
    return HeldOutImages(images, "The features of the held-out images are not in the cache.")


def _recorded(run: Run) -> Iterator[HeldOutImage]:
    for row in run.predictions:
        share = float(row["probability"])
        yield HeldOutImage(
            digest=row["digest"],
            label=row["label"],
            predicted=row["predicted"],
            probability=share,
            top=((row["predicted"], share),),
        )


def _digests(images: Sequence[HeldOutImage]) -> NDArray[np.uint8]:
    return as_digests([bytes.fromhex(one.digest) for one in images])


def _classified(run: Run, store: Store, images: Sequence[HeldOutImage]) -> list[HeldOutImage]:
    """Return the images with the probabilities of other classes, and their familiarities."""
    found = list(images)
    known, classes = run.uncertainty, np.array(run.head.classes, dtype=object)
    for rows, features in StreamedFeatures(store.stream(_digests(images))).blocks(_ROWS):
        shares = run.head.probabilities(features)
        order = np.argsort(-shares, axis=1, kind="stable")[:, :TOP]
        usual = known.familiarity.p_values(features) if known else np.full(len(rows), np.nan)
        for row, places, own, p in zip(rows.tolist(), order, shares, usual.tolist(), strict=True):
            top = tuple(zip(classes[places].tolist(), own[places].tolist(), strict=True))
            one = replace(found[row], familiarity=p if known else None)
            is_same = top[0][0] == one.predicted and abs(top[0][1] - one.probability) < _ROUNDING
            found[row] = replace(one, top=top) if is_same else one
    return found

"""A head, searched and fitted on one part of the images and looked at once on another."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.backbones.tuned import recorded_tuned
from bottleneck.cache.store import Store
from bottleneck.evaluation.confusion import Confusion
from bottleneck.evaluation.metrics import evaluate, evaluate_probabilities
from bottleneck.evaluation.stats import cross_validated_interval
from bottleneck.fitting.partition import LabelledFeatures
from bottleneck.heads.cores import one_core_a_product
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.search import Search
from bottleneck.heads.selecting import RULES
from bottleneck.images.dataset import Dataset
from bottleneck.utils.warn import warn

_ROWS = 4096  # scored at once
_MANY = 100  # held-out images: of fewer, an accuracy of 90 % has an interval of more than 12 points


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head and how well it does.

    Parameters
    ----------
    search : Search
    cv_ci95 : tuple of float
        See `bottleneck.evaluation.stats.cross_validated_interval`.
    cross_validated : dict
        Metrics of training images by heads that were neither trained nor calibrated on them: ``n``, ``macro_f1``,
        ``per_class``, and of up to 100 classes ``confusion`` (see `bottleneck.evaluation.metrics.evaluate`), where
        images are divided into folds several times as means over the divisions; and of the probabilities of the first
        division (`bottleneck.evaluation.metrics.evaluate_probabilities`).
    metrics : dict
        Of the held-out part, see `bottleneck.evaluation.metrics.evaluate`, and of its probabilities.
    probabilities : ndarray of float64, shape (m, k)
        Of the held-out part.
    predicted : list of str, length m
    right : ndarray of bool, shape (m,)
    tested : ndarray of int, shape (t,)
        Training rows that the cross-validation tested, and
    tested_right : ndarray of bool, shape (t,)
        whether the heads of the other folds are right about them.
    seconds : float
        That the search and the fit took.
    """

    search: Search
    cv_ci95: tuple[float, float]
    cross_validated: dict[str, Any]
    metrics: dict[str, Any]
    probabilities: NDArray[np.float64]
    predicted: list[str]
    right: NDArray[np.bool_]
    tested: NDArray[np.intp]
    tested_right: NDArray[np.bool_]
    seconds: float

    @property
    def head(self) -> Head:
        """The head."""
        return self.search.head

    @property
    def headline(self) -> str:
        """Which accuracy says more: ``cross-validation``, where few images are held out, or ``held-out``."""
        few = len(self.right) < min(_MANY, len(self.search.tested_rows))
        return "cross-validation" if few else "held-out"

    def search_card(self, options: HeadOptions) -> dict[str, Any]:
        """Return what a card says of the search."""
        found = self.search
        return {
            "cv_accuracy": found.accuracy,
            "cv_ci95": list(self.cv_ci95),
            "cv_spread": found.spread,
            "cv_balanced_accuracy": found.balanced_accuracy,
            "cv": self.cross_validated,
            "folds": found.divided,
            "divisions": found.fold_accuracy.shape[1] // found.divided,
            "search": options.search,
            "select": options.select,
            "C": None if options.C is None else list(options.C),
            "scalings": found.scalings,
            "searched": found.searched,
            "points": list(found.points),
            "fold_accuracy": found.fold_accuracy.tolist(),
            "log_losses": found.losses.tolist(),
            **found.facts,
            "rule": RULES[options.select],
        }


def train_head(
    head: str, options: HeadOptions, train: LabelledFeatures, test: LabelledFeatures, fingerprint: str
) -> Trained:
    """Search and fit a head on `train`, and look at it once on `test`.

    Raises
    ------
    HeadError
        If no head can be trained.
    """
    started = time.perf_counter()
    found = options.searched(head, train.table, train.labels, train.dataset.groups, fingerprint)
    seconds = time.perf_counter() - started
    known = train.labels
    held_out = score_head(found.head, test)
    of_rows = [known[row] for row in found.rows.tolist()]
    guessed = [found.head.classes[code] for code in found.probabilities.argmax(axis=1)]
    tested = [known[row] for row in found.tested_rows.tolist()]
    place = {name: code for code, name in enumerate(found.head.classes)}
    right = (found.guesses == np.array([place[label] for label in tested])).mean(axis=0)
    groups = [train.dataset.groups[row] for row in found.tested_rows.tolist()]
    return Trained(
        search=found,
        cv_ci95=cross_validated_interval(found.accuracy, right, groups, share=1 - 1 / found.divided),
        cross_validated={
            **_of_divisions(tested, found),
            **evaluate_probabilities(of_rows, found.probabilities, found.head.classes),
        },
        metrics=held_out.metrics,
        probabilities=held_out.probabilities,
        predicted=held_out.predicted,
        right=held_out.right,
        tested=found.rows,
        tested_right=np.array(of_rows) == np.array(guessed),
        seconds=seconds,
    )


def _of_divisions(tested: Sequence[str], found: Search) -> dict[str, Any]:
    """Return the metrics of the labels that tested images got, of which each counts once, however often divided."""
    divisions, classes = len(found.guesses), found.head.classes
    metrics = evaluate([*tested] * divisions, [classes[code] for code in found.guesses.ravel().tolist()], classes)
    per_class = {name: {**row, "n": row["n"] // divisions} for name, row in metrics["per_class"].items()}
    of_one = {"n": len(tested), "macro_f1": metrics["macro_f1"], "per_class": per_class}
    if isinstance(metrics["confusion"], Confusion):  # of many classes
        return of_one
    return {**of_one, "confusion": [[count / divisions for count in row] for row in metrics["confusion"]]}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a head says of the held-out part, and how right it is; the fields are those of `Trained`."""

    metrics: dict[str, Any]
    probabilities: NDArray[np.float64]
    predicted: list[str]
    right: NDArray[np.bool_]


@one_core_a_product()
def score_head(head: Head, test: LabelledFeatures) -> Scored:
    """Look at a head on the held-out part."""
    probabilities = np.empty((len(test), len(head.classes)))
    for rows, features in test.table.blocks(_ROWS):
        probabilities[rows] = head.probabilities(features)
    return scored(probabilities, test.labels, head.classes, test.dataset.groups)


def scored(
    probabilities: NDArray[np.float64],
    labels: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[str | None] | None = None,
) -> Scored:
    """Compare probabilities ``(m, k)`` of the held-out part with its labels."""
    predicted = [classes[code] for code in probabilities.argmax(axis=1)]
    metrics = evaluate(labels, predicted, classes, groups)
    low, high = metrics["accuracy_ci95"]
    return Scored(
        metrics={
            **metrics,
            **evaluate_probabilities(labels, probabilities, classes),
            "resolution": (high - low) / 2,
        },
        probabilities=probabilities,
        predicted=predicted,
        right=np.array(labels) == np.array(predicted),
    )


def score_on_tuned(store: Store, usable: Dataset, accuracy: float) -> float | None:
    """Return what a head on features of a fine-tuned network may be chosen by; None on features of any other.

    Such a network knows the labels of the images that it was trained on, and cross-validation, which sees these alone,
    can say anything with its features. So it says at most what the fine-tuning said of itself.

    Parameters
    ----------
    store : Store
        Of the features.
    usable : Dataset
        The images on which a head was trained and tested.
    accuracy : float
        The head's, cross-validated.

    Warns
    -----
    BottleneckWarning
        That cross-validation flatters; or, where the network was trained with other images or splits, that even the
        held-out part may.
    """
    found = recorded_tuned(store.folder)
    if found is None:
        return None
    if found.dataset != usable.fingerprint():
        said = (
            f"{store.short_name} are features of a network that was fine-tuned on other images, labels or splits: if "
            f"held-out images are among those that it was trained on, their accuracy flatters"
        )
    else:
        said = (
            f"{store.short_name} are features of a network that was fine-tuned on these training images: "
            f"cross-validation, which sees them alone, flatters every head; look at the held-out part"
        )
    warn(said)
    return min(accuracy, found.score)

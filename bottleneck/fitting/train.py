"""Search and fit a head on the training split, and evaluate it once on the held-out split."""

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
from bottleneck.heads.head import Head
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.search import Search
from bottleneck.heads.selection import RULES
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.images.dataset import Dataset
from bottleneck.utils.warn import warn

_ROWS = 4096  # per block
_MANY = 100  # held-out images; with fewer, the interval of an accuracy of 90 % is wider than 12 points


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A head and its scores.

    Parameters
    ----------
    search : Search
    cv_ci95 : tuple of float
        See `bottleneck.evaluation.stats.cross_validated_interval`.
    cross_validated : dict
        Metrics of training images by heads that were neither trained nor calibrated on them: ``n``, ``macro_f1``,
        ``per_class``, and with up to 100 classes ``confusion`` (see `bottleneck.evaluation.metrics.evaluate`), which
        are means if images are divided into folds several times; and metrics of the probabilities in the first division
        (see `bottleneck.evaluation.metrics.evaluate_probabilities`).
    metrics : dict
        Metrics of the held-out split, see `bottleneck.evaluation.metrics.evaluate` and `evaluate_probabilities`.
    probabilities : ndarray of float64, shape (m, k)
        Of the held-out split.
    predicted : list of str, length m
    right : ndarray of bool, shape (m,)
    tested : ndarray of int, shape (t,)
        Training rows that the cross-validation tested.
    tested_right : ndarray of bool, shape (t,)
        Whether the heads of the other folds classify them correctly.
    seconds : float
        Duration of the search and the fit.
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
        """The more reliable accuracy: ``cross-validation`` if few images are held out, else ``held-out``."""
        few = len(self.right) < min(_MANY, len(self.search.tested_rows))
        return "cross-validation" if few else "held-out"

    def search_card(self, options: HeadOptions) -> dict[str, Any]:
        """Return the search as a part of a run's card."""
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
    """Search and fit a head on `train`, and evaluate it once on `test`.

    Raises
    ------
    HeadError
        If no head can be trained.
    """
    started = time.perf_counter()
    found = options.search_head(head, train.table, train.labels, train.dataset.groups, fingerprint)
    seconds = time.perf_counter() - started
    known = train.labels
    heldout = score_head(found.head, test)
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
        metrics=heldout.metrics,
        probabilities=heldout.probabilities,
        predicted=heldout.predicted,
        right=heldout.right,
        tested=found.rows,
        tested_right=np.array(of_rows) == np.array(guessed),
        seconds=seconds,
    )


def _of_divisions(tested: Sequence[str], found: Search) -> dict[str, Any]:
    """Return the metrics of cross-validated predictions; each image counts once, however many divisions there are."""
    divisions, classes = len(found.guesses), found.head.classes
    metrics = evaluate([*tested] * divisions, [classes[code] for code in found.guesses.ravel().tolist()], classes)
    per_class = {name: {**row, "n": row["n"] // divisions} for name, row in metrics["per_class"].items()}
    of_one = {"n": len(tested), "macro_f1": metrics["macro_f1"], "per_class": per_class}
    if isinstance(metrics["confusion"], Confusion):  # of many classes
        return of_one
    return {**of_one, "confusion": [[count / divisions for count in row] for row in metrics["confusion"]]}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The predictions of a head on the held-out split and their metrics; see the fields of `Trained`."""

    metrics: dict[str, Any]
    probabilities: NDArray[np.float64]
    predicted: list[str]
    right: NDArray[np.bool_]


@single_threaded_blas()
def score_head(head: Head, test: LabelledFeatures) -> Scored:
    """Evaluate a head on the held-out split."""
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
    """Compare probabilities ``(m, k)`` of the held-out split with its labels."""
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
    """Return the score that ranks a head on features of a fine-tuned network; None for any other backbone.

    The backbone was trained on the labels of the training images, so that cross-validation on them overestimates the
    accuracy. The score is therefore at most that of the fine-tuning.

    Parameters
    ----------
    store : Store
        The features of the head.
    usable : Dataset
        The images on which a head was trained and tested.
    accuracy : float
        Cross-validated accuracy of the head.

    Warns
    -----
    BottleneckWarning
        That the cross-validated accuracy is optimistic; or, if the backbone was trained on other images or splits, that
        even the held-out accuracy may be.
    """
    found = recorded_tuned(store.folder)
    if found is None:
        return None
    if found.dataset != usable.fingerprint():
        message = (
            f"{store.short_name} are features of a network that was fine-tuned on other images, labels or splits: if "
            f"it was trained on held-out images, the held-out accuracy is optimistic"
        )
    else:
        message = (
            f"{store.short_name} are features of a network that was fine-tuned on these training images, so the "
            f"cross-validated accuracy is optimistic: use the held-out accuracy"
        )
    warn(message)
    return min(accuracy, found.score)

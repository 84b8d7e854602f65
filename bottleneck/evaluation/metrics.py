"""Metrics of predictions and of probabilities: accuracy, calibration, and precision and recall of each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.confusion import DENSE, Confusion
from bottleneck.evaluation.stats import accuracy_interval

ECE_BINS = 15  # of equal width, as in Guo et al. 2017
LEAST_PROBABILITY = 1e-15  # the logarithm of a smaller one depends on rounding
_TOP = 5


def evaluate(
    labels: Sequence[str],
    predicted: Sequence[str],
    classes: Sequence[str] = (),
    groups: Sequence[str | None] | None = None,
) -> dict[str, Any]:
    """Compare predictions with labels.

    Parameters
    ----------
    labels, predicted : sequence of str, length n
        n is at least 1.
    classes : sequence of str
        Classes that are listed even without labels or predictions.
    groups : sequence of str or None, length n, optional
        Images of one group may be correlated, which widens the interval.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``accuracy_ci95`` (see `bottleneck.evaluation.stats.accuracy_interval`),
        ``balanced_accuracy`` (mean recall of the classes in `labels`), ``macro_f1`` (mean F1 score of the classes in
        `labels` or `predicted`), ``classes``, ``per_class`` (precision, recall, F1 score and number of images) and
        ``confusion`` (rows: labels, columns: predictions, in the order of ``classes``). Ratios with a denominator of 0
        are 0. All values are JSON, except that the confusion matrix of more than `DENSE` classes is a `Confusion`.
    """
    names = sorted({*classes, *labels, *predicted})
    code = {name: place for place, name in enumerate(names)}
    rows, columns = (np.array([code[name] for name in column], np.int64) for column in (labels, predicted))
    confusion = Confusion.of(rows, columns, len(names))
    right, labelled, predicted_n = confusion.correct_counts(), confusion.label_counts(), confusion.prediction_counts()
    f1 = _ratio(2 * right, labelled + predicted_n)
    precision, recall = _ratio(right, predicted_n), _ratio(right, labelled)
    correct, n = int(right.sum()), len(labels)
    return {
        "n": n,
        "accuracy": correct / n,
        "accuracy_ci95": list(accuracy_interval(rows == columns, groups)),
        "balanced_accuracy": float(np.mean(recall[labelled > 0])),
        "macro_f1": float(np.mean(f1[labelled + predicted_n > 0])),
        "classes": names,
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(support)}
            for name, p, r, f, support in zip(names, precision, recall, f1, labelled, strict=True)
        },
        "confusion": confusion if len(names) > DENSE else list(confusion),
    }


def evaluate_probabilities(
    labels: Sequence[str], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, Any]:
    """Compare the probabilities of a head with labels.

    Parameters
    ----------
    labels : sequence of str, length n
        n is at least 1. A label that is not in `classes` has the probability 0.
    probabilities : ndarray of float64, shape (n, k)
        Rows sum to 1.
    classes : sequence of str, length k

    Returns
    -------
    dict
        A JSON object:

        - ``log_loss``, the mean of -ln p of the true class, with p clipped to at least 1e-15;
        - ``brier``, the squared error summed over the classes and averaged over the images, from 0 to 2 (Brier 1950);
        - ``ece``, the expected calibration error: images are binned by the probability of the predicted class into
          ``ece_bins`` bins of equal width, and the absolute differences of mean probability and accuracy are averaged
          over the bins, weighted by their images (Guo et al. 2017). With few images it is above 0 even for a perfectly
          calibrated head;
        - ``top5_accuracy``, None if k is 5 or less;
        - ``mean_confidence``, the mean probability of the predicted class: above the accuracy for an overconfident
          head, below it for an underconfident one.

    Notes
    -----
    G. W. Brier 1950, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1-3.
    C. Guo, G. Pleiss, Y. Sun, K. Weinberger 2017, "On calibration of modern neural networks", ICML, 1321-1330.
    """
    code = {name: place for place, name in enumerate(classes)}
    truth = np.array([code.get(label, -1) for label in labels])
    known = truth >= 0
    of_truth = np.where(known, probabilities[np.arange(len(truth)), truth], 0.0)
    confidence = probabilities.max(axis=1)
    # sum_j (p_j - y_j)^2; an unknown class is one more column of zeros.
    squared = (probabilities**2).sum(axis=1) - 2 * of_truth + 1
    return {
        "log_loss": max(0.0, float(-np.log(np.maximum(of_truth, LEAST_PROBABILITY)).mean())),
        "brier": float(squared.mean()),
        "ece": _calibration_error(confidence, probabilities.argmax(axis=1) == truth),
        "ece_bins": ECE_BINS,
        "top5_accuracy": _top_accuracy(probabilities, truth, of_truth) if len(classes) > _TOP else None,
        "mean_confidence": float(confidence.mean()),
    }


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return part / whole, or 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error; bin i of m holds the confidences in (i / m, (i + 1) / m]."""
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=ECE_BINS)  # images * (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def _top_accuracy(probabilities: NDArray[np.float64], truth: NDArray[np.intp], of_truth: NDArray[np.float64]) -> float:
    """Return the top-5 accuracy; ties are broken by the order of the classes."""
    places = np.arange(probabilities.shape[1])
    equal_before = (probabilities == of_truth[:, None]) & (places < truth[:, None])
    before = ((probabilities > of_truth[:, None]) | equal_before).sum(axis=1)
    return float(((before < _TOP) & (truth >= 0)).mean())

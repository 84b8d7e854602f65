"""How well a head does on images it was not trained on, with the uncertainty of that."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support


def evaluate(labels: Sequence[str], predicted: Sequence[str], classes: Sequence[str] = ()) -> dict[str, Any]:
    """Compare predictions with labels.

    Parameters
    ----------
    labels, predicted : sequence of str, length n
        n is at least 1.
    classes : sequence of str
        Those that are listed even if no image has or gets them.

    Returns
    -------
    dict
        A JSON object: ``n``, ``accuracy``, ``accuracy_ci95`` (see `wilson_interval`), ``balanced_accuracy`` (mean
        recall of the classes that occur in `labels`), ``macro_f1`` (mean F1 of those that occur in either),
        ``classes``, ``per_class`` (precision, recall, F1 and number of images) and ``confusion`` (rows: labels,
        columns: predictions, both in the order of ``classes``).
    """
    names = sorted({*classes, *labels, *predicted})
    truth, guess = np.array(labels), np.array(predicted)
    correct = int((truth == guess).sum())
    precision, recall, f1, support = precision_recall_fscore_support(truth, guess, labels=names, zero_division=0.0)
    present = [name in set(labels) for name in names]
    occurring = [name in {*labels, *predicted} for name in names]
    return {
        "n": len(truth),
        "accuracy": correct / len(truth),
        "accuracy_ci95": list(wilson_interval(correct, len(truth))),
        "balanced_accuracy": float(np.mean(recall[present])),
        "macro_f1": float(np.mean(f1[occurring])),
        "classes": names,
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(n)}
            for name, p, r, f, n in zip(names, precision, recall, f1, support, strict=True)
        },
        "confusion": confusion_matrix(truth, guess, labels=names).tolist(),
    }


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return the score interval of a proportion, which holds its level at small n and near 0 and 1.

    Parameters
    ----------
    successes, trials : int
    z : float
        Quantile of the normal distribution; the default gives 95 %.

    Notes
    -----
    E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22, 209-212.
    """
    p, n = successes / trials, trials
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)

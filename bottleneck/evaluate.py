"""How well a head does on images it was not trained on, with the uncertainty of that."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        columns: predictions, both in the order of ``classes``). A share of no images is 0.
    """
    names = sorted({*classes, *labels, *predicted})
    confusion = _confusion(labels, predicted, names)
    right, count, guessed = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    precision, recall, f1 = _share(right, guessed), _share(right, count), _share(2 * right, count + guessed)
    correct, n = int(right.sum()), len(labels)
    return {
        "n": n,
        "accuracy": correct / n,
        "accuracy_ci95": list(wilson_interval(correct, n)),
        "balanced_accuracy": float(np.mean(recall[count > 0])),
        "macro_f1": float(np.mean(f1[count + guessed > 0])),
        "classes": names,
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "n": int(support)}
            for name, p, r, f, support in zip(names, precision, recall, f1, count, strict=True)
        },
        "confusion": confusion.tolist(),
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


def _confusion(labels: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> NDArray[np.int64]:
    code = {name: place for place, name in enumerate(names)}
    cells = [code[label] * len(names) + code[guess] for label, guess in zip(labels, predicted, strict=True)]
    return np.bincount(cells, minlength=len(names) ** 2).reshape(len(names), len(names)).astype(np.int64)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return part / whole, 0 where there is nothing."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)

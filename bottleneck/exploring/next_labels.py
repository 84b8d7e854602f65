"""What to label next, among the images without a label."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.pool import Pool
from bottleneck.auditing.suggest import choose
from bottleneck.evaluation.neighbours import unit_rows

Report = Callable[[float], None]
_REASONS = {
    "margin_sampling": "two classes are nearly equally probable, and it differs from labelled images",
    "typi_clust": "typical of a group without a labelled image",
}
_NEW = "like {count} other images that are unlike all labelled ones: perhaps a new class"


def next_rows(
    features: NDArray[np.float32],
    labelled: NDArray[np.bool_],
    candidates: NDArray[np.bool_],
    probabilities: NDArray[np.float32] | None,
    familiarity: NDArray[np.float32] | None,
    budget: int,
    report: Report,
) -> list[dict[str, Any]]:
    """Return the rows to label next with the reason for each, the most useful first.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labelled, candidates : ndarray of bool, shape (n,)
        The images that have a label, and those that may be chosen.
    probabilities : ndarray of float32, shape (n, 2), or None
        Of the two most probable classes of each image; None without a head.
    familiarity : ndarray of float32, shape (n,), or None
    budget : int
        The number of images.
    report : callable
    """
    rows, theirs = np.flatnonzero(candidates), np.flatnonzero(labelled)
    if not len(rows):
        return []
    used = np.concatenate([rows, theirs])
    units = unit_rows(features[used], features[used].mean(axis=0, dtype=np.float64).astype(np.float32))
    report(0.3)
    known = familiarity is not None and len(theirs) > 0
    pool = Pool(
        run=None,
        model="",
        names=("",) * len(rows),
        files=("",) * len(rows),
        digests=np.zeros((len(rows), 32), np.uint8),
        units=units[: len(rows)],
        labelled=units[len(rows) :],
        probabilities=None if probabilities is None else _completed(probabilities[rows]),
        familiarity=familiarity[rows].astype(np.float64) if known and familiarity is not None else None,
        least=1 / (len(theirs) + 1) if known else 0.0,
        known=0,
        copies=0,
        failures=(),
        remarks=(),
    )
    strategy = "typi_clust" if probabilities is None else "margin_sampling"
    chosen = choose(pool, strategy, min(budget, len(rows)))
    return [
        {"row": int(rows[row]), "text": _NEW.format(count=alike) if alike else _REASONS[strategy]}
        for row, alike in chosen.items()
    ]


def _completed(best: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities of which the two largest are given; only their difference is used."""
    return best[:, :2].astype(np.float64)


def remaining(suggestions: Sequence[dict[str, Any]], done: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the suggestions that have neither a label nor been excluded since."""
    return [one for one in suggestions if not done[one["row"]]]

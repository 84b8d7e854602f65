"""Prediction sets that contain the label with a promised probability: conformal prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.stats import accuracy_interval

PROMISES = (0.9, 0.95, 0.99)  # measured on the held-out split
_ROUNDING = 1e-9  # of products that are whole numbers but for the rounding of the coverage

Probabilities = NDArray[np.float64]  # (n, k)


@dataclass(frozen=True)
class Conformal:
    """The scores of calibration images, from which prediction sets of any coverage are made.

    Parameters
    ----------
    scores : ndarray of float32, shape (c,)
        1 minus the probability of the label of each calibration image, sorted.

    Notes
    -----
    Split conformal prediction with the score of Sadinle, Lei and Wasserman, "Least ambiguous set-valued classifiers
    with bounded error levels", 2019: a set has the classes whose score is at most the ceil((c + 1) * coverage)-th
    smallest score of the calibration images. If the probabilities are right, no other sets of that coverage are smaller
    on average. Adaptive ones (Romano, Sesia and Candes, "Classification with valid and adaptive coverage", 2020) were 6
    to 27 % larger in `benchmarks/audit_conformal.py`, and depend on random numbers.
    """

    scores: NDArray[np.float32]

    @classmethod
    def of(cls, probabilities: Probabilities, codes: NDArray[np.intp]) -> "Conformal":
        """Return the scores of images of classes ``(c,)``; their probabilities come from heads that did not see them.

        Parameters
        ----------
        probabilities : ndarray of float64, shape (c, k)
        codes : ndarray of int, shape (c,)
        """
        return cls(np.sort(_scores(probabilities)[np.arange(len(codes)), codes]))

    def sets(self, probabilities: Probabilities, coverage: float) -> NDArray[np.bool_]:
        """Return whether each class is in the set of each image, ``(n, k)``.

        The most probable class is in each set, which can only raise the coverage. All classes are in all sets if there
        are fewer than `needed` calibration images.

        Parameters
        ----------
        probabilities : ndarray of float64, shape (n, k)
        coverage : float
            Above 0 and below 1.
        """
        found = self.sets_with_empty_ones(probabilities, coverage)
        found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
        return found

    def sets_with_empty_ones(self, probabilities: Probabilities, coverage: float) -> NDArray[np.bool_]:
        """Return the sets before the most probable class is added to each."""
        rank = ceil((len(self.scores) + 1) * coverage - _ROUNDING)
        if rank > len(self.scores):
            return np.ones(probabilities.shape, bool)
        inside: NDArray[np.bool_] = _scores(probabilities) <= self.scores[rank - 1]
        return inside


def needed(coverage: float) -> int:
    """Return the least number of calibration images: with fewer, all classes are in all sets of this coverage."""
    return ceil(coverage / (1 - coverage) - _ROUNDING)


def _scores(probabilities: Probabilities) -> NDArray[np.float32]:
    return (1 - probabilities).astype(np.float32)


def measured_coverage(
    conformal: Conformal,
    probabilities: Probabilities,
    labels: Sequence[str],
    classes: Sequence[str],
    groups: Sequence[str | None] | None = None,
) -> list[dict[str, Any]]:
    """Return the coverage of the sets of held-out images for each of `PROMISES`, as a part of a run's card.

    Each has the promised coverage, the number of images ``n``, the share whose label is in their set (``covered``)
    with its 95 % interval (``covered_ci95``, see `bottleneck.evaluation.stats.accuracy_interval`), and the mean size of
    the sets. A label that is not a class of the head is in no set.
    """
    code = {name: place for place, name in enumerate(classes)}
    codes = np.array([code.get(label, -1) for label in labels], np.intp)
    found = []
    for promised in PROMISES:
        sets = conformal.sets(probabilities, promised)
        right = (codes >= 0) & sets[np.arange(len(codes)), codes]
        found.append(
            {
                "promised": promised,
                "n": len(codes),
                "covered": float(right.mean()),
                "covered_ci95": list(accuracy_interval(right, groups)),
                "mean_size": float(sets.sum(axis=1).mean()),
            }
        )
    return found

"""Out-of-fold probabilities of all images: by heads that were trained on the other folds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.selection import Selected, checked, problem_on_folds, select
from bottleneck.evaluation.stats import cross_validated_interval
from bottleneck.heads.calibration import calibrate
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features
from bottleneck.heads.folds import Codes, divide
from bottleneck.heads.head import softmax
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import Prior, scored_blocks
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import n_divisions, next_seed
from bottleneck.utils.text import one_line

_CALIBRATED = 10_000  # rows that calibrate a fold


@dataclass(frozen=True)
class OutOfFoldProbabilities:
    """Calibrated probabilities of each image, by heads that were not trained on it.

    Parameters
    ----------
    classes : tuple of str, length k
        Sorted.
    codes : ndarray of int, shape (n,)
        The given class of each image.
    probabilities : ndarray of float64, shape (n, k)
        The mean over the divisions into folds; NaN for an image that cannot be tested.
    tested : ndarray of bool, shape (n,)
        Whether a head was trained on the class of the image, but not on the image. It is False for the only image, or
        group, of a class.
    folds : ndarray of int, shape (n,)
        The fold of the first division that tests each image; -1 for the only image, or group, of a class.
    divisions : int
        The number of divisions into folds.
    selected : Selected
        The hyperparameters and the scaling of the heads.
    trained : ndarray of int, shape (n,)
        The class of each image in the training of the heads; the given one, unless it was corrected.
    """

    classes: tuple[str, ...]
    codes: Codes
    probabilities: NDArray[np.float64]
    tested: NDArray[np.bool_]
    folds: NDArray[np.intp]
    divisions: int
    selected: Selected
    trained: Codes

    def __repr__(self) -> str:
        n, k = self.probabilities.shape
        return one_line(self, f"{n:,} images", f"{k} classes", f"accuracy {100 * self.accuracy:.1f} %")

    @property
    def accuracy(self) -> float:
        """The share of the tested images whose most probable class is the given one; NaN if none is tested."""
        if not self.tested.any():
            return float("nan")
        return float((self.probabilities[self.tested].argmax(axis=1) == self.codes[self.tested]).mean())

    def interval(self, groups: Sequence[str | None]) -> tuple[float, float] | None:
        """Return the 95 % interval of the accuracy; None if no image is tested.

        Parameters
        ----------
        groups : sequence of str or None, length n
        """
        rows = np.flatnonzero(self.tested)
        if not len(rows):
            return None
        right = (self.probabilities[rows].argmax(axis=1) == self.codes[rows]).astype(np.float64)
        share = 1 - 1 / (int(self.folds.max()) + 1)
        return cross_validated_interval(self.accuracy, right, [groups[row] for row in rows.tolist()], share=share)

    @property
    def self_confidence(self) -> NDArray[np.float64]:
        """The probability of the given class, ``(n,)``; NaN for an image that cannot be tested."""
        own: NDArray[np.float64] = self.probabilities[np.arange(len(self.codes)), self.codes]
        return own


def out_of_fold_probabilities(
    features: Features,
    labels: Sequence[str],
    *,
    head: str = "logistic",
    groups: Sequence[str | None] | None = None,
    options: HeadOptions | None = None,
    selected: Selected | None = None,
    corrected: Codes | None = None,
) -> OutOfFoldProbabilities:
    """Return calibrated probabilities of all images, by heads that were trained on the other folds.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labels : sequence of str, length n
    head : str
        One of `bottleneck.heads.family.NAMES`.
    groups : sequence of str or None, length n
        Images of the same group are never split between the training and test part of a fold.
    options : HeadOptions, optional
        Its seed decides the folds.
    selected : Selected, optional
        Hyperparameters and scaling, for example those of a run; by default `select` finds them.
    corrected : ndarray of int, shape (n,), optional
        The class of each image, an index of the sorted labels, that heads are trained on in place of the given one. The
        folds are the same.

    Returns
    -------
    OutOfFoldProbabilities
        Deterministic for a seed and an order of the rows, for any number of threads on the same CPU.

    Raises
    ------
    HeadError
        If there are fewer than two classes, or no class has two images (of two groups), or a feature is NaN or
        infinite, or a fit fails.

    Notes
    -----
    With fewer than 1,000 images, probabilities are the mean over up to five divisions into folds. The scores of a fold
    are calibrated on the other folds, see `bottleneck.heads.calibration`, on at most 10,000 of their images.
    """
    options = options or HeadOptions()
    classes, codes = checked(features, labels)
    selected = selected or select(features, labels, head=head, groups=groups, options=options)
    trained = codes if corrected is None else corrected
    seeds = [next_seed(options.seed, number) for number in range(n_divisions(len(codes)))]
    divisions = [divide(codes, groups, options.folds, seed) for seed in seeds]
    total, times = np.zeros((len(codes), len(classes))), np.zeros(len(codes), np.intp)
    used = problem_on_folds(features, trained, len(classes), divisions[0], selected, head, options)
    with used as (problem, family):
        for folds in divisions:
            for rows, found in _probabilities(problem.with_folds(folds), family, selected.params, codes):
                total[rows] += found
                times[rows] += 1
    total[times == 0] = np.nan
    total /= np.maximum(times, 1)[:, None]
    return OutOfFoldProbabilities(
        classes, codes, total, times > 0, divisions[0].tested, len(divisions), selected, trained
    )


def _probabilities(
    problem: Problem, family: Family, params: Params, given: Codes
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """Yield, for each fold, the tested rows whose given class it was trained on, and their probabilities."""
    scores = np.zeros((len(problem.codes), problem.count))
    for rows, found in scored_blocks(problem, family.cross_validate(problem, [params])):
        scores[rows] = found[0]
    weights = problem.on_all_rows().weights[:, 0].astype(np.float64)
    tested = problem.folds.tested
    log_probabilities = problem.constant_folds | isinstance(family, Prior)
    calibrating = np.isin(tested, np.flatnonzero(~log_probabilities))
    for fold, is_calibrated in enumerate(log_probabilities):
        rows, factor = np.flatnonzero(tested == fold), 1.0
        if not is_calibrated:
            others = np.flatnonzero(calibrating & (tested != fold))
            some = others[:: -(-len(others) // _CALIBRATED) or 1]
            factor = calibrate(scores[some], problem.codes[some], weights=weights[some])
        known = rows[problem.present[fold, given[rows]]]
        yield known, softmax(factor * scores[known])

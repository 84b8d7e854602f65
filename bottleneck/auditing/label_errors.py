"""Probable label errors, from out-of-fold probabilities and the labels of the nearest neighbours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.out_of_fold import OutOfFoldProbabilities, out_of_fold_probabilities
from bottleneck.evaluation.neighbours import NOBODY, CosineNeighbours, nearest_neighbours, unit_rows
from bottleneck.heads.features import Features, InMemoryFeatures, equal_rows, scalings
from bottleneck.heads.folds import Codes, everything
from bottleneck.heads.options import HeadOptions
from bottleneck.utils.groups import group_codes
from bottleneck.utils.text import counted, one_line

NEIGHBOURS = 30  # that vote on the label of an image, or half as many as its class has images
_FEWEST = 3
_VOTES = 0.5  # weight of the votes, relative to that of the probabilities
_ROUNDING = 1e-6  # of probabilities, as in cleanlab

Shares = NDArray[np.float64]  # (n, k)


@dataclass(frozen=True, kw_only=True)
class ProbableError:
    """An image whose label is probably wrong.

    Parameters
    ----------
    row : int
        Row of the image in the features.
    label, suggested : str
        The given label, and the probable one.
    score : float
        See `LabelErrors`.
    self_confidence, probability : float
        Out-of-fold probabilities of the given and of the suggested label.
    label_share, suggested_share : float
        Shares of the nearest neighbours with the given and with the suggested label.
    """

    row: int
    label: str
    suggested: str
    score: float
    self_confidence: float
    probability: float
    label_share: float
    suggested_share: float


@dataclass(frozen=True)
class LabelErrors:
    """Probable label errors: a list to review, since some of these labels are correct.

    Parameters
    ----------
    errors : tuple of ProbableError
        The most suspicious first.
    scores : ndarray of float64, shape (n,)
        For ranking: how suspicious the label of each image is, from -1.5 to 1.5; NaN for an image that cannot be
        tested.
    suggested : ndarray of int, shape (n,)
        The most probable class of each image other than the given one; -1 for an image that cannot be tested.
    """

    errors: tuple[ProbableError, ...]
    scores: NDArray[np.float64]
    suggested: NDArray[np.intp]

    def __repr__(self) -> str:
        return one_line(self, f"{counted(len(self.errors), 'probable error')} among {len(self.scores):,} images")

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows of the probable errors, the most suspicious first."""
        return np.array([error.row for error in self.errors], np.intp)

    @property
    def ranking(self) -> NDArray[np.intp]:
        """Rows of all images that can be tested, the most suspicious first."""
        order = np.argsort(-self.scores, kind="stable")
        return order[: np.isfinite(self.scores).sum()]


def label_neighbours(
    features: Features,
    groups: Sequence[str | None] | None = None,
    k: int = NEIGHBOURS,
    progress: Callable[[int, int], None] | None = None,
) -> CosineNeighbours:
    """Return the nearest neighbours of each image for `find_label_errors`.

    Neighbours are found by the cosine of ``shrunk`` features, see `bottleneck.heads.features.scalings`. Images of the
    same group are not neighbours, nor are those with equal features.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    groups : sequence of str or None, length n
    k : int
        At least 1.
    progress : callable, optional
        See `nearest_neighbours`.
    """
    table = InMemoryFeatures(features)
    scaling = scalings(table, everything(len(features)).trained, "shrunk")[0]
    joined = copies_joined(features, groups)
    apart = len(np.unique(joined)) == len(joined)
    return nearest_neighbours(
        unit_rows(scaling(table.features)), k=k, groups=None if apart else joined, progress=progress
    )


def copies_joined(features: Features, groups: Sequence[str | None] | None = None) -> NDArray[np.intp]:
    """Return a group ``(n,)`` for each image, such that images of the same group, or with equal features, share it."""
    copies = equal_rows(features)
    units = group_codes(groups, len(features))
    joined = np.arange(len(features))
    while True:
        before = joined
        for one in (copies, units):
            least = np.full(one.max(initial=-1) + 1, len(one))
            np.minimum.at(least, one, joined)
            joined = least[one]
        if (joined == before).all():
            return joined


def find_label_errors(found: OutOfFoldProbabilities, neighbours: NDArray[np.intp], *, at_least: int = 0) -> LabelErrors:
    """Find images whose label is probably wrong.

    Parameters
    ----------
    found : OutOfFoldProbabilities
    neighbours : ndarray of int, shape (n, m)
        The rows of the nearest neighbours of each image, the nearest first; `bottleneck.evaluation.neighbours.NOBODY`
        where there are fewer than m. Those of `label_neighbours`, or of `nearest_neighbours` on other features. At most
        30 vote.
    at_least : int
        The least number of images to name, if their neighbours agree.

    Returns
    -------
    LabelErrors
        Of images with equal scores, the first row is first.

    Notes
    -----
    The score of an image with label y is ``max_j sqrt(p_j) - sqrt(p_y) + (max_j sqrt(v_j) - sqrt(v_y)) / 2``, over
    the classes j other than y. p are its out-of-fold probabilities, and v the shares of the labels of its nearest
    neighbours, as heads were trained on them, with the class frequencies as one more neighbour. 30 neighbours vote, or
    half as many as there are images with label y. Without square roots and neighbours, this is the normalized margin,
    which finds confusions of similar classes well but random errors badly; self-confidence does the opposite.

    Confident learning (C. G. Northcutt, L. Jiang and I. L. Chuang 2021, "Confident learning: estimating uncertainty in
    dataset labels", JAIR 70, 1373-1411) decides how many labels are probable errors: as many as it counts off the
    diagonal of the confident joint, with the probabilities ``p_j sqrt(v_j)``, normalized. They are those of the highest
    scores, if more neighbours have the suggested label than the given one. ``docs/explanation/label-errors.md``
    compares the alternatives.
    """
    tested = np.flatnonzero(found.tested)
    n, count = found.probabilities.shape
    codes, p = found.codes[tested], found.probabilities[tested]
    votes = _votes(found, neighbours)[tested]
    voters = votes.sum(axis=1, keepdims=True)
    v = (votes + np.bincount(found.trained, minlength=count) / n) / (voters + 1)
    score = margin(np.sqrt(p), codes) + _VOTES * margin(np.sqrt(v), codes)
    joined = p * v**_VOTES
    joined /= joined.sum(axis=1, keepdims=True)
    other = _without_given(joined, codes).argmax(axis=1)
    shares, scores, suggested = votes / np.maximum(voters, 1), np.full(n, np.nan), np.full(n, -1)
    scores[tested], suggested[tested] = score, other
    first = np.argsort(-score, kind="stable")[: max(at_least, len(off_diagonal(joined, codes)))]
    errors = [
        ProbableError(
            row=int(tested[place]),
            label=found.classes[codes[place]],
            suggested=found.classes[other[place]],
            score=float(score[place]),
            self_confidence=float(p[place, codes[place]]),
            probability=float(p[place, other[place]]),
            label_share=float(shares[place, codes[place]]),
            suggested_share=float(shares[place, other[place]]),
        )
        for place in first
        if shares[place, other[place]] > shares[place, codes[place]]
    ]
    return LabelErrors(tuple(errors), scores, suggested)


def find_label_errors_again(
    features: Features,
    found: OutOfFoldProbabilities,
    neighbours: NDArray[np.intp],
    *,
    head: str = "logistic",
    groups: Sequence[str | None] | None = None,
    options: HeadOptions | None = None,
) -> LabelErrors:
    """Find probable errors, correct them, and find them again in the given labels, by what is then trained.

    Wrong labels mislead the heads and the votes. The second list finds more, above all where one class is mistaken for
    another; with few wrong labels or few images, the first has fewer false alarms. ``docs/explanation/label-errors.md``
    compares them. The second list is at least as long as the first, but need not contain it. If half of the images
    of a class or more would be corrected, none of them is.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    found : OutOfFoldProbabilities
        Of these features, by heads trained on the given labels.
    neighbours : ndarray of int, shape (n, m)
        See `find_label_errors`.
    head, groups, options
        The values passed to `out_of_fold_probabilities` for `found`.
    """
    first = find_label_errors(found, neighbours)
    corrected = _corrected(found, first)
    if (corrected == found.codes).all():
        return first
    labels = [found.classes[code] for code in found.codes]
    again = out_of_fold_probabilities(
        features, labels, head=head, groups=groups, options=options, selected=found.selected, corrected=corrected
    )
    lost = found.tested & ~again.tested  # the folds were left without their class
    again.probabilities[lost] = found.probabilities[lost]
    return find_label_errors(replace(again, tested=found.tested), neighbours, at_least=len(first.errors))


def margin(probabilities: Shares, codes: Codes) -> NDArray[np.float64]:
    """Return how much more probable the best other class is than the given one, ``(n,)``, from -1 to 1."""
    own = probabilities[np.arange(len(codes)), codes]
    best: NDArray[np.float64] = _without_given(probabilities, codes).max(axis=1, initial=-np.inf) - own
    return best


def off_diagonal(probabilities: Shares, codes: Codes) -> NDArray[np.intp]:
    """Return the rows off the diagonal of the confident joint, whose given class is not the most probable one.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (n, k)
    codes : ndarray of int, shape (n,)
        The given class of each row.

    Notes
    -----
    A row is confidently of class j if its probability is at least the threshold of j: the mean probability of j in the
    rows of that class. Of several such classes it is the most probable one; see `find_label_errors` for the source.
    """
    sizes = np.bincount(codes, minlength=probabilities.shape[1])
    sums = np.bincount(codes, probabilities[np.arange(len(codes)), codes], len(sizes))
    thresholds = np.where(sizes > 0, np.maximum(sums / np.maximum(sizes, 1), 2 * _ROUNDING), np.inf)
    confident = np.where(probabilities >= thresholds - _ROUNDING, probabilities, -1.0)
    best = confident.argmax(axis=1)
    certain = (confident.max(axis=1, initial=-1.0) >= 0) & (best != codes)
    return np.flatnonzero(certain & (margin(probabilities, codes) > _ROUNDING))


def _without_given(probabilities: Shares, codes: Codes) -> Shares:
    found = probabilities.copy()
    found[np.arange(len(codes)), codes] = -np.inf
    return found


def _votes(found: OutOfFoldProbabilities, neighbours: NDArray[np.intp]) -> Shares:
    """Return how many of the nearest neighbours of each image were trained on as each class, ``(n, k)``."""
    count = len(found.classes)
    wanted = np.clip(np.bincount(found.codes, minlength=count)[found.codes] // 2, _FEWEST, NEIGHBOURS)
    votes = np.zeros((len(found.codes), count))
    for place, rows in enumerate(neighbours.T):
        voting = np.flatnonzero((rows != NOBODY) & (place < wanted))
        votes[voting, found.trained[rows[voting]]] += 1
    return votes


def _corrected(found: OutOfFoldProbabilities, errors: LabelErrors) -> Codes:
    """Return the classes with the suggestions for probable errors, unless a class would lose half of its images."""
    codes, rows = found.codes.copy(), errors.rows
    sizes = np.bincount(codes, minlength=len(found.classes))
    lost = np.bincount(codes[rows], minlength=len(sizes))
    some = rows[(2 * lost < sizes)[codes[rows]]]
    codes[some] = errors.suggested[some]
    return codes

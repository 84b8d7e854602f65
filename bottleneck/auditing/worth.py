"""What a change of the training images is worth: heads are fitted again with it, and tested on other images."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.auditing.selection import Selected, checked, problem_on_folds, select
from bottleneck.errors import HeadError
from bottleneck.heads.family import Family, Params
from bottleneck.heads.features import Features
from bottleneck.heads.folds import Codes, Folds, divide, stratified
from bottleneck.heads.options import HeadOptions
from bottleneck.heads.prior import prior_if_constant, scored_blocks
from bottleneck.heads.problem import Problem
from bottleneck.heads.search import n_divisions, next_seed
from bottleneck.utils.arguments import abbreviated
from bottleneck.utils.groups import group_codes
from bottleneck.utils.quantiles import NORMAL
from bottleneck.utils.text import first_few, one_line

MOST_ROWS = 20_000  # of more images, a stratified sample is used
_FOLDS = 10  # heads of fewer images suffer more from wrong labels, so fewer folds would exaggerate the gain
_ROWS_IN_ALL, _MOST_DIVISIONS = 5000, 3  # few rows are divided repeatedly, until this many rows are tested


@dataclass(frozen=True)
class Change:
    """A change of the training images.

    Parameters
    ----------
    name : str
    rows : ndarray of int, shape (m,)
        Rows of the images that are removed, or get other labels.
    labels : sequence of str, length m, optional
        Their new labels; by default they are removed.
    """

    name: str
    rows: NDArray[np.intp]
    labels: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Worth:
    """The change of accuracy by a change of the training images.

    Parameters
    ----------
    name : str
        Name of the change.
    images : int
        Images that it removes or relabels.
    gain : float
        Mean change of the accuracy: 0.012 is 1.2 points more.
    ci95 : tuple of float
        The 95 % interval of the gain.
    accuracy : float
        Cross-validated accuracy without the change, on the same tested images.
    tested : int
        Images that the heads are tested on: those that no change names.
    used : int
        Images that are divided into folds; fewer than given if there are more than 20,000.
    divisions : int
        Divisions into folds.
    """

    name: str
    images: int
    gain: float
    ci95: tuple[float, float]
    accuracy: float
    tested: int
    used: int
    divisions: int

    def __repr__(self) -> str:
        low, high = self.ci95
        points = f"{100 * self.gain:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
        return one_line(self, self.name, points)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "ci95": list(self.ci95)}


def worth_of(
    features: Features,
    labels: Sequence[str],
    changes: Sequence[Change],
    *,
    head: str = "logistic",
    groups: Sequence[str | None] | None = None,
    options: HeadOptions | None = None,
    selected: Selected | None = None,
) -> list[Worth]:
    """Return how the accuracy changes if heads are fitted with each change, each on its own.

    All heads have the same hyperparameters and scaling. In each fold, one head is trained on all images of the training
    part, and one with each change. They are tested on the images of the test part that no change names, by their given
    labels.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labels : sequence of str, length n
    changes : sequence of Change
    head : str
        One of `bottleneck.heads.family.NAMES`.
    groups : sequence of str or None, length n
        Images of the same group are never split between the training and test part of a fold.
    options : HeadOptions, optional
        Its seed decides the folds.
    selected : Selected, optional
        Hyperparameters and scaling for all n images; by default `bottleneck.auditing.selection.select` finds them.

    Raises
    ------
    HeadError
        If there are fewer than two classes, also with a change, or no class has two images (of two groups), or a
        feature is NaN or infinite, or a change has unknown rows or labels, or changes name all images.

    Notes
    -----
    The gain is the mean difference of being classified correctly, over the tested images and up to three divisions into
    ten folds. Its interval is that of A. Agresti and Y. Min 2005, "Simple improved confidence intervals for comparing
    matched proportions", Statistics in Medicine 24, 729-740: Wald's, with two more images, on one of which either head
    is better. Images of a group are added before they are squared, as in the ratio estimator of a cluster sample (W. G.
    Cochran 1977, "Sampling techniques", section 9A.7), and the two more images are groups of the mean size. Several
    divisions make the gain more exact, but not the interval shorter: its variance is the mean of the divisions, since
    they test the same images, and another training set would give other heads.

    There are three known biases. The folds that chose the named images also test the change, which flatters it a
    little. Of images that are not named, some have wrong labels, which makes gains and losses smaller. And the heads
    are trained on nine tenths of the images. ``docs/explanation/label-errors.md`` has the coverage.
    """
    options = options or HeadOptions()
    classes, codes = checked(features, labels)
    changed = [_changed(change, classes, codes) for change in changes]
    selected = selected or select(features, labels, head=head, groups=groups, options=options)
    rows = stratified(codes, MOST_ROWS, 2 * _FOLDS, options.seed)
    share = len(rows) / len(codes)
    point = {name: value / share if name == "C" else value for name, value in selected.params.items()}
    own, units = codes[rows], None if groups is None else [groups[row] for row in rows]
    seeds = [next_seed(options.seed, number) for number in range(n_divisions(len(rows), _ROWS_IN_ALL, _MOST_DIVISIONS))]
    divisions = [divide(own, units, _FOLDS, seed) for seed in seeds]
    tested = np.flatnonzero((divisions[0].tested >= 0) & (np.stack([codes, *changed]) == codes).all(axis=0)[rows])
    if not len(tested):
        raise HeadError("expected images that no change names, to test the changes on, found none")
    some = features if share == 1 else features[rows]
    with problem_on_folds(some, own, len(classes), divisions[0], selected, head, options) as (problem, family):
        versions = [new[rows] for new in (codes, *changed)]
        before, *after = (_right(problem, divisions, new, family, point)[:, tested] for new in versions)
    of_group = group_codes(units, len(rows))[tested]
    return [
        Worth(
            name=change.name,
            images=len(np.unique(change.rows)),
            gain=float((right - before).mean()),
            ci95=gain_interval(right - before, of_group) if len(change.rows) else (0.0, 0.0),
            accuracy=float(before.mean()),
            tested=len(tested),
            used=len(rows),
            divisions=len(divisions),
        )
        for change, right in zip(changes, after, strict=True)
    ]


def gain_interval(differences: NDArray[np.float64], units: NDArray[np.intp]) -> tuple[float, float]:
    """Return the 95 % interval of a mean paired difference, see `worth_of`.

    Parameters
    ----------
    differences : ndarray of float64, shape (divisions, n)
        -1, 0 or 1 for each image.
    units : ndarray of int, shape (n,)
        The group of each image. With a single group, the interval is -1 to 1.
    """
    group = np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(group)
    if len(sizes) < 2:
        return -1.0, 1.0
    size = float(sizes.mean())
    total = len(units) + 2 * size
    middle = float(differences.mean(axis=0).sum()) / total
    apart = np.stack([np.bincount(group, one) for one in differences]) - middle * sizes
    square = (float(np.square(apart).sum(axis=1).mean()) + size**2) * len(sizes) / (len(sizes) - 1)
    half = NORMAL * math.sqrt(square) / total
    return max(-1.0, middle - half), min(1.0, middle + half)


def _changed(change: Change, classes: tuple[str, ...], codes: Codes) -> Codes:
    """Return the class of each row with a change; -1 for a row that is removed.

    Raises
    ------
    HeadError
        If a row or label is unknown, or fewer than two classes are left.
    """
    rows, n = np.asarray(change.rows, np.intp), len(codes)
    if ((rows < 0) | (rows >= n)).any():
        raise HeadError(
            f"expected rows from 0 to {n - 1} in the change {change.name!r}, got {abbreviated(rows.tolist())}"
        )
    found = codes.copy()
    found[rows] = -1
    if change.labels is not None:
        place = {name: code for code, name in enumerate(classes)}
        unknown = sorted({str(label) for label in change.labels} - place.keys())
        if unknown or len(change.labels) != len(rows):
            raise HeadError(
                f"expected a label among {first_few(classes)} for each of {len(rows)} rows of the change "
                f"{change.name!r}, got {len(change.labels)}, of which unknown: {first_few(unknown) or 'none'}"
            )
        found[rows] = [place[label] for label in change.labels]
    if len(np.unique(found[found >= 0])) < 2:
        raise HeadError(f"expected two classes or more to be left by the change {change.name!r}")
    return found


def _right(
    problem: Problem, divisions: Sequence[Folds], codes: Codes, family: Family, point: Params
) -> NDArray[np.float64]:
    """Return whether heads trained on other classes of the rows predict the given ones, ``(divisions, n)``: 1 or 0.

    They are not trained on rows of class -1.
    """
    guessed = np.full((len(divisions), len(codes)), -1)
    removed = codes < 0
    for own, folds in zip(guessed, divisions, strict=True):
        changed = problem.with_folds(replace(folds, trained=folds.trained & ~removed[:, None]))
        if not removed.any() and (codes != problem.codes).any():
            changed = replace(changed, codes=codes)
        used = prior_if_constant(family, changed, quiet=True)
        for rows, scores in scored_blocks(changed, used.cross_validate(changed, [point])):
            own[rows] = scores[0].argmax(axis=1)
    found: NDArray[np.float64] = (guessed == problem.codes).astype(np.float64)
    return found

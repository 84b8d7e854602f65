"""How usual an image is for a training set: a p-value from the distances of its features to training images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.discriminant import Discriminant, principal_directions
from bottleneck.evaluation.neighbours import NOBODY, nearest_neighbours, unit_rows
from bottleneck.heads.features import as_float32, equal_rows
from bottleneck.heads.threads import single_threaded_blas
from bottleneck.utils.groups import group_codes, places_within

REFERENCES = 10_000  # training images that new ones are compared with
_NEIGHBOURS = 10
_DIRECTIONS = 256
_FOLDS = 5
_LEAST = 20  # references, below which the classes say too little about the directions
_ROWS = 4096  # compared at once
_TAIL = 0.95  # the quantile of both distances that weighs the same
_TINY = 1e-12

Features = NDArray[np.float32]  # (n, d)


@dataclass(frozen=True, kw_only=True)
class Familiarity:
    """Training images, and how far images from the same source are from them.

    Parameters
    ----------
    directions : ndarray of float32, shape (d, r)
        The principal directions of the features, whose rows are divided by their length; r is at most 256.
    references : ndarray of float16, shape (m, r)
        Training images along these directions, at most 10,000.
    discriminant : Discriminant
        The directions in which they differ most, relative to their differences within a class; there may be none.
    location, spread : ndarray of float32, shape (2,)
        Median of each of the two distances of the calibration images, and the distance from there to the 95 %
        quantile.
    calibration : ndarray of float32, shape (c,)
        The larger of both standardised distances of each calibration image, sorted.
    unseen : bool
        Whether calibration images were no training images. Otherwise each was compared with other training images.

    Notes
    -----
    The statistic is the larger of two standardised distances, each of which is the mean of 1 - cosine to the 10 nearest
    references: in the features themselves (Sun, Ming, Zhu and Li, "Out-of-distribution detection with deep nearest
    neighbors", 2022), which recognises images of another kind; and in the discriminant directions, which recognise a
    new class among similar ones. In `benchmarks/audit_unknowns.py`, digits, solar cells, noise and single colours have
    an AUROC of 1.000 if they are shown to a head for ants and bees (1.000 by the first distance alone, 0.65 to 0.86 by
    the second), and a digit that was left out of the training images has 0.945 (0.833 and 0.959). The other methods
    are worse at one or the other: Mahalanobis 0.79 to 0.98 and 0.771, maximum probability 0.84 to 0.96 and 0.906, the
    nearest joined with the maximum probability 0.995 to 1.000 and 0.938.

    The familiarity is the p-value of split conformal prediction (Vovk, Gammerman and Shafer, "Algorithmic learning in a
    random world", 2005): (1 + the number of calibration images that are at least as unusual) / (c + 1). Of images from
    the same source, at most a share p have a familiarity of at most p if `unseen` images calibrate; if the training
    images calibrate themselves, this holds approximately.
    """

    directions: Features
    references: NDArray[np.float16]
    discriminant: Discriminant
    location: NDArray[np.float32]
    spread: NDArray[np.float32]
    calibration: NDArray[np.float32]
    unseen: bool

    @property
    def least(self) -> float:
        """The smallest possible p-value, that of an image which is further away than all calibration images."""
        return 1 / (len(self.calibration) + 1)

    def p_values(self, features: Features) -> NDArray[np.float64]:
        """Return the familiarity ``(n,)``, in (0, 1], of features ``(n, d)``."""
        as_unusual = len(self.calibration) - np.searchsorted(self.calibration, self.unusual(features), side="left")
        p_values: NDArray[np.float64] = (1 + as_unusual) / (len(self.calibration) + 1)
        return p_values

    @single_threaded_blas()
    def unusual(self, features: Features) -> NDArray[np.float32]:
        """Return the statistic ``(n,)`` of features ``(n, d)``, larger for more unusual images."""
        found = np.empty(len(features), np.float32)
        references = as_float32(self.references)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            inside = unit_rows(features[rows]) @ self.directions
            found[rows] = self.joined(_both_distances(inside, references, self.discriminant))
        return found

    def joined(self, distances: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the larger of both standardised distances ``(n, 2)``; one that is NaN does not count."""
        larger: NDArray[np.float32] = np.fmax.reduce((distances - self.location) / self.spread, axis=1)
        return larger


@single_threaded_blas()
def familiarity(
    features: Features,
    labels: Sequence[str],
    groups: Sequence[str | None] | None = None,
    *,
    unseen: Features | None = None,
    calibrates: NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Familiarity:
    """Return the familiarity of images to training images.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
        Features of the training images, see `reference_rows`. Of equal rows, one is used.
    labels : sequence of str, length n
    groups : sequence of str or None, length n, optional
        A calibration image is not compared with images of its group.
    unseen : ndarray of float32, shape (c, d), optional
        Features of calibration images; needed if the backbone was trained on the training images, which are then
        closer to each other than to new images. By default each training image is compared with the others: in the
        features with all others, and in the discriminant directions with the other folds, on which these directions
        are then fitted.
    calibrates : ndarray of bool, shape (n,), optional
        Which training images calibrate, see `representative`; by default all. Not used with `unseen`.
    seed : int
        Seed of the folds.
    """
    kept = np.unique(equal_rows(features), return_index=True)[1]
    units = unit_rows(features[kept])
    codes = np.unique(np.array(labels, dtype=np.str_)[kept], return_inverse=True)[1]
    names = None if groups is None else [groups[row] for row in kept.tolist()]
    directions = principal_directions(units, _DIRECTIONS)
    references = (units @ directions).astype(np.float16)
    rows = as_float32(references)
    discriminant = _discriminant(rows, codes)
    if unseen is None:
        distances = _cross_validated(rows, codes, group_codes(names, len(kept)), seed)
        distances = distances if calibrates is None else distances[calibrates[kept]]
    else:
        distances = _both_distances(unit_rows(unseen) @ directions, rows, discriminant)
    distances = distances[np.isfinite(distances[:, 0])]
    found = Familiarity(
        directions=directions,
        references=references,
        discriminant=discriminant,
        **_standard(distances),
        calibration=np.empty(0, np.float32),
        unseen=unseen is not None,
    )
    return replace(found, calibration=np.sort(found.joined(distances)))


def reference_rows(labels: Sequence[str], most: int = REFERENCES, seed: int = 0) -> NDArray[np.intp]:
    """Return the rows of at most `most` references, as evenly over the classes as their sizes allow, sorted.

    Parameters
    ----------
    labels : sequence of str, length n
        In an order that does not depend on the order of the files.
    most : int
    seed : int
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    codes = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(len(codes))
    return np.sort(order[np.argsort(places_within(codes, order)[order], kind="stable")[:most]])


def representative(labels: Sequence[str], rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which of the references ``(m,)`` calibrate: as many as have the classes in the ratio of all images.

    Parameters
    ----------
    labels : sequence of str, length n
    rows : ndarray of int, shape (m,)
        From `reference_rows`, which draws large classes less often than small ones.
    """
    codes = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)[1]
    counts, drawn = np.bincount(codes), np.bincount(codes[rows], minlength=codes.max(initial=-1) + 1)
    wanted = np.ceil(counts * (drawn / counts)[drawn > 0].min())  # with very many classes, some are not drawn
    calibrates: NDArray[np.bool_] = places_within(codes[rows]) < wanted[codes[rows]]
    return calibrates


def _both_distances(rows: Features, references: Features, discriminant: Discriminant) -> NDArray[np.float32]:
    """Return the distances ``(n, 2)`` of rows ``(n, r)``; NaN if there are no discriminant directions."""
    found = np.full((len(rows), 2), np.nan, np.float32)
    found[:, 0] = _mean_distance(rows, references)
    if discriminant.count:
        found[:, 1] = _mean_distance(discriminant(rows), discriminant(references))
    return found


def _cross_validated(
    rows: Features, codes: NDArray[np.intp], groups: NDArray[np.intp], seed: int
) -> NDArray[np.float32]:
    """Return the distances ``(n, 2)`` of each row to rows of other groups; NaN if there are none."""
    found = np.full((len(rows), 2), np.nan, np.float32)
    found[:, 0] = _mean_distance(rows, None, groups)
    numbers = np.unique(groups, return_inverse=True)[1]
    fold = (np.random.default_rng(seed).permutation(numbers.max(initial=0) + 1) % _FOLDS)[numbers]
    for number in range(_FOLDS):
        others, own = rows[fold != number], fold == number
        discriminant = _discriminant(others, codes[fold != number])
        if discriminant.count and own.any():
            found[own, 1] = _mean_distance(discriminant(rows[own]), discriminant(others))
    return found


def _discriminant(rows: Features, codes: NDArray[np.intp]) -> Discriminant:
    return Discriminant.of(rows, codes) if len(rows) >= _LEAST else Discriminant.none(rows.shape[1])


def _mean_distance(
    rows: Features, references: Features | None, groups: NDArray[np.intp] | None = None
) -> NDArray[np.float32]:
    """Return the mean of 1 - cosine to the nearest references ``(n,)``; NaN if there are none."""
    found = nearest_neighbours(rows, references, _NEIGHBOURS, groups=groups)
    known = found.rows != NOBODY
    count = known.sum(axis=1)
    total = np.where(known, 1 - found.cosines, 0).sum(axis=1)
    mean: NDArray[np.float32] = np.where(count, total / np.maximum(count, 1), np.nan).astype(np.float32)
    return mean


def _standard(distances: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return location and spread of both distances; 0 and 1 for one that is not known."""
    location, spread = np.zeros(2, np.float32), np.ones(2, np.float32)
    for column in range(2):
        known = distances[np.isfinite(distances[:, column]), column]
        if len(known):
            location[column], tail = np.quantile(known, [0.5, _TAIL])
            spread[column] = max(float(tail - location[column]), _TINY)
    return {"location": location, "spread": spread}

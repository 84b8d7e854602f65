"""Cross-validation folds: the training and test rows of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.utils.groups import group_codes, places_within
from bottleneck.utils.process_settings import ignored_warnings

Codes = NDArray[np.intp]  # (n,), the class of each row as a number from 0 to k - 1


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A cross-validation.

    Parameters
    ----------
    tested : ndarray of int, shape (n,)
        The fold that tests each row; -1 for a row that is never tested.
    trained : ndarray of bool, shape (n, F)
        Whether each fold trains on each row.
    """

    tested: NDArray[np.intp]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.trained.shape[1])

    def of(self, rows: NDArray[np.intp]) -> "Folds":
        """Return the folds of some rows, in the given order."""
        return Folds(tested=self.tested[rows], trained=self.trained[rows])


def everything(count: int) -> Folds:
    """Return a single fold that trains on all `count` rows and tests none."""
    return Folds(tested=np.full(count, -1), trained=np.ones((count, 1), bool))


def joined(divisions: Sequence[Folds]) -> Folds:
    """Return the training rows of the folds of several divisions of the same rows; which rows they test is left out."""
    trained = np.concatenate([folds.trained for folds in divisions], axis=1)
    return Folds(tested=np.full(len(trained), -1), trained=trained)


def divide(codes: Codes, groups: Sequence[str | None] | None, folds: int, seed: int) -> Folds:
    """Divide rows into stratified folds.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    groups : sequence of str or None, length n
        Rows of the same group are never split between the training and test part of a fold.
    folds : int
        Maximum number of folds; fewer if no class has that many rows. If a class has only one row (or group), every
        fold trains on it.
    seed : int

    Raises
    ------
    HeadError
        If no class has rows of at least two groups.
    """
    counts = np.bincount(codes)
    units = group_codes(groups, len(codes))
    units_of_class = [len(np.unique(units[codes == code])) for code in range(len(counts))]
    rows = np.flatnonzero(np.array(units_of_class)[codes] > 1)
    if not len(rows):
        raise HeadError("expected a class with at least two training images (of two groups), to cross-validate on")
    count = int(np.clip(max(units_of_class), 2, folds))  # smaller classes are missing from some test parts
    tested = np.full(len(codes), -1)
    if len(np.unique(units)) == len(units):
        tested[rows] = _stratified(codes[rows], count, seed)
    else:
        from sklearn.model_selection import StratifiedGroupKFold

        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
        with ignored_warnings(category=UserWarning):  # classes smaller than the number of folds are expected
            for fold, (_, test) in enumerate(splitter.split(rows, codes[rows], units[rows])):
                tested[rows[test]] = fold
    present = np.unique(tested[tested >= 0])
    tested = np.where(tested >= 0, np.searchsorted(present, tested), -1)
    trained = np.stack([~np.isin(units, units[tested == fold]) for fold in range(len(present))], axis=1)
    return Folds(tested=tested, trained=trained)


def _stratified(codes: Codes, folds: int, seed: int) -> NDArray[np.intp]:
    """Return a stratified fold for each row; the sizes of the folds differ by at most one row."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    found = np.empty(len(codes), np.intp)
    found[order] = np.arange(len(codes)) % folds
    return found


def stratified(codes: Codes, most: int, least: int, seed: int) -> NDArray[np.intp]:
    """Return all rows if there are at most `most`, else about that many, with at least `least` or all of each class.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    most, least : int
    seed : int
    """
    n, counts = len(codes), np.bincount(codes)
    if n <= most:
        return np.arange(n)
    places = places_within(codes, np.random.default_rng(seed).permutation(n))
    wanted = np.maximum(np.floor(counts * (most / n)), np.minimum(counts, least))
    return np.flatnonzero(places < wanted[codes])

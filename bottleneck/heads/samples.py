"""Training rows of the estimators: distinct rows with weights, in a canonical order."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.features import Features
from bottleneck.heads.folds import Codes, Folds


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Labelled rows.

    Parameters
    ----------
    features : ndarray of float32, shape (n, d)
    labels : ndarray, shape (n,)
    weights : ndarray of float64, shape (n,)
        Weights of the rows.
    folds : Folds or None
    """

    features: Features
    labels: NDArray[Any]
    weights: NDArray[np.float64]
    folds: Folds | None

    @classmethod
    def of(
        cls, features: Features, labels: NDArray[Any], weights: NDArray[np.float64], folds: Folds | None
    ) -> "Samples":
        """Return the rows with a positive weight.

        Raises
        ------
        HeadError
            If the shape of the weights is wrong, or a weight is below 0, or all are 0.
        """
        count = len(labels)
        if weights.shape != (count,):
            raise HeadError(f"expected sample_weight of shape {(count,)}, got {weights.shape}")
        if (weights < 0).any():
            raise HeadError(f"expected sample_weight of 0 or more, got {weights.min():g}")
        if not weights.any():
            raise HeadError("expected a sample_weight above 0, got only zeros: there is no class to train on")
        whole = cls(features=features, labels=labels, weights=weights, folds=folds)
        return whole if weights.all() else whole._at(np.flatnonzero(weights))

    @property
    def unequal(self) -> NDArray[np.float64] | None:
        """The weights; None if all are 1."""
        return None if (self.weights == 1).all() else self.weights

    def merged(self, codes: Codes) -> "tuple[Samples, Codes]":
        """Return the distinct rows with the sums of their weights, in the order of their bytes, and their classes.

        A weight of 3 is then equivalent to three equal rows, bit for bit; the order of the rows has no influence; and
        no fold trains on a copy of a row that it tests.

        Parameters
        ----------
        codes : ndarray of int, shape (n,)
            The class of each row.
        """
        rank = np.unique(_as_bytes(self.features), return_inverse=True)[1].ravel()
        marks = np.column_stack([rank, codes, _patterns(self.folds, len(rank))])
        _, first, inverse = np.unique(marks, axis=0, return_index=True, return_inverse=True)
        weights = np.bincount(inverse.ravel(), self.weights).astype(np.float64)
        return replace(self._at(first), weights=weights), codes[first]

    def _at(self, rows: NDArray[np.intp]) -> "Samples":
        folds = self.folds.of(rows) if self.folds else None
        return Samples(features=self.features[rows], labels=self.labels[rows], weights=self.weights[rows], folds=folds)


def folds_of(splits: Iterable[tuple[ArrayLike, ArrayLike]], count: int) -> Folds:
    """Return the folds of `count` rows from pairs of training and test rows, as scikit-learn splitters yield them.

    Raises
    ------
    HeadError
        If there is no fold, or two folds test the same row.
    """
    tested, trained = np.full(count, -1), []
    for fold, (known, test) in enumerate(splits):
        own = np.zeros(count, bool)
        own[np.asarray(known)] = True
        trained.append(own)
        if (tested[np.asarray(test)] >= 0).any():
            raise HeadError("expected cv to test each row in one fold, found a row tested in two")
        tested[np.asarray(test)] = fold
    if not trained:
        raise HeadError("expected cv to yield at least one fold, got none")
    return Folds(tested=tested, trained=np.stack(trained, axis=1))


def _as_bytes(features: Features) -> NDArray[np.void]:
    rows = np.ascontiguousarray(features)
    found: NDArray[np.void] = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return found


def _patterns(folds: Folds | None, count: int) -> NDArray[np.intp]:
    """Return a number for each row, equal for rows with the same membership in the folds."""
    if folds is None:
        return np.zeros(count, np.intp)
    which = np.column_stack([folds.tested, folds.trained])
    return np.unique(which, axis=0, return_inverse=True)[1].ravel()

"""What a family is given: labelled features, folds, and how rows are scaled and weighted."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.arrays import Arrays
from bottleneck.heads.features import (
    OWN_VARIANCE,
    FeatureTable,
    InMemoryFeatures,
    Normalize,
    Scaling,
    mean,
    scaled,
    scalings,
)
from bottleneck.heads.folds import Codes, Folds, everything

_LARGEST = 1e15  # of what is squared and summed in float32
_COSTLY = ("scaled", "centre", "centred")  # what is computed of all features
_FARTHEST = 1e35  # of what is subtracted, and multiplied by weights


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Labelled features, to be classified.

    Parameters
    ----------
    table : FeatureTable
        Features ``(n, d)`` as they are cached.
    codes : ndarray of int, shape (n,)
        The class of each row, from 0 to `count` - 1.
    count : int
        k, the number of classes.
    folds : Folds
        What is trained on, and tested, apart.
    normalize : str
        See `bottleneck.heads.features.scalings`.
    balanced : bool
        Whether the rows of a class weigh the more, the fewer they are: each class of a fold weighs as much.
    class_weights : ndarray of float64, shape (k,), optional
        Of the rows of each class.
    row_weights : ndarray of float64, shape (n,), optional
        How often each row counts, above 0; by default once.
    by_shares : bool
        Whether linear heads may add the logarithms of the classes' shares to their scores, as much as helps.
    seed : int
        Of what a family does at random.
    arrays : Arrays
        Where it is computed.
    weight : float
        Of each row: how many rows it stands for, where it is one of a sample.
    origin : ndarray of int, shape (n,), optional
        Which row of the features it was drawn from each is; by default they are all.
    """

    table: FeatureTable
    codes: Codes
    count: int
    folds: Folds
    normalize: Normalize = "shrunk"
    balanced: bool = False
    class_weights: NDArray[np.float64] | None = None
    row_weights: NDArray[np.float64] | None = None
    by_shares: bool = True
    seed: int = 0
    arrays: Arrays
    weight: float = 1.0
    origin: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    def __post_init__(self) -> None:
        if not len(self.origin):
            object.__setattr__(self, "origin", np.arange(len(self.codes)))

    @property
    def by_rows(self) -> bool:
        """Whether the scaling is found by the rows, and so differs between folds."""
        return self.normalize in OWN_VARIANCE

    @cached_property
    def _scalings(self) -> list[Scaling]:
        return scalings(self.table, self.folds.trained, self.normalize, self.row_weights)

    @property
    def scaling(self) -> Scaling:
        """The scaling by all rows."""
        return self._scalings[0]

    @property
    def fold_scalings(self) -> list[Scaling]:
        """The scaling by the training rows of each fold."""
        return self._scalings[1:]

    @cached_property
    def constant_folds(self) -> NDArray[np.bool_]:
        """Whether no feature differs between the rows that a fold is trained on, ``(F,)``."""
        return np.array([scaling.constant.all() for scaling in self.fold_scalings], np.bool_)

    @cached_property
    def scaled(self) -> FeatureTable:
        """The features, scaled by all rows."""
        return scaled(self.table, self.scaling)

    @cached_property
    def centre(self) -> NDArray[np.float32]:
        """The mean of the scaled features, ``(d,)``."""
        return mean(self.scaled)

    @cached_property
    def centred(self) -> FeatureTable:
        """The scaled features less their mean."""
        return scaled(self.scaled, Scaling(mean=self.centre, scale=np.ones_like(self.centre)))

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether a fold is trained on rows of a class, ``(F, k)``."""
        return self._counts > 0

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """The weight of each row in each fold, ``(n, F)``; 0 where it is not trained on."""
        weights: NDArray[np.float32] = self.folds.trained.astype(np.float32) * np.float32(self.weight)
        if self.balanced:
            classes = self.present.sum(axis=1, keepdims=True)
            of_class = self._counts.sum(axis=1, keepdims=True) / (classes * np.where(self.present, self._counts, 1))
            weights *= of_class.T[self.codes].astype(np.float32)
        if self.class_weights is not None:
            weights *= self.class_weights[self.codes, None].astype(np.float32)
        if self.row_weights is not None:
            weights *= self.row_weights[:, None].astype(np.float32)
        return weights

    @property
    def often(self) -> NDArray[np.float64]:
        """How often each row counts, ``(n,)``."""
        return np.ones(len(self.codes)) if self.row_weights is None else self.row_weights

    @property
    def is_weighted(self) -> bool:
        """Whether not all rows of a fold weigh the same."""
        return self.balanced or self.class_weights is not None or self.row_weights is not None

    @cached_property
    def _counts(self) -> NDArray[np.float64]:
        counts = [np.bincount(self.codes[rows], self.often[rows], self.count) for rows in self.folds.trained.T]
        return np.stack(counts)

    def refuse_huge(self) -> None:
        """Raise if features in memory are too large for their differences, or scaled for sums of squares, in float32.

        Raises
        ------
        HeadError
            If they are.
        """
        if not isinstance(self.table, InMemoryFeatures):
            return  # as features are stored, in float16, they cannot be
        largest = float(np.abs(self.table.features).max(initial=0))
        if self.by_rows and largest > _FARTHEST:
            raise HeadError(f"expected features up to {_FARTHEST:g}, got {largest:g}: check the model and its weights")
        largest = float(np.abs(cast(InMemoryFeatures, self.scaled).features).max(initial=0))
        if largest > _LARGEST:
            raise HeadError(f"expected features up to {_LARGEST:g}, got {largest:g}: normalize them, as by 'standard'")

    def forget(self) -> None:
        """Give up the scaled features; they are computed again where they are needed."""
        for name in _COSTLY:
            self.__dict__.pop(name, None)

    def divided(self, folds: Folds) -> "Problem":
        """Return the same task on other folds."""
        found = replace(self, folds=folds)
        found.__dict__.update(self._kept())
        return found

    def whole(self) -> "Problem":
        """Return the task of training on all rows."""
        found = replace(self, folds=everything(len(self.codes)))
        found.__dict__.update(_scalings=[self.scaling] * 2, **{"scaled": self.scaled, **self._kept()})
        return found

    def _kept(self) -> dict[str, Any]:
        """Return what is costly, and does not depend on the folds."""
        return {name: self.__dict__[name] for name in _COSTLY if name in self.__dict__}

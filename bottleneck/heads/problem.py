"""The input of a family: labelled features, folds, scaling and weights."""

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

_MAX_MAGNITUDE = 1e15  # of numbers that are squared and summed in float32
_CACHED = ("scaled", "centre", "centred")  # computed from all features, independent of the folds
_MAX_OFFSET = 1e35  # of numbers that are subtracted, and multiplied by weights


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A classification problem: labelled features with folds.

    Parameters
    ----------
    table : FeatureTable
        Features ``(n, d)`` as cached.
    codes : ndarray of int, shape (n,)
        The class of each row, from 0 to `count` - 1.
    count : int
        k, the number of classes.
    folds : Folds
    normalize : str
        See `bottleneck.heads.features.scalings`.
    balanced : bool
        Whether all classes of a fold have the same total weight.
    class_weights : ndarray of float64, shape (k,), optional
        Weights of the classes.
    row_weights : ndarray of float64, shape (n,), optional
        Weights of the rows, above 0; 1 by default.
    adjust_prior : bool
        Whether linear heads may add a fitted multiple of the log class priors to their scores.
    seed : int
        Seed of randomised training.
    arrays : Arrays
        The device.
    weight : float
        Weight of every row: in a subsample, the number of rows that each represents.
    origin : ndarray of int, shape (n,), optional
        In a subsample, the index of each row in the full problem; by default all rows.
    """

    table: FeatureTable
    codes: Codes
    count: int
    folds: Folds
    normalize: Normalize = "shrunk"
    balanced: bool = False
    class_weights: NDArray[np.float64] | None = None
    row_weights: NDArray[np.float64] | None = None
    adjust_prior: bool = True
    seed: int = 0
    arrays: Arrays
    weight: float = 1.0
    origin: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))

    def __post_init__(self) -> None:
        if not len(self.origin):
            object.__setattr__(self, "origin", np.arange(len(self.codes)))

    @property
    def scaled_by_rows(self) -> bool:
        """Whether the scaling is fitted on the rows, and so differs between folds."""
        return self.normalize in OWN_VARIANCE

    @cached_property
    def _scalings(self) -> list[Scaling]:
        return scalings(self.table, self.folds.trained, self.normalize, self.row_weights)

    @property
    def scaling(self) -> Scaling:
        """The scaling fitted on all rows."""
        return self._scalings[0]

    @property
    def fold_scalings(self) -> list[Scaling]:
        """The scaling fitted on the training rows of each fold."""
        return self._scalings[1:]

    @cached_property
    def constant_folds(self) -> NDArray[np.bool_]:
        """Whether all features are constant in the training rows of a fold, ``(F,)``."""
        return np.array([scaling.constant.all() for scaling in self.fold_scalings], np.bool_)

    @cached_property
    def scaled(self) -> FeatureTable:
        """The features, with the scaling of all rows."""
        return scaled(self.table, self.scaling)

    @cached_property
    def centre(self) -> NDArray[np.float32]:
        """The mean of the scaled features, ``(d,)``."""
        return mean(self.scaled)

    @cached_property
    def centred(self) -> FeatureTable:
        """The scaled features minus their mean."""
        return scaled(self.scaled, Scaling(mean=self.centre, scale=np.ones_like(self.centre)))

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Whether the training part of a fold has rows of a class, ``(F, k)``."""
        return self._counts > 0

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """The weight of each row in each fold, ``(n, F)``; 0 if the fold does not train on it."""
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
    def sample_weight(self) -> NDArray[np.float64]:
        """The weight of each row, ``(n,)``."""
        return np.ones(len(self.codes)) if self.row_weights is None else self.row_weights

    @property
    def is_weighted(self) -> bool:
        """Whether the rows of a fold may have different weights."""
        return self.balanced or self.class_weights is not None or self.row_weights is not None

    @cached_property
    def _counts(self) -> NDArray[np.float64]:
        counts = [np.bincount(self.codes[rows], self.sample_weight[rows], self.count) for rows in self.folds.trained.T]
        return np.stack(counts)

    def check_magnitudes(self) -> None:
        """Check that features in memory can be subtracted, and once scaled, squared and summed, in float32.

        Raises
        ------
        HeadError
            If they are too large.
        """
        if not isinstance(self.table, InMemoryFeatures):
            return  # streamed features are float16 on disk, which are always small enough
        largest = float(np.abs(self.table.features).max(initial=0))
        if self.scaled_by_rows and largest > _MAX_OFFSET:
            raise HeadError(
                f"expected features up to {_MAX_OFFSET:g}, got {largest:g}: check the model and its weights"
            )
        largest = float(np.abs(cast(InMemoryFeatures, self.scaled).features).max(initial=0))
        if largest > _MAX_MAGNITUDE:
            raise HeadError(
                f"expected features up to {_MAX_MAGNITUDE:g}, got {largest:g}: normalize them, as by 'standard'"
            )

    def release_features(self) -> None:
        """Release the scaled features; they are computed again when needed."""
        for name in _CACHED:
            self.__dict__.pop(name, None)

    def with_folds(self, folds: Folds) -> "Problem":
        """Return the same problem with other folds."""
        found = replace(self, folds=folds)
        found.__dict__.update(self._cached())
        return found

    def on_all_rows(self) -> "Problem":
        """Return the problem with a single fold that trains on all rows."""
        found = replace(self, folds=everything(len(self.codes)))
        found.__dict__.update(_scalings=[self.scaling] * 2, **{"scaled": self.scaled, **self._cached()})
        return found

    def _cached(self) -> dict[str, Any]:
        """Return the computed properties that do not depend on the folds."""
        return {name: self.__dict__[name] for name in _CACHED if name in self.__dict__}

"""A sparse confusion matrix."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

DENSE = 100  # up to this number of classes, a confusion matrix is a list of lists


class Confusion(Sequence[list[int]]):
    """A sparse confusion matrix, whose rows are labels and whose columns are predictions.

    A sequence of rows, which are created on access, so that 100,000 classes take no more memory than their images.

    Parameters
    ----------
    size : int
        Number of classes, k.
    labels, predicted : ndarray of int, shape (m,)
        Row and column of each nonzero count, from 0 to k - 1.
    images : ndarray of int, shape (m,)
        The counts.

    Raises
    ------
    ValueError
        If a cell is outside of the matrix or occurs twice, or a count is below 1.
    """

    def __init__(
        self, size: int, labels: NDArray[np.int64], predicted: NDArray[np.int64], images: NDArray[np.int64]
    ) -> None:
        places = labels * size + predicted
        inside = all(((codes >= 0) & (codes < size)).all() for codes in (labels, predicted))
        if not inside or len(np.unique(places)) < len(places) or (images < 1).any():
            raise ValueError(f"expected positive counts in different cells of a {size} x {size} matrix")
        order = np.argsort(places)
        self.labels, self.predicted, self.images = labels[order], predicted[order], images[order]
        self._size = size

    @classmethod
    def of(cls, labels: NDArray[np.int64], predicted: NDArray[np.int64], size: int) -> "Confusion":
        """Return the confusion matrix of labels and predictions, both ``(n,)`` from 0 to `size` - 1."""
        places, images = np.unique(labels * size + predicted, return_counts=True)
        return cls(size, places // size, places % size, images.astype(np.int64))

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...
    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        rows = range(self._size)[index]
        return self._row(rows) if isinstance(rows, int) else [self._row(row) for row in rows]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Confusion):
            return list(self) == other if isinstance(other, list) else NotImplemented
        return self._size == len(other) and self.cells() == other.cells()

    def __repr__(self) -> str:
        return f"<Confusion: {self._size} classes, {int(self.images.sum())} images>"

    def correct_counts(self) -> NDArray[np.int64]:
        """Return the number of correctly predicted images of each class, ``(k,)``."""
        same = self.labels == self.predicted
        return self._sums(self.labels[same], self.images[same])

    def label_counts(self) -> NDArray[np.int64]:
        """Return the number of images of each class, ``(k,)``."""
        return self._sums(self.labels, self.images)

    def prediction_counts(self) -> NDArray[np.int64]:
        """Return the number of predictions of each class, ``(k,)``."""
        return self._sums(self.predicted, self.images)

    def cells(self) -> list[list[int]]:
        """Return ``[label, prediction, images]`` for each nonzero count, in order."""
        found: list[list[int]] = np.column_stack([self.labels, self.predicted, self.images]).tolist()
        return found

    def _row(self, row: int) -> list[int]:
        first, end = np.searchsorted(self.labels, [row, row + 1])
        counts = [0] * self._size
        for place, count in zip(self.predicted[first:end].tolist(), self.images[first:end].tolist(), strict=True):
            counts[place] = count
        return counts

    def _sums(self, codes: NDArray[np.int64], images: NDArray[np.int64]) -> NDArray[np.int64]:
        sums = np.zeros(self._size, np.int64)
        np.add.at(sums, codes, images)
        return sums


def as_json(confusion: Sequence[list[int]]) -> Any:
    """Return a confusion matrix as JSON: its rows, or with more than `DENSE` classes ``{"cells": [[...]]}``."""
    return {"cells": confusion.cells()} if isinstance(confusion, Confusion) else list(confusion)


def cells_of(confusion: Sequence[list[int]]) -> list[list[int]]:
    """Return ``[label, prediction, images]`` for each nonzero count of a confusion matrix, in order."""
    if isinstance(confusion, Confusion):
        return confusion.cells()
    return [[row, column, n] for row, counts in enumerate(confusion) for column, n in enumerate(counts) if n]


def predicted_classes(metrics: dict[str, Any]) -> list[str]:
    """Return the classes that are predicted for any image, given `bottleneck.evaluation.metrics.evaluate`."""
    confusion: Sequence[list[int]] = metrics["confusion"]
    if isinstance(confusion, Confusion):
        return [metrics["classes"][code] for code in np.unique(confusion.predicted).tolist()]
    return [name for name, counts in zip(metrics["classes"], zip(*confusion, strict=True), strict=True) if any(counts)]

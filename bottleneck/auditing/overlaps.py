"""Pairs of classes whose images a head confuses."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.stats import wilson_interval

OVERLAPPING = 0.05  # two classes overlap if more images of one are predicted as the other, by the end of the interval


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Two classes that features do not separate well.

    Parameters
    ----------
    classes : tuple of (str, str)
        The class whose images are confused more often comes first.
    confused : tuple of (int, int)
        Images of each class that are predicted as the other.
    images : tuple of (int, int)
        Images of each class.
    share : float
        The larger of the shares of the images of one class that are predicted as the other.
    share_ci95 : tuple of float
        Its 95 % interval, by Wilson.
    """

    classes: tuple[str, str]
    confused: tuple[int, int]
    images: tuple[int, int]
    share: float
    share_ci95: tuple[float, float]


def find_overlaps(
    codes: NDArray[np.intp], predicted: NDArray[np.intp], classes: tuple[str, ...], least: float = OVERLAPPING
) -> tuple[Overlap, ...]:
    """Return the pairs of classes that overlap, the most confused first.

    Parameters
    ----------
    codes, predicted : ndarray of int, shape (n,)
        Labels and out-of-fold predictions, as places in `classes`.
    classes : tuple of str
    least : float
        A pair is returned if the lower end of the interval of its share is larger.
    """
    pairs = list(_pairs(codes, predicted, classes))
    return tuple(
        sorted((pair for pair in pairs if pair.share_ci95[0] > least), key=lambda pair: (-pair.share, pair.classes))
    )


def _pairs(codes: NDArray[np.intp], predicted: NDArray[np.intp], classes: tuple[str, ...]) -> Iterator[Overlap]:
    counts = np.bincount(codes, minlength=len(classes))
    wrong = codes != predicted
    cells, found = np.unique(np.column_stack([codes[wrong], predicted[wrong]]), axis=0, return_counts=True)
    confused = {(a, b): count for (a, b), count in zip(cells.tolist(), found.tolist(), strict=True)}
    for a, b in sorted({(min(pair), max(pair)) for pair in confused}):
        first, second = sorted((a, b), key=lambda code: -confused.get((code, a + b - code), 0) / max(1, counts[code]))
        hits = confused.get((first, second), 0), confused.get((second, first), 0)
        images = int(counts[first]), int(counts[second])
        yield Overlap(
            classes=(classes[first], classes[second]),
            confused=hits,
            images=images,
            share=hits[0] / images[0],
            share_ci95=wilson_interval(hits[0], images[0]),
        )

"""Bad pictures: nearly uniform, very dark or bright, tiny, or of an extreme shape, each with its measured value."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.images.dataset import Dataset
from bottleneck.images.thumbnails import Thumbnails, grey_levels

UNIFORM, DARK, BRIGHT, TINY, SHAPE = "nearly uniform", "very dark", "very bright", "tiny", "extreme shape"
_RANGE = 8.0  # levels between the 2nd and the 98th percentile of a thumbnail; less is nearly uniform
_DARKEST, _BRIGHTEST = 16.0, 240.0  # levels of the 98th and the 2nd percentile
_SMALL_SHARE = 1 / 4  # of the median of the shorter sides
_SMALL = 8  # pixels
_PERCENTILES = (2, 98)  # of the pixels of a thumbnail
_BLOCK = 8192  # thumbnails
_RATIO, _TIMES_USUAL = 4.0, 2.0  # of the longer side to the shorter one, and of that to its median


@dataclass(frozen=True)
class BadPicture:
    """A picture that may be unusable.

    Parameters
    ----------
    path : str
    digest : str
        Hexadecimal.
    label : str or None
    kind : str
        ``nearly uniform``, ``very dark``, ``very bright``, ``tiny`` or ``extreme shape``.
    value, bound : float
        The measured value, and the bound that it is beyond.
    reason : str
        The rule, with both numbers.
    """

    path: str
    digest: str
    label: str | None
    kind: str
    value: float
    bound: float
    reason: str


@dataclass(frozen=True)
class _Rule:
    """A bound of a measured value.

    Parameters
    ----------
    kind : str
    values : ndarray of float64, shape (n,)
    bound : float
        Below it, a picture is bad; above it with `above`.
    text : str
        The reason, with ``{value}`` and ``{bound}``.
    """

    kind: str
    values: NDArray[np.float64]
    bound: float
    text: str
    above: bool = False

    def broken(self) -> NDArray[np.bool_]:
        broken: NDArray[np.bool_] = self.values > self.bound if self.above else self.values < self.bound
        return broken


def find_bad_pictures(dataset: Dataset, thumbnails: Thumbnails) -> tuple[BadPicture, ...]:
    """Return the bad pictures of a dataset, each image once and with its first broken rule.

    Parameters
    ----------
    dataset : Dataset
    thumbnails : Thumbnails
        Of the images of the dataset; those without one are ignored.

    Returns
    -------
    tuple of BadPicture
        In the order of the rules, the farthest beyond its bound first.

    Notes
    -----
    Brightness is measured on the thumbnail: its percentiles ignore a bright dot in a dark picture, and a picture with
    any visible shape is not uniform. Sizes and shapes are compared with the median of the dataset: digits of 8 x 8
    pixels are not tiny among others like them.
    """
    rows = dataset.first_rows()
    rows = rows[thumbnails.known[rows]]
    if not len(rows):
        return ()
    found: list[BadPicture] = []
    named = np.zeros(len(rows), bool)
    for rule in _rules(thumbnails.take(rows)):
        broken = rule.broken() & ~named
        named |= broken
        found += _pictures(dataset, rows, rule, np.flatnonzero(broken))
    return tuple(found)


def _rules(thumbnails: Thumbnails) -> Iterator[_Rule]:
    starts = range(0, len(thumbnails), _BLOCK)
    levels = [_levels(thumbnails.pixels[start : start + _BLOCK]) for start in starts]
    low, high, ranges = np.concatenate(levels, axis=1)
    shorter, longer = thumbnails.sizes.min(axis=1), thumbnails.sizes.max(axis=1)
    usual, ratios = float(np.median(shorter)), longer / shorter
    yield _Rule(
        UNIFORM,
        ranges,
        _RANGE,
        "its colours differ by {value:.0f} of 255 levels, less than {bound:.0f}: uniform",
    )
    yield _Rule(DARK, high, _DARKEST, "98 % of it is darker than level {value:.0f} of 255, below {bound:.0f}: dark")
    yield _Rule(
        BRIGHT,
        low,
        _BRIGHTEST,
        "98 % of it is brighter than level {value:.0f} of 255, above {bound:.0f}: bright",
        above=True,
    )
    least = max(usual * _SMALL_SHARE, min(_SMALL, usual))
    yield _Rule(
        TINY,
        shorter.astype(np.float64),
        least,
        f"its shorter side has {{value:.0f}} pixels, fewer than {{bound:.0f}}; the median is {usual:.0f}: tiny",
    )
    most = max(_RATIO, _TIMES_USUAL * float(np.median(ratios)))
    yield _Rule(
        SHAPE,
        ratios,
        most,
        "its longer side is {value:.1f} times the shorter one, more than {bound:.1f}: an extreme shape",
        above=True,
    )


def _levels(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return ``(3, n)``: two percentiles of the brightness, and the range of the colours between them."""
    flat = pixels.reshape(len(pixels), -1, 3)
    low, high = np.percentile(grey_levels(flat), _PERCENTILES, axis=1)
    darkest, brightest = np.percentile(flat, _PERCENTILES, axis=1)
    return np.stack([low, high, (brightest - darkest).max(axis=1)])


def _pictures(dataset: Dataset, rows: NDArray[np.intp], rule: _Rule, places: NDArray[np.intp]) -> Iterator[BadPicture]:
    beyond = -rule.values[places] if rule.above else rule.values[places]
    paths = [dataset.paths[int(rows[place])] for place in places]
    for order in sorted(range(len(places)), key=lambda i: (beyond[i], paths[i])):
        place = int(places[order])
        row, value = int(rows[place]), float(rule.values[place])
        yield BadPicture(
            path=dataset.paths[row],
            digest=dataset.digests[row].tobytes().hex(),
            label=dataset.labels[row],
            kind=rule.kind,
            value=round(value, 3),
            bound=round(rule.bound, 3),
            reason=rule.text.format(value=value, bound=rule.bound),
        )

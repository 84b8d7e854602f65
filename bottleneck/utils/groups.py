"""Encode groups of images as integers, and number the images of a group."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_codes(groups: Sequence[str | None] | None, count: int) -> NDArray[np.intp]:
    """Return an integer code for each of `count` images, equal within a group; None is a group of one image."""
    if groups is None:
        return np.arange(count)
    names = [f"group {group}" if group is not None else f"row {row}" for row, group in enumerate(groups)]
    return np.unique(np.array(names), return_inverse=True)[1]


def places_within(codes: NDArray[np.intp], order: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """Return the place, from 0, of each row among the rows of the same code.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        At least 0.
    order : ndarray of int, shape (n,), optional
        The order of the rows, a permutation; by default as they are.
    """
    rows = np.arange(len(codes)) if order is None else order
    grouped = rows[np.argsort(codes[rows], kind="stable")]
    counts = np.bincount(codes)
    places = np.empty(len(codes), np.intp)
    places[grouped] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return places

"""Encode groups of images as integers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_codes(groups: Sequence[str | None] | None, count: int) -> NDArray[np.intp]:
    """Return an integer code for each of `count` images, equal within a group; None is a group of one image."""
    if groups is None:
        return np.arange(count)
    names = [f"group {group}" if group is not None else f"row {row}" for row, group in enumerate(groups)]
    return np.unique(np.array(names), return_inverse=True)[1]

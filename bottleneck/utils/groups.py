"""Groups of images as numbers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def group_codes(groups: Sequence[str | None] | None, count: int) -> NDArray[np.intp]:
    """Return a number from 0 for each of `count` images, equal for images of one group; None is a group of its own."""
    if groups is None:
        return np.arange(count)
    names = [f"group {group}" if group is not None else f"row {row}" for row, group in enumerate(groups)]
    return np.unique(np.array(names), return_inverse=True)[1]

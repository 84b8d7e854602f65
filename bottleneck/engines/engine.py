"""What an engine is."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Runs one backbone on batches of pixels.

    Attributes
    ----------
    name : str
        ``"torch cpu"``, say; shown to the user, and no part of the spec.
    batch_size : int
        How many images it takes at once.
    """

    name: str
    batch_size: int

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``, with b at most `batch_size`."""
        ...

"""What an engine is."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Runs one backbone on batches of pixels.

    Attributes
    ----------
    name : str
        ``"openvino 2026.4.1, cpu"``, say; shown to the user, and no part of the spec.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``.
    batch_size : int
        How many images it takes at once.
    parallel : int
        From how many threads it wants to be called at the same time.
    """

    name: str
    precision: str
    batch_size: int
    parallel: int

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``, with b at most `batch_size`.

        A smaller batch is padded to `batch_size`, so that the features of an image do not depend, in the last bit, on
        how many others came along.
        """
        ...

    def close(self) -> None:
        """Give back what the engine has set for the whole process; it is not called again."""
        ...


def padded(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return a contiguous batch of `count` images, those that lack black."""
    if len(pixels) == count:
        return np.ascontiguousarray(pixels)
    return np.concatenate([pixels, np.zeros((count - len(pixels), *pixels.shape[1:]), np.uint8)])

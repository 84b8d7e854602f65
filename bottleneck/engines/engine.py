"""The interface of engines."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Runs one backbone on batches of pixels.

    Attributes
    ----------
    name : str
        For example ``"openvino 2026.4.1, cpu"``; shown to the user, not part of the spec.
    precision : str
        ``fp32``, ``bf16`` or ``fp16``.
    batch_size : int
        Number of images per batch.
    parallel : int
        Number of threads that should call it at the same time.
    """

    name: str
    precision: str
    batch_size: int
    parallel: int

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features ``float32 (b, d)`` of ``uint8 (b, h, w, 3)``, with b at most `batch_size`.

        A smaller batch is padded to `batch_size`, so that the features of an image do not depend on the size of its
        batch, not even in the last bit.
        """
        ...

    def close(self) -> None:
        """Restore the settings that the engine changed; it is not called again."""
        ...


def padded(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return a contiguous batch padded to `count` images with black ones."""
    if len(pixels) == count:
        return np.ascontiguousarray(pixels)
    return np.concatenate([pixels, np.zeros((count - len(pixels), *pixels.shape[1:]), np.uint8)])

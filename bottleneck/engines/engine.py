"""What an engine is, and what a user may ask of one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ModelError

ENGINES = ("auto", "torch", "openvino")


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


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Which engine a user asks for.

    Parameters
    ----------
    engine : str
        One of `ENGINES`.
    device : str, optional
        As in ``torch.device``; by default a GPU where there is one.
    batch_size : int, optional
        Images that pass the network at once; by default 8 on a CPU and 128 on a GPU.
    compile : bool
        Whether torch compiles the network first (``torch.compile``), which takes up to some minutes.

    Raises
    ------
    ModelError
        If there is no such engine, or the wishes exclude each other.
    """

    engine: str = "auto"
    device: str | None = None
    batch_size: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ModelError(f"expected --engine {', '.join(ENGINES)}, got {self.engine!r}")
        if self.engine == "openvino" and self.device not in (None, "cpu"):
            raise ModelError(f"expected --device cpu, on which the engine openvino runs, got {self.device!r}")
        if self.compile and self.engine == "openvino":
            raise ModelError("--compile is about the engine torch, got --engine openvino")


def padded(pixels: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return a contiguous batch of `count` images, those that lack black."""
    if len(pixels) == count:
        return np.ascontiguousarray(pixels)
    return np.concatenate([pixels, np.zeros((count - len(pixels), *pixels.shape[1:]), np.uint8)])

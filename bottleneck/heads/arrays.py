"""One array interface over NumPy and torch, limited to the functions that the solver uses."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError

Array = Any  # a NumPy array or a torch tensor


class Arrays:
    """The device and array library that the solver uses.

    Parameters
    ----------
    device : str
        ``cpu`` selects NumPy, which imports ten times faster than torch and multiplies matrices as fast. Any other
        value is a torch device (``cuda``, ``cuda:1``, or ``torch`` for torch on the CPU).
    cores : int
        Number of Python threads for NumPy, see `bottleneck.heads.threads`.

    Attributes
    ----------
    xp : module
        ``numpy`` or ``torch``: exp, log, where, einsum, matmul and sum have the same names in both.

    Raises
    ------
    HeadError
        If the device is unknown to torch or not available.
    """

    def __init__(self, device: str = "cpu", cores: int = 1) -> None:
        self.device = device
        self.cores = cores if device == "cpu" else 1
        self.xp: Any = np
        if device == "cpu":
            return
        self.xp = torch = import_module("torch")
        try:
            self._device = torch.device("cpu" if device == "torch" else device)
            if self._device.type == "mps":
                raise HeadError("heads need float64 sums, which Apple's GPU does not support: omit --device")
            torch.zeros(1, device=self._device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # AssertionError: torch without CUDA
            first = str(error).splitlines()[0].split(". ")[0]
            raise HeadError(f"expected a device that is available, got {device!r}: {first}. Omit --device") from error

    def put(self, array: NDArray[Any]) -> Array:
        """Return a NumPy array on the device."""
        return array if self.xp is np else self.xp.as_tensor(array, device=self._device)

    def get(self, array: Array) -> NDArray[Any]:
        """Return a device array as a NumPy array."""
        return array if self.xp is np else np.asarray(array.cpu().numpy())

    def zeros(self, *shape: int, exact: bool = False) -> Array:
        """Return zeros in float32, or in float64 if `exact`."""
        return self.put(np.zeros(shape, np.float64 if exact else np.float32))

    def range(self, count: int) -> Array:
        """Return ``0 ... count - 1``."""
        return self.put(np.arange(count))

    def single(self, array: Array) -> Array:
        """Return the array in float32."""
        return array.astype(np.float32) if self.xp is np else array.float()

    def double(self, array: Array) -> Array:
        """Return the array in float64."""
        return array.astype(np.float64) if self.xp is np else array.double()

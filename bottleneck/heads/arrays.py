"""NumPy, or torch on a device, behind the few names that the solver needs of both."""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError

Array = Any  # a NumPy array or a torch tensor


class Arrays:
    """Where the solver computes.

    Parameters
    ----------
    device : str
        ``cpu`` is NumPy, whose import takes a tenth of torch's and whose products are as quick; any other is torch's
        (``cuda``, ``cuda:1``, and ``torch`` for torch on the CPU).
    cores : int
        How many threads of ours NumPy may compute in, see `bottleneck.heads.cores`.

    Attributes
    ----------
    xp : module
        ``numpy`` or ``torch``: exp, log, where, einsum, matmul and sums have the same names in both.

    Raises
    ------
    HeadError
        If torch does not know the device, or it is not there.
    """

    def __init__(self, device: str = "cpu", cores: int = 1) -> None:
        self.device = device
        self.cores = cores if device == "cpu" else 1
        self.xp: Any = np
        if device == "cpu":
            return
        self.xp = torch = import_module("torch")
        try:
            self._place = torch.device("cpu" if device == "torch" else device)
            if self._place.type == "mps":
                raise HeadError("heads are summed in float64, which Apple's GPU has not: leave --device out")
            torch.zeros(1, device=self._place)
        except (RuntimeError, AssertionError, NotImplementedError) as error:  # of a torch without CUDA
            first = str(error).splitlines()[0].split(". ")[0]
            raise HeadError(f"expected a device that is here, got {device!r}: {first}. Leave --device out") from error

    def put(self, array: NDArray[Any]) -> Array:
        """Return the array where it is computed with."""
        return array if self.xp is np else self.xp.as_tensor(array, device=self._place)

    def get(self, array: Array) -> NDArray[Any]:
        """Return the array as NumPy's."""
        return array if self.xp is np else np.asarray(array.cpu().numpy())

    def zeros(self, *shape: int, exact: bool = False) -> Array:
        """Return zeros, float32, or float64 to sum `exact` in."""
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

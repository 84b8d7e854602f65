"""What a family of heads is, and which there are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError

Weights = tuple[NDArray[np.float32], NDArray[np.float32]]  # (k, d), (k,)
Codes = NDArray[np.intp]  # (n,), the class of each row as a number from 0 to k - 1

FitPath = Callable[[NDArray[np.float32], Codes, int, Sequence[float], int], list[Weights]]

NAMES = ("logistic", "svm", "softmax")


@dataclass(frozen=True)
class Family:
    """A family of linear heads with one parameter, C: the inverse of the strength of the L2 penalty.

    The objective is ``|W|^2 / 2 + C * sum of losses`` on standardised features; each module says how near its solver
    comes, and whether the bias is penalised.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    grid : tuple of float
        The values of C that are searched by default, rising.
    fit_path : callable
        ``(features (n, d) standardised, codes (n,), k, Cs, seed)`` to the weights at each C. Classes that no row
        has get weights that never win.
    threads : bool
        Whether several fits may run at once in one process and still give the same weights.
    """

    name: str
    grid: tuple[float, ...]
    fit_path: FitPath
    threads: bool = True


def family(name: str) -> Family:
    """Return the family called `name`.

    Raises
    ------
    HeadError
        If there is none.
    """
    if name not in NAMES:
        raise HeadError(f"expected a head of {', '.join(NAMES)}, got {name!r}")
    found: Family = import_module(f"bottleneck.heads.{name}").FAMILY
    return found


def spread(weights: NDArray[np.float64], bias: NDArray[np.float64], present: Codes, count: int) -> Weights:
    """Return weights for all `count` classes, from those of the classes that were `present` in training.

    A decision between two classes comes as one row, the score of the second; it becomes the two rows ``(-w, w)``.
    """
    if len(present) == 2 and len(weights) == 1:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    all_weights = np.zeros((count, weights.shape[1]), np.float32)
    all_bias = np.full(count, np.float32(-1e30))
    all_weights[present], all_bias[present] = weights, bias
    return all_weights, all_bias

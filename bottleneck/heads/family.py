"""The base class of families of heads, and their registry."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import HeadError
from bottleneck.heads.features import Scaling
from bottleneck.heads.head import Head
from bottleneck.heads.problem import Problem

Params = dict[str, float]

NAMES = ("logistic", "svm", "softmax", "ridge", "knn", "centroid")
MASKED = -1e30  # the bias of a class without rows in the training part of a fold
DECADES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Validation(Protocol):
    """Out-of-fold scores at each point of a grid."""

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield each tested row once, as (rows (b,), scores (g, b, k)); below ``MASKED / 10`` for unknown classes."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The fitted parameters of a head, without class names and scaling.

    Parameters
    ----------
    form : type
        Class of the head.
    parts : dict
        Parameters of that class.
    """

    form: type[Head]
    parts: dict[str, Any]

    def head(self, family: str, classes: Sequence[str], scaling: Scaling, fingerprint: str = "") -> Head:
        """Return the uncalibrated head with class names and scaling."""
        return self.form(
            family=family,
            classes=tuple(classes),
            mean=scaling.mean,
            scale=scaling.scale,
            unit=scaling.unit,
            fingerprint=fingerprint,
            **self.parts,
        )


class Family(ABC):
    """A family of heads.

    Attributes
    ----------
    name : str
        One of `NAMES`.
    title : str
        Its name in messages.
    streams : bool
        Whether it can be trained on features that do not fit into memory.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    streams: ClassVar[bool] = True

    def working_bytes(self, rows: int) -> int:
        """Return the working memory in bytes, without the features, if it grows faster than the number of rows."""
        return 0

    @abstractmethod
    def grid(self, problem: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the points to search, simplest first; a `full` search has more."""

    @abstractmethod
    def cross_validate(self, problem: Problem, points: Sequence[Params]) -> Validation:
        """Train at each point on each fold, and score its tested rows."""

    def cross_validate_all(self, problems: Sequence[Problem], points: Sequence[Params]) -> Sequence[Validation]:
        """Cross-validate on several divisions of the same rows; see `cross_validate`."""
        return [self.cross_validate(problem, points) for problem in problems]

    def path_facts(self, problem: Problem, points: Sequence[Params]) -> dict[str, Any]:
        """Return further statistics of the points for the card of a run, as a JSON object."""
        return {}

    @abstractmethod
    def fit(self, problem: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Train on all rows; a `validation` that includes the point may provide a warm start.

        Raises
        ------
        HeadError
            If the fit is not finite.
        """


def family(name: str, **options: Any) -> Family:
    """Return the family called `name`.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    **options
        Options of the family: ``kernel`` of svm, ``dropout`` and ``epochs`` of softmax.

    Raises
    ------
    HeadError
        If the name or an option is unknown.
    """
    if name not in NAMES:
        raise HeadError(f"expected a head of {', '.join(NAMES)}, got {name!r}")
    make = import_module(f"bottleneck.heads.{name}").make
    try:
        found: Family = make(**options)
    except TypeError:
        raise HeadError(f"the head {name} has no option {', '.join(options)}") from None
    return found


def of_C(values: Sequence[float]) -> tuple[Params, ...]:
    """Return the points of a grid over C."""
    return tuple({"C": float(value)} for value in values)


def finer(values: Sequence[float]) -> tuple[float, ...]:
    """Return an increasing grid with two more values between neighbours and one more decade at each end."""
    low, high = np.log10([values[0] / 10, values[-1] * 10])
    return tuple(float(f"{value:.3g}") for value in np.logspace(low, high, 3 * (len(values) + 1) + 1))

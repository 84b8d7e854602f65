"""What a family of heads is, and which there are."""

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
NEVER = -1e30  # the bias of a class that a fold has no rows of
DECADES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


class Validation(Protocol):
    """What the heads of all folds say of the rows that they were not trained on, at each point of a grid."""

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Yield each tested row once, as (rows (b,), scores (g, b, k)); below ``NEVER / 10`` for unknown classes."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A head without the names of its classes.

    Parameters
    ----------
    form : type
        Of the head.
    parts : dict
        The form's own parameters.
    """

    form: type[Head]
    parts: dict[str, Any]

    def head(self, family: str, classes: Sequence[str], scaling: Scaling, fingerprint: str = "") -> Head:
        """Return the head with its names and its scaling, not yet calibrated."""
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
        How it is called in a message.
    streams : bool
        Whether it can learn from features that do not fit into memory.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    streams: ClassVar[bool] = True

    def working_bytes(self, rows: int) -> int:
        """Return what it needs beside the features, where that grows faster than the rows do."""
        return 0

    @abstractmethod
    def grid(self, task: Problem, *, full: bool) -> tuple[Params, ...]:
        """Return the points that are searched, simplest first; more of them for a `full` search."""

    @abstractmethod
    def cross_validate(self, task: Problem, points: Sequence[Params]) -> Validation:
        """Train on each fold at each point."""

    def path_facts(self, task: Problem, points: Sequence[Params]) -> dict[str, Any]:
        """Return what else is known of the points, for a card; a JSON object."""
        return {}

    @abstractmethod
    def fit(self, task: Problem, point: Params, validation: Validation | None = None) -> Fitted:
        """Train on all rows; `validation`, of a grid that holds the point, may say where to begin.

        Raises
        ------
        HeadError
            If nothing finite comes of it.
        """


def family(name: str, **options: Any) -> Family:
    """Return the family called `name`.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    **options
        Of the family: ``kernel`` of svm, ``dropout`` and ``epochs`` of softmax.

    Raises
    ------
    HeadError
        If there is none, or it has no such option.
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
    """Return the points of a grid that has only C."""
    return tuple({"C": float(value)} for value in values)


def finer(values: Sequence[float]) -> tuple[float, ...]:
    """Return a rising grid with two more values between neighbours, and one decade more at each end."""
    low, high = np.log10([values[0] / 10, values[-1] * 10])
    return tuple(float(f"{value:.3g}") for value in np.logspace(low, high, 3 * (len(values) + 1) + 1))

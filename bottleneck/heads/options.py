"""How a head is searched and trained, as a user says it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family, family
from bottleneck.heads.search import Search, search
from bottleneck.heads.table import NORMALIZE, Features, Normalize, Table

SEARCHES = ("fast", "full")


def values_of(C: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return one value of C, or several, as a tuple."""
    if C is None:
        return None
    return (C,) if isinstance(C, (int, float)) else tuple(C)


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What `bottleneck.fit` describes.

    Parameters
    ----------
    C : tuple of float, optional
    folds : int
    normalize : str
    class_weight : str, optional
    search : str
    kernel : str
    dropout : float
    epochs : int, optional
    device : str
    seed : int

    Raises
    ------
    HeadError
        If one is not among what is possible.
    """

    C: tuple[float, ...] | None = None
    folds: int = 5
    normalize: Normalize = "standard"
    class_weight: str | None = None
    search: str = "fast"
    kernel: str = "linear"
    dropout: float = 0.0
    epochs: int | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, possible in (
            ("normalize", NORMALIZE),
            ("class_weight", (None, "balanced")),
            ("search", SEARCHES),
        ):
            if getattr(self, name) not in possible:
                known = ", ".join(map(str, possible))
                raise HeadError(f"expected {name} to be one of {known}, got {getattr(self, name)!r}")
        if self.C is not None and not all(isinstance(C, Real) and 0 < C < math.inf for C in self.C):
            raise HeadError(f"expected values of C above 0, got {', '.join(map(repr, self.C))}")
        if not 0 <= self.seed < 2**32:
            raise HeadError(f"expected a seed from 0 to 2^32 - 1, got {self.seed!r}")
        if self.folds < 2:
            raise HeadError(f"expected at least two folds, got {self.folds}")

    def family(self, name: str) -> Family:
        """Return the family called `name` with its own options.

        Raises
        ------
        HeadError
            If there is none, or an option is given that it has not.
        """
        return family(name, **self.own())

    def own(self) -> dict[str, Any]:
        """Return the options of families that are not the default."""
        defaults = {"kernel": "linear", "dropout": 0.0, "epochs": None}
        return {name: getattr(self, name) for name, usual in defaults.items() if getattr(self, name) != usual}

    def searched(
        self,
        head: str,
        features: Features | Table,
        labels: Sequence[str],
        groups: Sequence[str | None] | None,
        fingerprint: str,
    ) -> Search:
        """Return the head called `head`, searched with these options; see `bottleneck.heads.search.search`."""
        return search(
            features,
            labels,
            self.family(head),
            groups=groups,
            grid=self.C,
            folds=self.folds,
            normalize=self.normalize,
            balanced=self.class_weight == "balanced",
            full=self.search == "full",
            seed=self.seed,
            device=self.device,
            fingerprint=fingerprint,
        )

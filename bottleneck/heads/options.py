"""The user's options for the search and training of a head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bottleneck.errors import HeadError
from bottleneck.heads.family import Family, family
from bottleneck.heads.features import NORMALIZE, Features, FeatureTable, NormalizeOption
from bottleneck.heads.search import Search, search
from bottleneck.heads.selection import DEFAULT, RULES
from bottleneck.utils.arguments import Arguments, abbreviated

SEARCHES = ("fast", "full")
NORMALIZE_OPTIONS: tuple[NormalizeOption, ...] = ("auto", *NORMALIZE)

_CHECK = Arguments(HeadError)
_SEEDS = 2**32 - 1


def values_of(C: float | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return one or several values of C as a tuple.

    Raises
    ------
    HeadError
        If there is no value, or a value is not a finite number above 0.
    """
    if C is None:
        return None
    try:
        found = _CHECK.numbers("C", C)
    except HeadError:
        found = ()
    if not found:
        raise HeadError(f"expected values of C above 0, got {abbreviated(C)}")
    return found


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of a head, documented in `bottleneck.fit`.

    Parameters
    ----------
    C : tuple of float, optional
    folds : int
    normalize : str
    select : str
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
        If a value is invalid.
    """

    C: tuple[float, ...] | None = None
    folds: int = 5
    normalize: NormalizeOption = "auto"
    select: str = DEFAULT
    class_weight: str | None = None
    search: str = "fast"
    kernel: str = "linear"
    dropout: float = 0.0
    epochs: int | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        check, plain = _CHECK, {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, possible in (
            ("normalize", NORMALIZE_OPTIONS),
            ("select", tuple(RULES)),
            ("class_weight", (None, "balanced")),
            ("search", SEARCHES),
        ):
            plain[name] = check.optional(check.text, name, plain[name])
            if plain[name] not in possible:
                known = ", ".join(map(str, possible))
                raise HeadError(f"expected {name} to be one of {known}, got {plain[name]!r}")
        plain["C"] = values_of(self.C)
        plain["folds"] = check.whole("folds", self.folds, least=None)
        plain["kernel"] = check.text("kernel", self.kernel)
        plain["dropout"] = check.number("dropout", self.dropout, below=1)
        plain["epochs"] = check.optional(check.whole, "epochs", self.epochs, least=1)
        plain["device"] = check.text("device", self.device)
        plain["seed"] = check.whole("a seed", self.seed, most=_SEEDS)
        if plain["folds"] < 2:
            raise HeadError(f"expected at least two folds, got {self.folds}")
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    def family(self, name: str) -> Family:
        """Return the family called `name` with its options.

        Raises
        ------
        HeadError
            If the name is unknown, or the family does not have an option that is set.
        """
        return family(name, **self.family_options())

    def family_options(self) -> dict[str, Any]:
        """Return the options of families that differ from their defaults."""
        defaults = {"kernel": "linear", "dropout": 0.0, "epochs": None}
        return {name: getattr(self, name) for name, usual in defaults.items() if getattr(self, name) != usual}

    def search_head(
        self,
        head: str,
        features: Features | FeatureTable,
        labels: Sequence[str],
        groups: Sequence[str | None] | None,
        fingerprint: str,
    ) -> Search:
        """Search the family called `head` with these options; see `bottleneck.heads.search.search`."""
        return search(
            features,
            labels,
            self.family(head),
            groups=groups,
            grid=self.C,
            folds=self.folds,
            normalize=self.normalize,
            rule=self.select,
            balanced=self.class_weight == "balanced",
            full=self.search == "full",
            seed=self.seed,
            device=self.device,
            fingerprint=fingerprint,
        )

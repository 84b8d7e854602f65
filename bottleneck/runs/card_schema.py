"""The schema of a run's card: the types that readers rely on."""

from typing import Any, Literal, TypedDict

from bottleneck.utils.schema import Finite, Share, Whole, checked

VERSION = 1


class _Reference(TypedDict):
    """Refers to the file of a large part, see `bottleneck.runs.card_parts`."""

    sha256: str


class _Params(TypedDict, total=False):
    kernel: str
    dropout: Finite
    epochs: Whole | None


class _Search(TypedDict, total=False):
    cv_accuracy: Finite
    cv_ci95: tuple[Finite, Finite]
    cv_spread: Finite
    cv_balanced_accuracy: Finite
    folds: Whole
    searched: Whole
    select: str
    search: str
    C: list[Finite] | None


class _Accuracy(TypedDict):
    accuracy: Share


class _Metrics(_Accuracy, total=False):
    accuracy_ci95: tuple[Finite, Finite]


class _Digest(TypedDict):
    digest: str


class _Dataset(_Digest, total=False):
    images_digest: str
    source: str
    place: str | None
    images: Whole
    used: Whole
    shares: str
    splits: dict[str, Whole]
    columns: dict[str, str]
    labels: dict[str, Whole | str]  # str in a reference


class _Test(TypedDict):
    only_a: Whole
    only_b: Whole
    p_value: Share


class _AgainstHead(TypedDict):
    n: Whole
    only_tuned: Whole
    only_head: Whole
    p_value: Share
    verdict: Literal["better", "worse", "cannot tell"]


class _ByFolds(_AgainstHead):
    folds: Whole
    tuned_accuracy: Share
    head_accuracy: Share


class _Validated(TypedDict):
    n: Whole


class _Validation(_Validated, total=False):
    against_start: _Test | None


class _Spec(TypedDict, total=False):
    backbone: str
    precision: str
    flip: bool


class _Request(TypedDict, total=False):
    model: str
    weights: str


class _Final(TypedDict):
    n_train: Whole
    agreement: Share
    tested_sha256: str


class _Uncertainty(TypedDict):
    references: Whole
    calibrated: Whole
    calibrated_sets: Whole
    unseen: bool
    optimistic: bool


class _Coverage(TypedDict):
    promised: Share
    n: Whole
    covered: Share
    covered_ci95: tuple[Share, Share]
    mean_size: Finite


class _From(TypedDict, total=False):
    run: str | None


class _CardRequired(TypedDict):
    version: int
    classes: list[str] | _Reference
    dataset: _Dataset
    fingerprint: str
    metrics: _Metrics
    request: _Request | None
    spec: _Spec


_CardOptional = TypedDict(
    "_CardOptional",
    {
        "created": str,
        "folder": str,
        "kind": str,
        "head": str,
        "head_sha256": str,
        "uncertainty_sha256": str,
        "uncertainty": _Uncertainty,
        "coverage": list[_Coverage] | None,
        "model": str,
        "params": _Params,
        "normalize": str,
        "class_weight": str | None,
        "search": _Search,
        "final": _Final,
        "score": Finite | None,
        "seed": Whole,
        "heldout": Literal["val", "test"],
        "n_train": Whole,
        "n_heldout": Whole,
        "headline": Literal["cross-validation", "held-out"],
        "from": _From,
        "validation": _Validation,
        "heldout_test": _AgainstHead | None,
        "fold_test": _ByFolds | None,
        "own_weights": bool,
        "leaks": dict[str, Any] | None,
        "seconds": Finite,
    },
    total=False,
)


class _Card(_CardRequired, _CardOptional):
    """A card; those of earlier versions lack some keys."""


def checked_card(value: Any) -> dict[str, Any]:
    """Return a card unchanged after checking the types of its values.

    Raises
    ------
    ValueError
        If a type is wrong, or the card is of another version.
    """
    version = value.get("version") if isinstance(value, dict) else None
    if version != VERSION:
        raise ValueError(f"expected version {VERSION}, found {version!r:.50}")
    checked(value, _Card)
    if value.get("kind") != "finetune" or value.get("score") is None:
        checked(value, _Searched)
    classes = value["classes"]
    if isinstance(classes, list) and len(set(classes)) < len(classes):
        raise ValueError("expected each class once")
    found: dict[str, Any] = value
    return found


class _Scored(TypedDict):
    cv_accuracy: Finite


class _Searched(TypedDict):
    search: _Scored

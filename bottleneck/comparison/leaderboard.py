"""The result of a comparison: a row for each model and head, the best first."""

from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.heads.learning_curve import Curve
from bottleneck.images.dataset import Failure
from bottleneck.runs.card import params_text
from bottleneck.utils.text import counted, one_line

LEVEL = 0.05  # significance level of the tests


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """A model and a head.

    Parameters
    ----------
    model, spec : str
        The model as the user wrote it, and the spec of its features.
    head : str
    params : dict
        Chosen by the search.
    cv_accuracy : float
        Mean over the folds; for a fine-tuned network, `bottleneck.runs.run.Run.score`.
    cv_ci95 : tuple of float, or None
        See `bottleneck.evaluation.stats.cross_validated_interval`; None for a fine-tuned network, and for a head on its
        features, because the network was trained on the labels of all folds.
    cv_spread : float or None
        Standard deviation over the folds; None for a fine-tuned network.
    accuracy, balanced_accuracy, log_loss, ece : float
        On the held-out split; see `bottleneck.evaluation.metrics`.
    accuracy_ci95, resolution
        Wilson's interval of the accuracy, and half its width; it does not apply to a difference of two accuracies.
    p_value : float or None
        P-value of McNemar's test against the best row, adjusted by Holm's method; None for the best.
    verdict : str
        ``best``, ``not told apart``, or, if p is below 0.05, ``worse`` or (rarely) ``better``.
    extracted : int
        Number of images that were extracted for this comparison.
    extract_seconds : float or None
        Duration of that; None if all features were cached.
    fit_seconds : float
        Duration of search and fit.
    dim : int
        Number of features of an image.
    feature_bytes : int
        Size of the features in the cache.
    """

    model: str
    spec: str
    head: str
    params: dict[str, Any]
    cv_accuracy: float
    cv_ci95: tuple[float, float] | None
    cv_spread: float | None
    accuracy: float
    accuracy_ci95: tuple[float, float]
    resolution: float
    balanced_accuracy: float
    log_loss: float
    ece: float
    p_value: float | None = None
    verdict: str = "best"
    extracted: int
    extract_seconds: float | None
    fit_seconds: float
    dim: int
    feature_bytes: int

    def __repr__(self) -> str:
        return one_line(self, self.model, self.head, f"accuracy {100 * self.accuracy:.1f} %", self.verdict)

    @property
    def significant(self) -> bool:
        """Whether it differs from the best at the level of 0.05."""
        return self.p_value is not None and self.p_value < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        intervals = {"cv_ci95": self.cv_ci95 and list(self.cv_ci95), "accuracy_ci95": list(self.accuracy_ci95)}
        return {**asdict(self), **intervals, "significant": self.significant}

    def to_record(self) -> dict[str, object]:
        """Return the row of a table by column: parameters as text, and each interval in two columns."""
        record = {**self.to_json(), "params": params_text(self.params)}
        record["ci95_low"], record["ci95_high"] = record.pop("accuracy_ci95")
        record["cv_ci95_low"], record["cv_ci95_high"] = record.pop("cv_ci95") or (None, None)
        return record


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A leaderboard.

    Parameters
    ----------
    rows : tuple of LeaderboardRow
        The best by cross-validation first, which is chosen without the held-out split.
    curve : Curve or None
        The learning curve of the best row.
    source : str
        The images.
    classes : tuple of str
    heldout : str
        The held-out split.
    n_train, n_heldout : int
        Number of images of both splits, the same for all rows.
    failures : tuple of Failure
        Images that not all models can use.
    remarks : tuple of str
        About models, heads and images that were left out.
    """

    rows: tuple[LeaderboardRow, ...]
    curve: Curve | None
    source: str
    classes: tuple[str, ...]
    heldout: str
    n_train: int
    n_heldout: int
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]

    def __repr__(self) -> str:
        best = f"best {self.best.model} {self.best.head}, accuracy {100 * self.best.accuracy:.1f} %"
        return one_line(self, counted(len(self.rows), "row"), best, self.source)

    @property
    def best(self) -> LeaderboardRow:
        """The best row by cross-validated accuracy; ties are broken by the size of the features."""
        return self.rows[0]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "source": self.source,
            "classes": list(self.classes),
            "heldout": self.heldout,
            "n_train": self.n_train,
            "n_heldout": self.n_heldout,
            "best": {"model": self.best.model, "head": self.best.head},
            "rows": [row.to_json() for row in self.rows],
            "curve": self.curve.to_json() if self.curve else None,
            "remarks": list(self.remarks),
            "failed": len(self.failures),
            "failures": [vars(failure) for failure in self.failures],
        }

    def to_rows(self) -> list[list[object]]:
        """Return the header and the rows of a table."""
        records = [row.to_record() for row in self.rows]
        return [list(records[0]), *(list(record.values()) for record in records)]

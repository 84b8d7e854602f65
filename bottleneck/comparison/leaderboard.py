"""What a comparison found: a row for each model and head, the best first."""

from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.heads.curve import Curve
from bottleneck.images.dataset import Failure
from bottleneck.runs.card import params_text
from bottleneck.utils.text import counted, one_line

LEVEL = 0.05  # of the tests


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """A model and a head.

    Parameters
    ----------
    model, spec : str
        As the user wrote it, and the spec of its features.
    head : str
    params : dict
        What was chosen.
    cv_accuracy : float
        Mean over the folds; of a fine-tuned network `bottleneck.runs.run.Run.score`.
    cv_ci95 : tuple of float, or None
        See `bottleneck.evaluation.stats.cross_validated_interval`; None of a fine-tuned network, and of a head on the
        features of one, whose folds have seen the labels.
    cv_spread : float or None
        Standard deviation over the folds; None of a fine-tuned network.
    accuracy, balanced_accuracy, log_loss, ece : float
        On the held-out part; see `bottleneck.evaluation.metrics`.
    accuracy_ci95, resolution
        Wilson's interval, and half its width: of this accuracy, not of a difference of two.
    p_value : float or None
        Of McNemar's test against the best row, adjusted by Holm's method for the number of rows; None for the best.
    verdict : str
        ``best``, ``not told apart``, or where p is below 0.05 ``worse`` or, seldom, ``better``.
    extracted : int
        How many images passed the network now.
    extract_seconds : float or None
        That took; None where all was cached.
    fit_seconds : float
        That search and fit took.
    dim : int
        d, the number of features of an image.
    feature_bytes : int
        What they take in the cache.
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
        """Whether it differs from the best, at the level of 0.05."""
        return self.p_value is not None and self.p_value < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        intervals = {"cv_ci95": self.cv_ci95 and list(self.cv_ci95), "accuracy_ci95": list(self.accuracy_ci95)}
        return {**asdict(self), **intervals, "significant": self.significant}

    def to_record(self) -> dict[str, object]:
        """Return single values by column: what was chosen as text, and each interval in two columns."""
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
        The best by cross-validation first. It is chosen without the held-out part.
    curve : Curve or None
        Of the best row.
    source : str
        The images.
    classes : tuple of str
    heldout : str
        The split that is held out.
    n_train, n_heldout : int
        The images of both parts, the same for all rows.
    failures : tuple of Failure
        Images that not all models can use.
    remarks : tuple of str
        On what was left out.
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
        """The best row by cross-validated accuracy; of equal ones that of the fewest bytes."""
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

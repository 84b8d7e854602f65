"""One row of a comparison: a model and a head."""

from dataclasses import asdict, dataclass
from typing import Any

from bottleneck.runs.card import params_text
from bottleneck.utils.text import one_line

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

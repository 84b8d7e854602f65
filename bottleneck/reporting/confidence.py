"""What the probabilities of a run are worth: reliability, and what is gained by answering only when it is sure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bottleneck.charts.line import Series, line_chart
from bottleneck.charts.markup import Markup
from bottleneck.charts.reliability import ReliabilityBin, reliability_chart
from bottleneck.evaluation.metrics import ECE_BINS
from bottleneck.evaluation.stats import wilson_interval

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
_MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class AnswerLevel:
    """What happens if only predictions of at least a probability are used.

    Parameters
    ----------
    least : float
    answered : int
        Images whose prediction has at least this probability.
    coverage : float
        Their share.
    accuracy : float or None
        The share of them that is right; None if there are none.
    interval : (float, float) or None
        Its 95 % interval, by Wilson.
    found : float
        The share of all images that are answered correctly.
    """

    least: float
    answered: int
    coverage: float
    accuracy: float | None
    interval: tuple[float, float] | None
    found: float


def reliability_bins(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> list[ReliabilityBin]:
    """Return the bins of the calibration error, see `bottleneck.evaluation.metrics.evaluate_probabilities`.

    Parameters
    ----------
    confidence : ndarray of float64, shape (n,)
        Probability of each predicted class.
    right : ndarray of bool, shape (n,)
    """
    places = np.clip(np.ceil(confidence * ECE_BINS).astype(np.intp) - 1, 0, ECE_BINS - 1)
    found = []
    for place in np.unique(places).tolist():
        inside = places == place
        n, hits = int(inside.sum()), int(right[inside].sum())
        low, high = wilson_interval(hits, n)
        found.append(ReliabilityBin(float(confidence[inside].mean()), hits / n, n, low, high))
    return found


def reliability_figure(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Markup:
    """Return the reliability diagram of n held-out images."""
    return reliability_chart(reliability_bins(confidence, right), title="How often predictions are right")


def answer_levels(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> list[AnswerLevel]:
    """Return what happens at each of `LEVELS`, of n held-out images."""
    return [_level(least, confidence, right) for least in LEVELS]


def coverage_figure(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> Markup:
    """Return a chart of precision, recall and coverage by the least probability of a prediction that is used."""
    values = np.unique(confidence)
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).astype(np.intp))
    levels = [_level(least, confidence, right) for least in values[places].tolist()]
    x = [level.least for level in levels]
    return line_chart(
        [
            Series("right, of those answered (precision)", x, [level.accuracy for level in levels]),
            Series("answered, of all (coverage)", x, [level.coverage for level in levels]),
            Series("answered and right, of all (recall)", x, [level.found for level in levels]),
        ],
        title="Answering only when sure",
        x_label="least probability that is accepted",
        y_label="share of images",
        percent_x=True,
    )


def _level(least: float, confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> AnswerLevel:
    answered = confidence >= least
    count, hits, n = int(answered.sum()), int(right[answered].sum()), max(1, len(confidence))
    return AnswerLevel(
        least=least,
        answered=count,
        coverage=count / n,
        accuracy=hits / count if count else None,
        interval=wilson_interval(hits, count) if count else None,
        found=hits / n,
    )

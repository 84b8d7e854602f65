"""What probabilities are worth."""

import numpy as np
import pytest

from bottleneck.evaluation.metrics import evaluate_probabilities
from bottleneck.reporting.confidence import answer_levels, coverage_figure, reliability_bins, reliability_figure

CONFIDENCE = np.array([0.55, 0.58, 0.85, 0.95, 0.99, 1.0])
RIGHT = np.array([False, True, True, False, True, True])


def test_bins_are_those_of_the_calibration_error():
    bins = reliability_bins(CONFIDENCE, RIGHT)
    assert sum(one.n for one in bins) == 6
    error = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / 6
    probabilities = np.column_stack([CONFIDENCE, 1 - CONFIDENCE])
    labels = ["a" if right else "b" for right in RIGHT]
    assert error == pytest.approx(evaluate_probabilities(labels, probabilities, ["a", "b"])["ece"])


def test_levels_count_the_answers_of_at_least_a_probability():
    found = {level.least: level for level in answer_levels(CONFIDENCE, RIGHT)}
    assert (found[0.5].coverage, found[0.5].accuracy, found[0.5].found) == (1.0, 4 / 6, 4 / 6)
    assert (found[0.95].answered, found[0.95].accuracy) == (3, 2 / 3)
    low, high = found[0.99].interval
    assert low < 1.0 <= high + 1e-9


def test_a_level_that_no_prediction_reaches_has_no_accuracy():
    (last,) = [level for level in answer_levels(np.array([0.6]), np.array([True])) if level.least == 0.99]
    assert (last.answered, last.accuracy, last.interval) == (0, None, None)


def test_figures_say_what_they_show():
    assert "<title>How often predictions are right</title>" in reliability_figure(CONFIDENCE, RIGHT)
    assert "answered, of all (coverage)" in coverage_figure(CONFIDENCE, RIGHT)


def test_a_chart_of_many_images_stays_small():
    confidence = np.linspace(0.5, 1, 50_000)
    assert len(coverage_figure(confidence, confidence > 0.6)) < 100_000

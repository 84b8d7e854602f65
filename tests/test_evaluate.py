import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from bottleneck.evaluate import evaluate, wilson_interval


def test_wilson_interval_is_that_of_the_textbook():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_is_symmetric_and_stays_within_0_and_1():
    low, high = wilson_interval(20, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(0, 20))
    assert high == 1.0


def test_metrics_are_those_of_scikit_learn():
    labels = ["a", "a", "a", "b", "b", "c", "c", "c", "c"]
    predicted = ["a", "b", "a", "b", "a", "c", "c", "a", "c"]
    found = evaluate(labels, predicted)
    assert found["n"] == 9
    assert found["accuracy"] == pytest.approx(6 / 9)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["per_class"]["c"] == {"precision": 1.0, "recall": 0.75, "f1": pytest.approx(6 / 7), "n": 4}


def test_confusion_has_labels_as_rows():
    found = evaluate(["a", "a", "b"], ["a", "b", "b"])
    assert found["classes"] == ["a", "b"]
    assert found["confusion"] == [[1, 1], [0, 1]]


def test_a_class_that_is_only_predicted_counts_as_wrong_and_not_as_recall():
    found = evaluate(["a", "a"], ["a", "z"])
    assert found["accuracy"] == 0.5
    assert found["balanced_accuracy"] == 0.5
    assert found["per_class"]["z"]["n"] == 0

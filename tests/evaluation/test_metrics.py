import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from bottleneck.evaluation.metrics import evaluate, evaluate_probabilities


@pytest.fixture
def guesses():
    """Return labels of 7 classes, and probabilities that favour the right one."""
    rng = np.random.default_rng(0)
    classes = list("abcdefg")
    labels = rng.choice(classes, 200)
    scores = rng.normal(size=(200, 7)) + 1.5 * (labels[:, None] == np.array(classes))
    powers = np.exp(scores)
    return labels.tolist(), powers / powers.sum(axis=1, keepdims=True), classes


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


def test_every_metric_is_equal_to_that_of_scikit_learn(guesses):
    labels, probabilities, classes = guesses
    predicted = [classes[code] for code in probabilities.argmax(axis=1)]
    labels = [label.replace("g", "f") for label in labels]  # one class is only predicted, one only listed
    names = [*classes, "nowhere"]
    found = evaluate(labels, predicted, names)
    each = precision_recall_fscore_support(labels, predicted, labels=names, zero_division=0.0)
    assert found["confusion"] == confusion_matrix(labels, predicted, labels=names).tolist()
    assert [list(row.values()) for row in found["per_class"].values()] == np.transpose(each).tolist()
    assert found["macro_f1"] == f1_score(labels, predicted, average="macro", zero_division=0.0)


def test_log_loss_brier_and_top_5_are_those_of_scikit_learn(guesses):
    labels, probabilities, classes = guesses
    found = evaluate_probabilities(labels, probabilities, classes)
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities, labels=classes))
    assert found["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=classes))
    assert found["mean_confidence"] == pytest.approx(probabilities.max(axis=1).mean())
    hot = np.array(labels)[:, None] == np.array(classes)
    assert found["brier"] == pytest.approx(((probabilities - hot) ** 2).sum(axis=1).mean())


def test_brier_of_two_classes_is_twice_that_of_scikit_learn():
    labels, positive = list("abba"), np.array([0.1, 0.7, 0.4, 0.6])
    found = evaluate_probabilities(labels, np.column_stack([1 - positive, positive]), ["a", "b"])
    assert found["brier"] == pytest.approx(2 * brier_score_loss(labels, positive, pos_label="b"))


def test_there_is_no_top_5_of_5_classes():
    assert evaluate_probabilities(["a"], np.full((1, 5), 0.2), list("abcde"))["top5_accuracy"] is None


def test_of_equal_probabilities_the_first_classes_are_the_top_5():
    equal = np.full((6, 6), 1 / 6)
    assert evaluate_probabilities(list("abcdef"), equal, list("abcdef"))["top5_accuracy"] == pytest.approx(5 / 6)


def test_the_calibration_error_is_the_weighted_gap_of_the_bins():
    # (0.6, 0.667]: two images, one right: |0.5 - 0.65|. (0.867, 0.933]: one, right: |1 - 0.9|. (0.933, 1]: |0 - 1|.
    probabilities = np.array([[0.64, 0.36], [0.66, 0.34], [0.1, 0.9], [0.0, 1.0]])
    found = evaluate_probabilities(["a", "b", "b", "a"], probabilities, ["a", "b"])
    assert found["ece"] == pytest.approx((2 * 0.15 + 1 * 0.1 + 1 * 1.0) / 4)
    assert found["ece_bins"] == 15


def test_a_confidence_on_the_border_of_two_bins_is_in_the_lower():
    # 9/15 is in (8/15, 9/15] with the first; together they are calibrated: 0.5 right, (0.6 + 0.55) / 2 confident.
    probabilities = np.array([[0.55, 0.45], [9 / 15, 6 / 15]])
    assert evaluate_probabilities(["a", "b"], probabilities, ["a", "b"])["ece"] == pytest.approx(0.075)


def test_an_unknown_class_has_the_probability_0():
    found = evaluate_probabilities(["z"], np.array([[0.3, 0.2, 0.1, 0.1, 0.1, 0.2]]), list("abcdef"))
    assert found["log_loss"] == pytest.approx(-np.log(1e-15))
    assert found["brier"] == pytest.approx(1 + 0.09 + 0.04 + 0.01 * 3 + 0.04)
    assert found["top5_accuracy"] == 0
    assert found["ece"] == pytest.approx(0.3)


def test_the_log_loss_of_probability_0_is_finite():
    assert evaluate_probabilities(["b"], np.array([[1.0, 0.0]]), ["a", "b"])["log_loss"] == pytest.approx(34.5388, 1e-5)

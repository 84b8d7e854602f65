"""Metrics in a notebook."""

import numpy as np

from bottleneck.evaluation.confusion import Confusion, cells_of
from bottleneck.evaluation.metrics_html import accuracy_html, confusion_html
from tests.markup import tables, text_in


def test_the_accuracy_is_told_with_its_interval():
    metrics = {"accuracy": 0.951, "accuracy_ci95": [0.9, 0.973], "n": 153}

    assert text_in(accuracy_html(metrics, "held-out image")) == (
        "95.1% of 153 held-out images classified correctly (95 % interval 90.0 to 97.3)"
    )
    assert text_in(accuracy_html({"accuracy": 0.5}, "image")) == "50.0% classified correctly"


def test_few_classes_are_a_chart():
    assert "label ants, prediction bees: 4" in confusion_html([[66, 4], [4, 79]], ["ants", "bees"])


def test_many_classes_are_the_most_frequent_confusions():
    codes = np.arange(30)
    confusion = Confusion.of(np.r_[codes, 3, 3, 5], np.r_[codes, 4, 4, 6], 30)
    names = [f"<{code}>" for code in codes]

    assert tables(confusion_html(confusion, names)) == [
        [["label", "prediction", "images"], ["<3>", "<4>", "2"], ["<5>", "<6>", "1"]]
    ]
    assert "no image is misclassified" in text_in(confusion_html(Confusion.of(codes, codes, 30), names))


def test_cells_are_those_of_a_dense_or_a_sparse_matrix():
    dense = [[66, 0], [4, 79]]
    sparse = Confusion(2, *(np.array(column) for column in zip([0, 0, 66], [1, 0, 4], [1, 1, 79], strict=True)))

    assert cells_of(dense) == cells_of(sparse) == [[0, 0, 66], [1, 0, 4], [1, 1, 79]]

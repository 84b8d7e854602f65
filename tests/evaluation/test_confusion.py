import json

import numpy as np
import pytest

from bottleneck.evaluation.confusion import DENSE, Confusion, as_json, predicted_classes
from bottleneck.evaluation.metrics import evaluate
from tests.variants import each


def confusion_of(labels, predicted, size):
    return Confusion.of(np.array(labels, np.int64), np.array(predicted, np.int64), size)


def test_a_confusion_matrix_is_a_sequence_of_its_rows():
    found = confusion_of([0, 0, 2, 2, 2], [0, 1, 2, 2, 0], 3)
    assert list(found) == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]
    assert found[-1] == [1, 0, 2]
    assert found[1:] == [[0, 0, 0], [1, 0, 2]]
    assert found == [[1, 1, 0], [0, 0, 0], [1, 0, 2]]
    assert np.sum(found) == 5
    assert found.cells() == [[0, 0, 1], [0, 1, 1], [2, 0, 1], [2, 2, 2]]
    with pytest.raises(IndexError):
        found[3]


def test_counts_are_sums_of_rows_columns_and_the_diagonal():
    draw = np.random.default_rng(0)
    labels, predicted = draw.integers(0, 50, (2, 1000))
    found, dense = confusion_of(labels, predicted, 50), np.zeros((50, 50), int)
    np.add.at(dense, (labels, predicted), 1)
    assert np.array_equal(np.array(found), dense)
    assert np.array_equal(found.correct_counts(), dense.diagonal())
    assert np.array_equal(found.label_counts(), dense.sum(axis=1))
    assert np.array_equal(found.prediction_counts(), dense.sum(axis=0))


@each("cell", [(3, 0, 1), (-1, 0, 1), (0, 3, 1), (0, 0, 0), (0, 0, -1)])
def test_an_invalid_count_is_refused(cell):
    with pytest.raises(ValueError, match="expected positive counts"):
        Confusion(3, *np.array([cell], np.int64).T)


def test_a_repeated_cell_is_refused():
    with pytest.raises(ValueError, match="different cells"):
        Confusion(3, *np.array([(0, 1, 1), (0, 1, 2)], np.int64).T)


@each("classes", [3, DENSE, DENSE + 1, 100_000])
def test_metrics_of_any_number_of_classes_are_those_of_their_images(classes):
    names = [f"c{number:06d}" for number in range(classes)]
    found = evaluate(["c000000", "c000001", "c000001"], ["c000000", "c000002", "c000002"], names)
    assert (found["n"], found["accuracy"], found["per_class"]["c000000"]["recall"]) == (3, 1 / 3, 1.0)
    assert isinstance(found["confusion"], Confusion) is (classes > DENSE)
    assert found["confusion"][1][:3] == [0, 0, 2]
    assert predicted_classes(found) == ["c000000", "c000002"]
    assert len(json.dumps(as_json(found["confusion"]))) < 50_000


def test_a_large_confusion_matrix_is_sparse_in_json():
    assert as_json(confusion_of([0, 1], [0, 0], 101)) == {"cells": [[0, 0, 1], [1, 0, 1]]}
    assert as_json([[1, 0], [0, 1]]) == [[1, 0], [0, 1]]

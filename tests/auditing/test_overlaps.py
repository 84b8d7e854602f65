import numpy as np
import pytest

from bottleneck.auditing.overlaps import find_overlaps
from bottleneck.evaluation.stats import wilson_interval

CLASSES = ("ant", "bee", "cat")


def test_the_most_confused_pair_comes_first_and_its_worse_class_before_the_other():
    codes = np.repeat([0, 1, 2], [100, 50, 100])
    predicted = codes.copy()
    predicted[100:120] = 0  # 20 of 50 bees are predicted as ants
    predicted[:5] = 1  # 5 of 100 ants as bees
    predicted[150:180] = 0  # 30 of 100 cats as ants
    found = find_overlaps(codes, predicted, CLASSES)
    assert [pair.classes for pair in found] == [("bee", "ant"), ("cat", "ant")]
    assert found[0].confused == (20, 5)
    assert found[0].images == (50, 100)
    assert found[0].share == pytest.approx(20 / 50)
    assert found[0].share_ci95 == pytest.approx(wilson_interval(20, 50))
    assert found[1].confused == (30, 0)


def test_a_small_class_that_is_predicted_as_a_large_one_overlaps():
    codes = np.repeat([0, 1], [1000, 20])
    (pair,) = find_overlaps(codes, np.zeros(1020, np.intp), ("ant", "bee"))
    assert pair.classes == ("bee", "ant")
    assert pair.share == 1


def test_a_few_errors_are_no_overlap():
    codes = np.repeat([0, 1, 2], 100)
    predicted = codes.copy()
    predicted[:8] = 1
    assert find_overlaps(codes, predicted, CLASSES) == ()
    assert [pair.classes for pair in find_overlaps(codes, predicted, CLASSES, least=0.01)] == [("ant", "bee")]
    assert find_overlaps(codes, codes, CLASSES) == ()

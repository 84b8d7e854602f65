import numpy as np
import pytest

from bottleneck.evaluation.conformal import PROMISES, Conformal, measured_coverage, needed
from bottleneck.heads.head import softmax
from tests.variants import each


def drawn(seed, count, classes=4):
    """Return probabilities, and classes that are drawn from them after they were made too certain."""
    random = np.random.default_rng(seed)
    scores = 2 * random.normal(size=(count, classes))
    codes = (softmax(scores).cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return softmax(3 * scores), codes


@each("coverage", [0.5, 0.9, 0.96])
def test_coverage_is_exact_over_calibration_sets(coverage):
    """With c = 24, the coverage of a set of level k / 25 is k / 25 on average."""
    covered = []
    for seed in range(400):
        shares, codes = drawn(seed, 24 + 25)
        sets = Conformal.of(shares[:24], codes[:24]).sets_with_empty_ones(shares[24:], coverage)
        covered.append(sets[np.arange(25), codes[24:]].mean())
    exact = np.ceil(25 * coverage - 1e-9) / 25
    assert np.mean(covered) == pytest.approx(exact, abs=5 * np.std(covered) / 20)


def test_sets_are_the_classes_above_a_probability_and_the_most_probable_one():
    shares = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    known = Conformal.of(shares, np.array([0, 0, 1, 0]))
    assert known.scores.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.6])
    new = np.array([[0.55, 0.45], [0.75, 0.25], [0.35, 0.65], [0.5, 0.5]])
    assert known.sets(new, 0.8).tolist() == [[True, True], [True, False], [False, True], [True, True]]
    assert known.sets_with_empty_ones(new, 0.2).tolist() == [[False, False]] * 4
    assert known.sets(new, 0.2).tolist() == [[True, False], [True, False], [False, True], [True, False]]


@each("coverage, least", [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999), (0.94, 16)])
def test_too_few_images_give_all_classes(coverage, least):
    assert needed(coverage) == least
    shares, codes = drawn(0, least)
    few, enough = Conformal.of(shares[1:], codes[1:]), Conformal.of(shares, codes)
    certain = np.array([[1.0, 0, 0, 0]])
    assert few.sets(certain, coverage).all()
    assert enough.sets(np.array([[0.97, 0.01, 0.01, 0.01]]), coverage).shape == (1, 4)
    assert not Conformal(np.zeros(least, np.float32)).sets(certain, coverage).all()


def test_the_measured_coverage_counts_unknown_labels_as_missed():
    known = Conformal(np.full(200, 0.3, np.float32))
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.5, 0.5]])
    found = measured_coverage(known, shares, ["a", "b", "new", "b"], ["a", "b"])
    assert [one["promised"] for one in found] == list(PROMISES)
    assert found[1]["covered"] == 0.5
    assert found[1]["n"] == 4
    assert found[1]["mean_size"] == 1.0
    assert found[1]["covered_ci95"] == pytest.approx([0.150, 0.850], abs=0.001)
    assert found[2]["promised"] == 0.99

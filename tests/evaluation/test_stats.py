from fractions import Fraction
from math import comb

import numpy as np
import pytest

from bottleneck.evaluation.stats import (
    accuracy_interval,
    cross_validated_interval,
    half_width,
    holm,
    is_guessing,
    mcnemar,
    wilson_interval,
)
from tests.variants import each


def test_wilson_interval_agrees_with_the_literature():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I: 81 of 263 and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_wilson_interval_is_symmetric_and_stays_within_0_and_1():
    low, high = wilson_interval(20, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson_interval(0, 20))
    assert high == 1.0


def test_a_cross_validated_interval_is_wilsons_with_corrections():
    low, high = cross_validated_interval(0.9, np.array([1.0] * 94 + [0.0] * 11))
    assert low == pytest.approx(wilson_interval(90, 100)[0])
    odds = 0.1 / 0.9 * 0.8**0.3
    assert high == pytest.approx(wilson_interval(100 / (1 + odds), 100)[1])
    assert wilson_interval(90, 100)[1] < high < wilson_interval(91, 100)[1]
    assert cross_validated_interval(0.9, np.ones(105), share=1.0) == pytest.approx(wilson_interval(90, 100))
    assert cross_validated_interval(0.0, np.zeros(105)) == pytest.approx(wilson_interval(0, 100))


def test_ungrouped_images_count_one_each():
    right = np.array([1.0] * 90 + [0.0] * 10)
    alone = cross_validated_interval(0.9, right)
    assert cross_validated_interval(0.9, right, [None] * 100) == alone
    assert cross_validated_interval(0.9, right, [f"g{row}" for row in range(100)]) == alone


def test_perfectly_correlated_groups_count_once_each():
    right = np.repeat([1.0] * 45 + [0.0] * 5, 4)  # 50 groups of four copies
    names = [f"g{row // 4}" for row in range(200)]
    low, high = cross_validated_interval(0.9, right, names)
    of_groups = cross_validated_interval(0.9, right[::4])
    assert (low, high) == pytest.approx(of_groups, abs=0.006)
    assert low < of_groups[0]  # few groups widen it a little more, by Student's t
    assert high > of_groups[1]


def test_uncorrelated_groups_hardly_widen_an_interval():
    right = np.tile([1.0] * 9 + [0.0], 40)
    names = [f"g{row // 10}" for row in range(400)]  # of each one in ten is wrong
    low, high = cross_validated_interval(0.9, right, names)
    alone = cross_validated_interval(0.9, right)
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.06)


def test_groups_without_errors_count_as_one_image_each():
    low, high = cross_validated_interval(1.0, np.ones(60), [f"g{row // 3}" for row in range(60)])
    assert high == pytest.approx(1)
    assert low == pytest.approx(cross_validated_interval(1.0, np.ones(20))[0], abs=0.03)


def test_groups_widen_a_held_out_interval():
    right = np.repeat([True] * 45 + [False] * 5, 4)
    alone, of_groups = accuracy_interval(right), accuracy_interval(right, [f"g{row // 4}" for row in range(200)])
    assert alone == wilson_interval(180, 200)
    assert of_groups == pytest.approx(wilson_interval(45, 50), abs=0.006)


def test_one_group_gives_no_information():
    assert accuracy_interval([True] * 5, ["p"] * 5) == (0, 1)
    assert cross_validated_interval(0.8, np.array([1.0, 1, 1, 1, 0]), ["p"] * 5) == (0, 1)


def test_an_image_without_a_group_is_a_group_of_one():
    right = np.array([1.0, 0, 1, 0, 1, 1])
    names = ["a", "a", None, None, "b", "b"]
    assert cross_validated_interval(4 / 6, right, names) == cross_validated_interval(4 / 6, right, list("aacdbb"))


@each("alike", [0.0, 0.3, 1.0])
@each("groups", [12, 60])
def test_the_interval_of_groups_covers_their_accuracy(alike, groups):
    random, truth, covered, replicates = np.random.default_rng(5), 0.85, 0, 400
    for _ in range(replicates):
        codes = np.repeat(np.arange(groups), random.geometric(0.25, groups))
        shared, own = random.random(groups)[codes] < truth, random.random(len(codes)) < truth
        right = np.where(random.random(groups)[codes] < alike, shared, own).astype(float)
        low, high = cross_validated_interval(float(right.mean()), right, [f"g{code}" for code in codes])
        covered += low <= truth <= high
    assert 0.91 <= covered / replicates <= 0.995


def test_half_width_is_half_of_the_interval():
    low, high = wilson_interval(81, 263)
    assert half_width(263, 81 / 263) == pytest.approx((high - low) / 2)
    assert half_width(100, 0.95) == pytest.approx(0.0452, abs=5e-4)
    assert half_width(10_000, 0.95) < half_width(100, 0.95) / 8


def differing(only_a, only_b, both=3):
    right_a = [True] * only_a + [False] * only_b + [True] * both
    return right_a, [False] * only_a + [True] * only_b + [True] * both


def test_mcnemar_agrees_with_the_literature():
    # Agresti 1990, "Categorical data analysis", table 10.1: approval of a prime minister, 150 against 86.
    found = mcnemar(*differing(150, 86))
    assert (found["only_a"], found["only_b"]) == (150, 86)
    assert found["p_value"] == pytest.approx(3.716e-5, rel=1e-3)


@each("only_a, only_b", [(0, 1), (0, 6), (3, 9), (9, 3), (40, 61), (350, 500)])
def test_mcnemar_is_twice_the_sum_of_the_binomial_tail(only_a, only_b):
    trials = only_a + only_b
    tail = Fraction(sum(comb(trials, k) for k in range(min(only_a, only_b) + 1)), 2**trials)
    assert mcnemar(*differing(only_a, only_b))["p_value"] == pytest.approx(float(min(1, 2 * tail)), rel=1e-9)


@each("count", [0, 1, 17, 50_000])
def test_equal_accuracies_have_the_p_value_1(count):
    assert mcnemar(*differing(count, count))["p_value"] == pytest.approx(1.0)


def test_mcnemar_of_very_many_images_is_finite():
    assert mcnemar(*differing(49_000, 51_000))["p_value"] == pytest.approx(2.57e-10, rel=0.01)  # normal: z = 6.32
    assert mcnemar(*differing(0, 100_000))["p_value"] == 0.0


def test_holm_adjusts_in_steps_and_keeps_the_order():
    # 4 * 0.005, 3 * 0.01, 2 * 0.03, then 1 * 0.04, which may not fall below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_of_none_one_and_large_ones():
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.7, 0.9]) == [1.0, 1.0]


def test_guessing_is_neither_better_than_the_largest_class_nor_balanced():
    assert is_guessing((0.4, 0.6), 0.52, [50, 50])
    assert not is_guessing((0.6, 0.8), 0.7, [50, 50])
    assert is_guessing((0.85, 0.95), 0.53, [90, 10])  # always the largest class
    assert not is_guessing((0.85, 0.95), 0.8, [90, 10])
    assert not is_guessing((0.85, 0.95), 0.8, [90, 10, 0])

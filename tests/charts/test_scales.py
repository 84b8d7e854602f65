"""Scales: positions, ticks, and numbers that cannot be drawn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.scales import Scale, is_drawable, scale_of
from tests.variants import each


def test_a_linear_scale_has_equal_distances():
    scale = Scale(10, 20, 100, 300)

    assert [scale(10), scale(15), scale(20)] == [100, 200, 300]


def test_a_logarithmic_scale_has_equal_ratios():
    scale = Scale(1, 100, 0, 10, log=True)

    assert [scale(1), scale(10), scale(100)] == pytest.approx([0, 5, 10])


def test_the_vertical_axis_points_up():
    assert Scale(0, 1, 200, 0)(0.25) == 150


def test_numbers_beyond_are_placed_at_the_ends():
    scale = Scale(0, 1, 0, 100)

    assert [scale(-5), scale(7)] == [0, 100]


@each(
    "low, high, most, texts",
    [
        (0, 1, 5, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 2300, 5, ["0", "500", "1,000", "1,500", "2,000"]),
        (-3, 3, 3, ["−2", "0", "2"]),
        (0.0011, 0.0019, 4, ["0.0012", "0.0014", "0.0016", "0.0018"]),
    ],
)
def test_ticks_are_round(low, high, most, texts):
    scale = Scale(low, high, 0, 1)

    assert scale.texts(scale.ticks(most)) == texts


@each(
    "low, high, most, texts",
    [
        (1e-6, 100, 9, ["10⁻⁶", "10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1", "10", "100"]),
        (1e-6, 100, 5, ["10⁻⁶", "10⁻⁴", "0.01", "1", "100"]),
        (15, 900, 8, ["20", "50", "100", "200", "500"]),
        (3.1, 4.4, 4, ["3.5", "4"]),
    ],
)
def test_ticks_of_a_logarithmic_scale(low, high, most, texts):
    scale = Scale(low, high, 0, 1, log=True)

    assert scale.texts(scale.ticks(most)) == texts


def test_percentages():
    scale = scale_of([0.62, 0.97], 0, 1, is_round=True, within=(0, 1))

    assert scale.texts(scale.ticks(5), as_percent=True) == ["60%", "70%", "80%", "90%", "100%"]


def test_an_axis_of_shares_does_not_go_beyond_them():
    assert scale_of([0.999, 1.0], 0, 1, is_round=True, within=(0, 1)).high == 1
    assert scale_of([0.0, 0.0], 0, 1, within=(0, 1)).low == 0


@each("value", [None, math.nan, math.inf, -math.inf, 1e200])
def test_numbers_without_a_place(value):
    assert not is_drawable(value)
    assert scale_of([value], 0, 1) == Scale(0, 1, 0, 1)


def test_only_positive_numbers_have_a_logarithm():
    assert [is_drawable(value, log=True) for value in (0.0, -1.0, 1e-9)] == [False, False, True]


@given(st.lists(st.floats(), max_size=5), st.booleans(), st.booleans())
def test_every_value_has_a_place_and_ticks_are_few_and_inside(values, log, is_round):
    scale = scale_of(values, 0, 100, log=log, is_round=is_round)
    ticks = scale.ticks(5)

    assert all(0 <= scale(value) <= 100 for value in values if is_drawable(value, log=log))
    assert len(ticks) < 20
    room = 1e-6 * (scale.high - scale.low)
    assert all(scale.low - room <= tick <= scale.high + room for tick in ticks)
    assert len(scale.texts(ticks)) == len(ticks)

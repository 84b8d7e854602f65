"""Numbers as text."""

import math

from bottleneck.charts.numbers import percent, plain, power_of_ten
from tests.variants import each


@each(
    "value, expected",
    [
        (0, "0"),
        (1234, "1,234"),
        (20000.0, "20,000"),
        (0.25, "0.25"),
        (3.14159, "3.14"),
        (-2, "−2"),
        (1e7, "10⁷"),
        (2.5e9, "2.5×10⁹"),
        (1e-5, "10⁻⁵"),
        (-3e-4, "−3×10⁻⁴"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
    ],
)
def test_numbers(value, expected):
    assert plain(value) == expected


def test_decimals_can_be_given():
    assert [plain(1, 1), plain(0.2, 2), percent(0.951), percent(0.5, 0), percent(-0.01)] == [
        "1.0",
        "0.20",
        "95.1%",
        "50%",
        "−1.0%",
    ]


def test_powers_of_ten():
    assert [power_of_ten(0.0001), power_of_ten(0.0003)] == ["10⁻⁴", "3×10⁻⁴"]

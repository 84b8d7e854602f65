"""Names in charts: too long, of other scripts, or from right to left."""

from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.labels import isolated, shortened, width_of
from tests.variants import each


@given(st.text(max_size=80), st.floats(20, 300))
def test_shortened_texts_fit(text, most):
    assert width_of(shortened(text, most)) <= most


@each("name", ["ants", "蜂", ""])
def test_short_names_stay(name):
    assert shortened(name, 100) == name


def test_the_middle_of_a_long_name_is_left_out():
    found = shortened("efficientnet_lite0 · logistic", 150)

    assert found.startswith("efficient")
    assert "…" in found
    assert found.endswith("istic")


def test_a_name_is_not_cut_between_a_letter_and_its_accent():
    head, tail = shortened("a" * 30 + "e\u0301" * 30, 120).split("…")

    assert head == "a" * len(head)
    assert tail.startswith("e")


def test_names_from_right_to_left_are_isolated():
    assert isolated("شجرة") == "\u2068شجرة\u2069"
    assert isolated("ants") == "ants"
    assert isolated("é") == "é"


def test_wide_characters_count_twice():
    assert width_of("蜂") > 1.5 * width_of("a")
    assert width_of("e\u0301") == width_of("e")

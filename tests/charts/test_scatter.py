"""Scatter plots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.scatter import ScatterPoint, scatter_chart
from tests.charts.svg import all_of, checked, names, numbers, texts, tooltips

_NAMES = {"title": "Cost", "x_label": "seconds", "y_label": "accuracy"}
POINTS = [ScatterPoint("fast", 1, 0.5, True), ScatterPoint("slow", 100, 0.9, True), ScatterPoint("beaten", 10, 0.4)]


def test_points_are_where_their_numbers_are():
    root = checked(scatter_chart(POINTS, log_x=True, **_NAMES))
    fast, slow, beaten = (float(one.attrib["cx"]) for one in all_of(root, "circle"))

    assert beaten - fast == pytest.approx(slow - beaten, abs=0.02)
    assert {"fast", "slow", "beaten"} <= set(texts(root))
    assert "slow: 90.0%, seconds 100" in tooltips(root)


def test_the_front_is_filled_joined_and_in_the_description():
    chart = scatter_chart(POINTS, log_x=True, **_NAMES)
    root = checked(chart)

    assert ["fill:none" in one.attrib["style"] for one in all_of(root, "circle")] == [False, False, True]
    assert len(all_of(root, "path")) == 1
    assert "<desc>on the front: fast: 50.0%, seconds 1; slow: 90.0%, seconds 100</desc>" in chart


def test_labels_without_room_are_tooltips_only():
    crowd = [ScatterPoint(f"point {i}", 1 + i / 1e4, 0.5, True) for i in range(50)]
    root = checked(scatter_chart(crowd, **_NAMES))

    assert len(tooltips(root)) == 50
    assert len([text for text in texts(root) if text.startswith("point")]) < 20


def test_of_many_points_only_the_front_has_labels():
    crowd = [ScatterPoint(f"point {i}", i, 0.5 + i / 100, i == 3) for i in range(1, 12)]

    assert [text for text in texts(checked(scatter_chart(crowd, **_NAMES))) if "point" in text] == ["point 3"]


def test_without_data_it_says_so():
    assert "no data to show" in texts(checked(scatter_chart([ScatterPoint("a", 0, 0.5)], log_x=True, **_NAMES)))


@given(st.lists(st.builds(ScatterPoint, names, numbers, numbers, st.booleans()), max_size=5), names, st.booleans())
def test_any_numbers_and_names_make_a_chart(points, name, option):
    checked(scatter_chart(points, title=name, x_label=name, y_label=name, log_x=option, percent_y=option))

"""Line charts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.line import MarkedPoint, Series, line_chart
from tests.charts.svg import all_of, checked, names, numbers, texts, tooltips
from tests.variants import each

_NAMES = {"title": "Accuracy", "x_label": "epoch", "y_label": "accuracy"}


def _places(root):
    return [(float(one.attrib["cx"]), float(one.attrib["cy"])) for one in all_of(root, "circle")]


def test_points_are_where_their_numbers_are():
    root = checked(line_chart([Series("a", [0, 1, 2], [0.0, 0.5, 1.0])], **_NAMES))
    (x0, y0), (x1, y1), (x2, y2) = _places(root)

    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert y0 > y2  # larger is higher


def test_ratios_are_equal_distances_on_a_logarithmic_axis():
    root = checked(line_chart([Series("C", [0.01, 0.1, 1, 10], [0.9] * 4)], log_x=True, **_NAMES))
    xs = [x for x, _ in _places(root)]

    assert np.ptp(np.diff(xs)) < 0.05
    assert {"0.01", "0.1", "1", "10"} <= set(texts(root))


def test_tooltips_have_the_numbers():
    root = checked(line_chart([Series("a", [3], [0.951], [0.9], [0.97])], **_NAMES))

    assert "epoch 3: 95.1% (90.0% to 97.0%)" in tooltips(root)


def test_the_description_is_the_first_and_the_last_point_unless_it_is_given():
    made = [Series("cv", [1, 9], [0.5, 0.75])]

    assert "<desc>cv: 50.0% at 1, 75.0% at 9</desc>" in line_chart(made, **_NAMES)
    assert "<desc>It rises.</desc>" in line_chart(made, description="It rises.", **_NAMES)


def test_a_number_that_is_missing_interrupts_the_line():
    root = checked(line_chart([Series("a", [1, 2, 3, 4, 5], [0.1, 0.2, math.nan, 0.4, 0.5])], **_NAMES))

    assert len([one for one in all_of(root, "path") if "fill:none" in one.attrib["style"]]) == 2
    assert len(all_of(root, "circle")) == 4


def test_whole_numbers_have_ticks_without_decimals():
    root = checked(line_chart([Series("a", [1, 2, 3], [0.1, 0.2, 0.3])], **_NAMES))

    assert {"1", "2", "3"} <= set(texts(root))
    assert "1.5" not in texts(root)


def test_each_series_has_another_colour_dash_and_shape_and_stands_in_the_legend():
    made = [Series(name, [1, 2], [0.1 * place, 0.2]) for place, name in enumerate(["train", "val"])]
    root = checked(line_chart(made, **_NAMES))
    lines = [one for one in all_of(root, "path") if "fill:none" in one.attrib["style"]]

    assert {one.attrib.get("stroke-dasharray") for one in lines} == {None, "6 3"}
    assert {"train", "val"} <= set(texts(root))


def test_a_forecast_has_the_colour_of_its_series():
    measured, ahead = Series("cv", [1, 2], [0.8, 0.9]), Series("forecast", [2, 4], [0.9, 0.95], forecast=True)
    root = checked(line_chart([measured, ahead], **_NAMES))

    assert "--chart-2" not in line_chart([measured, ahead], **_NAMES)
    assert [one for one in all_of(root, "circle") if "fill:none" in one.attrib["style"]]


def test_many_points_are_thinned_and_keep_their_extremes():
    y = np.full(20_000, 0.5)
    y[12_345] = 1.0
    chart = line_chart([Series("pr", np.linspace(0, 1, 20_000), y)], whole_y=True, **_NAMES)

    assert len(chart) < 12_000
    (line,) = [one.attrib["d"] for one in all_of(checked(chart), "path") if "fill:none" in one.attrib["style"]]
    assert min(float(point.split(" ")[1]) for point in line[1:].split("L")) == 26  # the top of the axis


@each("text", ["best", "the smallest C within one standard error of the best, which is the rule"])
def test_marked_points_have_a_ring_and_a_text(text):
    made = line_chart([Series("C", [1, 2, 3], [0.8, 0.9, 0.7])], marks=[MarkedPoint(2, 0.9, text)], **_NAMES)

    assert text in tooltips(checked(made))


def test_the_diagonal_goes_through_both_corners():
    made = line_chart([Series("a", [0.5], [0.5])], whole_x=True, whole_y=True, percent_x=True, diagonal=True, **_NAMES)
    (line,) = [one for one in all_of(checked(made), "line") if "stroke-dasharray" in one.attrib]
    (x, y) = _places(checked(made))[0]

    assert (float(line.attrib["x1"]) + float(line.attrib["x2"])) / 2 == pytest.approx(x)
    assert (float(line.attrib["y1"]) + float(line.attrib["y2"])) / 2 == pytest.approx(y)


@each("made", [[], [Series("a", [], [])], [Series("a", [1], [math.inf])]])
def test_without_data_it_says_so(made):
    assert "no data to show" in texts(checked(line_chart(made, **_NAMES)))


@given(
    st.lists(st.tuples(names, st.lists(st.tuples(numbers, numbers, numbers), max_size=4)), max_size=4),
    names,
    st.booleans(),
    st.booleans(),
    st.tuples(numbers, numbers),
)
def test_any_numbers_and_names_make_a_chart(made, name, log, as_percent, marked):
    series = [
        Series(label, [p[0] for p in points], [p[1] for p in points], [p[2] for p in points]) for label, points in made
    ]
    marks = [MarkedPoint(*marked, name)] if None not in marked else []
    chart = line_chart(
        series, title=name, x_label=name, y_label=name, log_x=log, percent_x=not log, percent_y=as_percent, marks=marks
    )

    checked(chart)

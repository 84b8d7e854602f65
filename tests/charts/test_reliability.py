"""Reliability diagrams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.reliability import ReliabilityBin, reliability_chart
from tests.charts.svg import all_of, checked, names, numbers, texts, tooltips


def test_a_calibrated_bin_is_on_the_diagonal():
    root = checked(reliability_chart([ReliabilityBin(0.25, 0.25, 9)], title="t"))
    (mark,) = all_of(root, "circle")
    (line,) = [one for one in all_of(root, "line") if "stroke-dasharray" in one.attrib]
    x1, x2, y1, y2 = (float(line.attrib[name]) for name in ("x1", "x2", "y1", "y2"))

    assert float(mark.attrib["cx"]) == pytest.approx(x1 + 0.25 * (x2 - x1), abs=0.02)
    assert float(mark.attrib["cy"]) == pytest.approx(y1 + 0.25 * (y2 - y1), abs=0.02)
    assert "predicted 25.0%, right 25.0% of 9 predictions" in tooltips(root)


def test_the_area_of_a_mark_grows_with_its_predictions():
    bins = [ReliabilityBin(0.5, 0.5, 25), ReliabilityBin(0.9, 0.8, 100, 0.7, 0.9)]
    small, large = (float(one.attrib["r"]) for one in all_of(checked(reliability_chart(bins, title="t")), "circle"))

    assert large == pytest.approx(2 * small)


def test_the_description_is_the_mean_gap():
    bins = [ReliabilityBin(0.5, 0.5, 25), ReliabilityBin(0.9, 0.8, 75)]

    assert "differ by 7.5 points." in reliability_chart(bins, title="t")


def test_bins_without_predictions_are_left_out():
    empty = ReliabilityBin(0.1, None, 0)

    assert "no data to show" in texts(checked(reliability_chart([empty], title="t")))
    assert len(all_of(checked(reliability_chart([empty, ReliabilityBin(0.5, 0.5, 1)], title="t")), "circle")) == 1


@given(
    st.lists(st.builds(ReliabilityBin, numbers, numbers, st.integers(0, 10**6), numbers, numbers), max_size=5), names
)
def test_any_numbers_make_a_chart(bins, name):
    checked(reliability_chart(bins, title=name))

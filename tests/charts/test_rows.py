"""Forest plots and bars."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.rows import ChartRow, interval_chart
from tests.charts.svg import all_of, checked, names, numbers, texts, tooltips

ROWS = [
    ChartRow(label="a", estimate=0.5, low=0.25, high=0.75, note="best", tone="strong"),
    ChartRow(label="b", estimate=0.25, low=0.0, high=0.5),
    ChartRow(label="c", estimate=1.0, tone="muted"),
    ChartRow(label="unknown", estimate=None),
]
_NAMES = {"title": "Accuracy", "x_label": "accuracy"}

rows = st.builds(ChartRow, label=names, estimate=numbers, low=numbers, high=numbers, note=names)


def test_intervals_are_where_their_numbers_are():
    root = checked(interval_chart(ROWS, **_NAMES))
    b, c = (float(one.attrib["cx"]) for one in all_of(root, "circle"))
    (first, second) = (one.attrib["d"] for one in all_of(root, "path") if "stroke-linecap" in one.attrib["style"])

    assert [float(end) for end in second.replace("M", "").replace("H", " ").split()[::2]] == pytest.approx([10, 220])
    assert [b, c] == pytest.approx([115, 430])
    assert first.startswith("M115 ") or first.startswith("M115.0 ")


def test_numbers_are_written_beside_the_labels():
    shown = texts(checked(interval_chart(ROWS, **_NAMES)))

    assert {"a", "best", "50.0% (25.0 to 75.0)", "100.0%", "–"} <= set(shown)


def test_the_best_row_is_bold_and_has_another_shape():
    root = checked(interval_chart(ROWS, **_NAMES))

    assert [one.text for one in all_of(root, "text") if one.attrib.get("font-weight")] == ["a", "50.0% (25.0 to 75.0)"]
    assert len(all_of(root, "circle")) == 2


def test_the_reference_is_marked_in_each_row():
    with_reference = all_of(checked(interval_chart(ROWS, reference=0.5, **_NAMES)), "line")

    assert len(with_reference) == len(all_of(checked(interval_chart(ROWS, **_NAMES)), "line")) + len(ROWS)


def test_a_long_label_is_shortened_and_whole_in_its_tooltip():
    root = checked(interval_chart([ChartRow(label="x" * 200, estimate=0.5)], **_NAMES))

    assert "x" * 200 in tooltips(root)
    assert "x" * 200 not in texts(root)


def test_without_data_they_say_so():
    assert "no data to show" in texts(checked(interval_chart(ROWS[3:], **_NAMES)))


@given(st.lists(rows, max_size=4), names, st.booleans(), numbers)
def test_any_numbers_and_names_make_a_chart(made, name, as_percent, reference):
    checked(interval_chart(made, title=name, x_label=name, percent_x=as_percent, reference=reference))

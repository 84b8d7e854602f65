"""Heat maps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.charts.heatmap import heatmap
from tests.charts.svg import all_of, checked, names, texts, tooltips

CELLS = [(0, 0, 66), (0, 1, 4), (1, 0, 4), (1, 1, 79)]


def _squares(root):
    return [one for one in all_of(root, "rect") if "style" in one.attrib]


def test_cells_have_their_counts_and_places():
    root = checked(heatmap(CELLS, ["ants", "bees"], title="t"))
    places = {tooltip: one.attrib for one, tooltip in zip(_squares(root), tooltips(root), strict=True)}
    ants = places["label ants, prediction ants: 66 (94.3% of the row)"]
    wrong = places["label ants, prediction bees: 4 (5.7% of the row)"]

    assert {"66", "4", "79", "ants", "bees", "label ↓", "prediction →"} <= set(texts(root))
    assert ants["y"] == wrong["y"]
    assert float(wrong["x"]) - float(ants["x"]) == pytest.approx(float(ants["width"]) + 1)


def test_shades_are_shares_of_the_row_and_errors_have_another_colour():
    root = checked(heatmap([(0, 0, 1), (1, 1, 50), (1, 0, 50)], ["a", "b"], title="t"))
    styles = [one.attrib["style"] for one in _squares(root)]

    assert "fill-opacity:0.62" in "".join(styles)  # one of one
    assert "fill-opacity:0.36" in "".join(styles)  # half
    assert ["--chart-wrong" in style for style in styles] == [False, True, False]


def test_the_description_is_the_most_frequent_confusion():
    names = ["ants", "bees", "شجرة"]

    assert "label bees, prediction \u2068شجرة\u2069, 9 times." in heatmap([*CELLS, (1, 2, 9)], names, title="t")
    assert "Each label agrees with its prediction." in heatmap([(0, 0, 3)], names, title="t")


def test_cells_can_be_links_and_then_it_is_no_image():
    chart = heatmap(CELLS, ["ants", "bees"], title="t", link=lambda row, column: f"#{row}-{column}" if row else None)
    root = checked(chart)

    assert [one.attrib["href"] for one in all_of(root, "a")] == ["#1-0", "#1-1"]
    assert root.attrib["role"] == "group"
    assert checked(heatmap(CELLS, ["ants", "bees"], title="t")).attrib["role"] == "img"


def test_a_thousand_classes_have_a_bounded_size_and_lose_no_image():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 1000, (2, 20_000))
    counts = np.zeros((1000, 1000), int)
    np.add.at(counts, (labels, predicted), 1)
    cells = [(row, column, counts[row, column]) for row, column in np.argwhere(counts)]
    chart = heatmap(cells, [f"class {i}" for i in range(1000)], title="t")
    root = checked(chart)
    own = sum(int(text.rpartition(": ")[2].partition(" ")[0]) for text in tooltips(root))

    assert len(chart) < 400_000
    assert 0 < own < 20_000
    assert any("class 0 to class 9" in text for text in tooltips(root))
    squares = sum(one.attrib["d"].count("M") for one in all_of(root, "path"))
    assert squares + len(_squares(root)) == len({(a // 10, b // 10) for a, b in zip(labels, predicted, strict=True)})


def test_without_data_it_says_so():
    assert "no data to show" in texts(checked(heatmap([], ["a"], title="t")))
    assert "no data to show" in texts(checked(heatmap([], [], title="t")))


@given(st.lists(names, min_size=1, max_size=50), st.data())
def test_any_names_make_a_chart(labels, data):
    place = st.integers(0, len(labels) - 1)
    cells = data.draw(st.lists(st.tuples(place, place, st.integers(0, 10**9)), max_size=9))

    checked(heatmap(cells, labels, title=labels[0], row_label=labels[0]))

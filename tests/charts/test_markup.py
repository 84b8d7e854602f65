"""Markup: what is text stays text."""

from bottleneck.charts.markup import Markup, element, markup, number
from tests.variants import each


def test_children_and_attributes_are_escaped():
    found = element("text", '<b>&"', None, element("title", "it's"), data_name='"><script>')

    assert found == ('<text data-name="&quot;&gt;&lt;script&gt;">&lt;b&gt;&amp;&quot;<title>it&#x27;s</title></text>')


def test_characters_that_cannot_be_printed_are_shown_as_escapes():
    assert markup("a\x00\u202e\udcff") == "a\\x00\\u202e\\xff"


def test_isolated_names_stay_isolated():
    assert markup("a \u2068b\u2069") == "a \u2068b\u2069"


def test_attributes_that_are_none_are_left_out_and_numbers_are_short():
    assert element("line", x1=1.0, x2=2.3456, class_="a", stroke=None) == '<line x1="1" x2="2.35" class="a"/>'


def test_elements_without_content_are_closed_as_html_needs_it():
    assert element("td") == "<td></td>"
    assert element("img", src="data:,") == '<img src="data:,"/>'


@each("value, expected", [(0.0, "0"), (-0.001, "0"), (10.0, "10"), (1.005, "1"), (-2.5, "-2.5")])
def test_coordinates_are_short(value, expected):
    assert number(value) == expected


def test_templates_and_notebooks_take_it_as_it_is():
    made = element("p", "<")

    assert made._repr_html_() == made.__html__() == "<p>&lt;</p>"
    assert type(made.__html__()) is str
    assert isinstance(made, Markup)

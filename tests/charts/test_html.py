"""Blocks and tables for notebooks."""

from bottleneck.charts.html import block, html_table, line, note, side_by_side
from bottleneck.charts.markup import Markup
from tests.markup import parsed, tables, text_in


def test_cells_are_text_and_none_is_empty():
    table = html_table(("name", "n"), [["<b>", 3], [None, Markup("<i>4</i>")]], numbers=("n",))

    assert tables(table) == [[["name", "n"], ["<b>", "3"], ["", "4"]]]


def test_numbers_are_aligned_at_the_right():
    cells = list(parsed(html_table(("name", "n"), [["a", 3]], numbers=("n",))).iter("td"))

    assert ["text-align:right" in cell.attrib["style"] for cell in cells] == [False, True]


def test_rows_that_are_left_out_are_counted():
    assert "and 1,200 more" in text_in(html_table(("n",), [[1]], more=1200))


def test_a_block_has_its_title_and_parts_and_leaves_out_what_is_missing():
    made = block("<title>", line("a"), None, note("b & c"), side_by_side("d", "e"))

    assert text_in(made) == "<title> a b & c d e"

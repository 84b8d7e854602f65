"""A comparison in a notebook."""

from tests.comparison.boards import HOSTILE, board, row
from tests.markup import tables, text_in


def test_a_notebook_shows_the_rows_with_their_verdicts():
    html = board()._repr_html_()

    assert text_in(html).startswith("logistic on large is best cross-validated 95.0%, held-out 90.0% of 150")
    assert tables(html)[0][1:] == [
        ["large", "logistic", "95.0%", "90.0%", "", "best"],
        ["small", "svm", "94.0%", "90.0%", "0.7", "not told apart"],
        ["none", "ridge", "60.0%", "55.0%", "0.0001", "worse"],
    ]
    assert html.count("<svg") == 2


def test_names_are_text_and_remarks_are_shown():
    html = HOSTILE._repr_html_()

    assert "<script>" not in html
    assert "knn on <i> is left out" in text_in(html)
    assert "twice as many images" in text_in(html)


def test_many_rows_are_left_out_and_counted():
    assert "and 5 more" in text_in(board(*(row(f"m{i}") for i in range(45)))._repr_html_())

"""The page of a comparison: what it says of each row, in words."""

import re
from dataclasses import replace

from bottleneck.comparison.charts import learning_curve_chart
from bottleneck.reporting.comparison import comparison_page, verdicts
from tests.comparison.boards import CURVE, HOSTILE, ROWS, board, row


def words(page: str) -> str:
    """Return the text of a page, on one line."""
    body = page[page.index("<main") : page.index("</main>")]
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def test_the_lead_is_the_best_row_with_both_intervals():
    assert (
        "The best row is logistic on large: 95.0% (90.0% to 98.0%) in cross-validation. It classifies 90.0% of the 150 "
        "held-out images correctly; on other images like these it could be 80 to 95 %."
    ) in words(comparison_page(board()))


def test_verdicts_are_sentences_with_their_p_values():
    worse, same = verdicts(board())

    assert worse == "One row is worse than the best (p below 0.05): ridge on none (p = 10⁻⁴)."
    assert same.startswith("One row is not told apart from the best: svm on small (p = 0.7). With 150 held-out images")


def test_many_rows_are_counted_and_the_first_are_named():
    rows = [row(f"m{i}", "svm", p_value=0.01, verdict="worse") for i in range(9)]

    assert verdicts(board(ROWS[0], *rows)) == [
        "9 rows are worse than the best (p below 0.05): svm on m0 (p = 0.01), svm on m1 (p = 0.01), svm on m2 "
        "(p = 0.01), svm on m3 (p = 0.01), and 5 more."
    ]


def test_a_row_may_be_better_than_the_one_that_cross_validation_chose():
    assert (
        "although cross-validation ranks it lower: svm on b (p = 0.03)"
        in verdicts(board(ROWS[0], row("b", "svm", p_value=0.03, verdict="better")))[0]
    )


def test_the_cheapest_of_equals_is_named():
    assert (
        "Of these and the best, svm on small needs the least time, and the features of small are the smallest (1 MB)."
    ) in words(comparison_page(board()))


def test_the_pareto_front_is_named_from_cheap_to_accurate():
    text = words(comparison_page(board()))

    assert "accurate: svm on small (94.0%, 6.5 s), then logistic on large (95.0%, 7 s). For each other row" in text
    assert "accurate: svm on small (94.0%, 1 MB), then logistic on large (95.0%, 2 MB). For each other row" in text
    assert "seconds to extract and fit" in text


def test_seconds_leave_out_an_extraction_that_was_not_measured_for_all():
    for changed in ({"extract_seconds": None}, {"extracted": 5}):
        text = words(comparison_page(board(ROWS[0], replace(ROWS[1], **changed))))

        assert "seconds to search and fit" in text
        assert "Some features were cached before" in text
        assert "svm on small (94.0%, 0.5 s)" in text


def test_the_table_has_every_row():
    page = comparison_page(board(*(row(f"m{i}", "svm") for i in range(60))))

    assert all(f"<bdi>m{i}</bdi>" in page for i in range(60))
    assert "The charts leave out the last 20 rows" in words(page)


def test_the_learning_curve_is_charted_and_told():
    page = comparison_page(board(curve=CURVE))

    assert "twice as many images would add about" in words(page)
    assert "forecast, training images 400" in learning_curve_chart(CURVE)
    assert "Would more images help?" not in comparison_page(board())


def test_the_commands_repeat_it_and_fit_the_best():
    text = words(comparison_page(board(), ["--cache", "a b"]))

    assert "bottleneck compare bugs --models large,small,none --heads logistic,svm,ridge --cache" in text
    assert "bottleneck fit bugs --model large-0123abcd --head logistic --cache &#39;a b&#39;" in text


def test_one_row_has_no_costs_to_compare():
    text = words(comparison_page(board(ROWS[0])))

    assert "There is no other row to compare it with." in text
    assert "What accuracy costs" not in text


def test_names_are_text():
    page = comparison_page(HOSTILE)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>bugs" not in page
    assert "a/&lt;u&gt;\\x1b.jpg" in page
    assert "corrupt: not &lt;an&gt; image" in page
    assert "knn on &lt;i&gt; is left out" in page


def test_the_page_has_no_folder_of_this_machine():
    page = comparison_page(HOSTILE)

    assert "/home/me" not in page

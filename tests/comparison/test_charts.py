"""The charts of a comparison say in words what they show."""

from bottleneck.comparison.charts import CHARTED, held_out_chart, learning_curve_chart, ranking_chart
from tests.charts.svg import all_of, checked, texts
from tests.comparison.boards import CURVE, ROWS, row


def description(chart: str) -> str:
    (found,) = all_of(checked(chart), "desc")
    return found.text


def test_the_ranking_tells_the_best_and_the_last():
    assert description(ranking_chart(ROWS)) == (
        "The best of 3 is logistic on large with 95.0%. The last is ridge on none with 60.0%."
    )
    assert description(ranking_chart(ROWS[:1])) == "The best of 1 is logistic on large with 95.0%."


def test_the_held_out_chart_tells_the_verdicts():
    chart = held_out_chart(ROWS)

    assert description(chart) == (
        "The best row, logistic on large, is right on 90.0%. Of the other rows, compared with it: 1 not told apart, "
        "1 worse."
    )
    assert {"best", "not told apart", "worse"} <= set(texts(checked(chart)))


def test_many_rows_are_not_all_drawn():
    chart = checked(ranking_chart([row(f"m{i}") for i in range(CHARTED + 9)]))

    assert f"m{CHARTED - 1} · svm" in texts(chart)
    assert f"m{CHARTED} · svm" not in texts(chart)


def test_a_learning_curve_has_its_forecast_and_its_advice():
    chart = learning_curve_chart(CURVE)

    assert "forecast" in texts(checked(chart))
    assert description(chart) == CURVE.advice()

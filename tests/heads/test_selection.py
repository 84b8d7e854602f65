import numpy as np

from bottleneck.heads.selection import RULES, Performance, select
from tests.variants import each


def performance(balanced: list[list[float]], losses: list[float] | None = None, divisions: int = 1) -> Performance:
    table = np.array(balanced)
    return Performance(
        accuracy=table, balanced=table, losses=np.array(losses or [0.0] * len(table)), divisions=divisions
    )


@each(
    "table, expected",
    [
        ([[0.9, 0.9], [0.95, 0.95], [0.8, 0.8]], 1),  # no spread: the best
        ([[0.9, 0.9], [0.9, 0.9], [0.9, 0.9]], 0),  # all equal: the most regularised
        ([[0.88, 0.88], [0.85, 0.95], [0.7, 0.7]], 0),  # error 0.05, so 0.85 is enough
        ([[0.84, 0.84], [0.85, 0.95], [0.7, 0.7]], 1),  # 0.84 is not
        ([[0.84, 0.84], [0.86, 0.86], [0.85, 0.95]], 1),  # the first within the error
        ([[0.2, 1.0], [0.9, 0.9]], 1),  # the error is the best one's, not the others'
        ([[0.7, 0.7, 0.7, 0.7], [0.5, 0.7, 0.9, 1.0]], 0),  # error 0.111, so 0.664 is enough
        ([[0.66, 0.66, 0.66, 0.66], [0.5, 0.7, 0.9, 1.0]], 1),
        ([[0.8], [0.9], [0.9]], 1),  # one fold has no spread
        ([[0.6]], 0),
    ],
)
def test_the_simplest_within_one_standard_error(table, expected):
    assert select(performance(table), "simplest") == expected


def test_folds_of_several_divisions_count_as_those_of_one():
    table = [[0.84] * 4, [0.85, 0.95, 0.85, 0.95]]  # error 0.029 of four folds, 0.041 of two that are seen twice
    assert select(performance([[0.865] * 4, table[1]]), "simplest") == 1
    assert select(performance([[0.865] * 4, table[1]], divisions=2), "simplest") == 0


@each("rule, expected", [("log-loss", 1), ("simplest", 0), ("accuracy", 2)])
def test_each_rule_has_its_own_point(rule, expected):
    table = [[0.86, 0.86], [0.88, 0.88], [0.85, 0.95], [0.7, 0.7]]
    assert select(performance(table, [0.5, 0.4, 0.45, 0.1]), rule) == expected  # the last is too far from the best
    assert set(RULES) == {"log-loss", "simplest", "accuracy"}


def test_of_equal_points_every_rule_takes_the_simplest():
    found = performance([[0.9, 0.8]] * 3, [0.3, 0.3, 0.3])
    assert [select(found, rule) for rule in RULES] == [0, 0, 0]


def test_another_scaling_must_be_better_by_two_standard_errors_of_the_paired_difference():
    first = performance([[0.70, 0.80, 0.75, 0.85, 0.65]])
    assert performance([[0.75, 0.85, 0.80, 0.90, 0.70]]).beats(first, rows=1000)  # in each fold by as much
    assert not performance([[0.60, 1.00, 0.65, 1.00, 0.75]]).beats(first, rows=1000)  # by more, but not in each
    assert not performance([[0.70, 0.80, 0.75, 0.85, 0.65]]).beats(first, rows=1000)


def test_another_scaling_must_be_better_by_two_images():
    first = performance([[0.70, 0.80, 0.75, 0.85, 0.65]])
    better = performance([[0.75, 0.85, 0.80, 0.90, 0.70]])
    assert better.beats(first, rows=41)
    assert not better.beats(first, rows=40)

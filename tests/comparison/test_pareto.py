"""The Pareto front."""

from hypothesis import given
from hypothesis import strategies as st

from bottleneck.comparison.pareto import pareto_front
from tests.variants import each

places = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


@each(
    "costs, accuracies, front",
    [
        ([1, 2, 3], [0.5, 0.9, 0.8], [0, 1]),
        ([3, 2, 1], [0.9, 0.9, 0.9], [2]),
        ([1, 1], [0.5, 0.5], [0, 1]),
        ([1, 1], [0.5, 0.6], [1]),
        ([], [], []),
    ],
)
def test_the_front_is_what_nothing_beats(costs, accuracies, front):
    assert pareto_front(costs, accuracies) == front


@given(places)
def test_it_is_the_front_of_the_definition(made):
    beaten = {
        i for i, (cost, accuracy) in enumerate(made)
        if any(c <= cost and a >= accuracy and (c, a) != (cost, accuracy) for c, a in made)
    }  # fmt: skip

    assert set(pareto_front(*zip(*made, strict=True)) if made else []) == set(range(len(made))) - beaten

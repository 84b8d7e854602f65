import numpy as np

from bottleneck.heads.neighbours import NeighbourHead, nearest_rows, votes
from tests.variants import each


@each("offset", [0.0, 1e4])
def test_the_nearest_rows_are_those_of_plain_distances(offset):
    random = np.random.default_rng(0)
    rows = (np.round(random.normal(size=(50, 8)) * 64) / 64 + offset).astype(np.float32)
    x = (np.round(random.normal(size=(20, 8)) * 64) / 64 + offset).astype(np.float32)
    distances = np.square(x[:, None].astype(np.float64) - rows).sum(axis=2)
    found = nearest_rows(x, rows, 5)

    np.testing.assert_allclose(np.take_along_axis(distances, found, 1), np.sort(distances, axis=1)[:, :5], rtol=1e-3)


def test_more_neighbours_than_rows_are_all_rows():
    rows = np.eye(3, dtype=np.float32)

    assert sorted(nearest_rows(rows[:1], rows, 10)[0].tolist()) == [0, 1, 2]


def test_votes_are_shares_of_the_first_so_many():
    found = votes(np.array([[0, 1, 1, 2]]), (1, 3), 3)

    np.testing.assert_allclose(found[:, 0], [[1, 0, 0], [1 / 3, 2 / 3, 0]])


def test_blocks_of_rows_have_the_scores_of_single_rows():
    random = np.random.default_rng(0)
    head = NeighbourHead(
        family="knn",
        classes=("a", "b"),
        mean=np.zeros(4, np.float32),
        scale=np.ones(4, np.float32),
        rows=random.normal(size=(1500, 4)).astype(np.float32),
        codes=np.arange(1500) % 2,
        neighbours=3.0,
    )
    x = random.normal(size=(4000, 4)).astype(np.float32)  # with 1,500 rows a block has fewer
    scores = head.scores(x)

    np.testing.assert_array_equal(scores[::97], np.concatenate([head.scores(row[None]) for row in x[::97]]))
    np.testing.assert_array_equal(scores[-3:], head.scores(x[-3:]))

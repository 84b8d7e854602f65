"""`nearest_neighbours` against an argsort of all similarities."""

import numpy as np
from numpy.typing import NDArray

from bottleneck.evaluation.neighbours import NOBODY, nearest_neighbours, unit_rows
from tests.variants import case


def rows(n: int, d: int = 24, seed: int = 0) -> NDArray[np.float32]:
    return unit_rows(np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32))


def by_argsort(
    queries: NDArray[np.float32], references: NDArray[np.float32], k: int, excluded: NDArray[np.bool_]
) -> NDArray[np.intp]:
    similar = np.where(excluded, -np.inf, queries @ references.T)
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


class TestNearestNeighbours:
    def test_are_those_of_an_argsort(self):
        x, others = rows(2600), rows(700, seed=1)
        groups = np.random.default_rng(2).integers(-1, 300, 2600)
        none, itself = np.zeros((700, 2600), bool), np.eye(2600, dtype=bool)
        grouped = itself | ((groups[:, None] == groups) & (groups[:, None] >= 0))
        for name, found, expected in (
            ("of other rows", nearest_neighbours(others, x, 5), by_argsort(others, x, 5, none)),
            ("of the rows themselves", nearest_neighbours(x, k=12), by_argsort(x, x, 12, itself)),
            ("outside the group", nearest_neighbours(x, k=3, groups=groups), by_argsort(x, x, 3, grouped)),
        ):
            with case(name):
                assert (found.rows == expected).all()

    def test_cosines_belong_to_the_rows(self):
        x = rows(300)
        found = nearest_neighbours(x, k=4)
        assert np.allclose(found.cosines, np.einsum("nd,nkd->nk", x, x[found.rows]), atol=1e-6)
        assert (np.diff(found.cosines, axis=1) <= 0).all()

    def test_many_references_are_compared_by_their_principal_components_first(self):
        random = np.random.default_rng(3)
        spectrum = np.geomspace(1, 0.01, 200)
        x = unit_rows((random.normal(size=(3000, 200)) * spectrum).astype(np.float32))
        groups = random.integers(-1, 500, 3000)
        exact, short = (nearest_neighbours(x, k=5, groups=groups, most_exact=most) for most in (3000, 100))
        assert (exact.rows == short.rows).mean() > 0.999
        assert np.allclose(exact.cosines, short.cosines, atol=1e-3)
        assert not ((groups[short.rows] == groups[:, None]) & (groups[:, None] >= 0)).any()

    def test_fewer_references_than_neighbours(self):
        x = np.eye(3, dtype=np.float32)
        for name, found, expected in (
            ("one row, which is not its own neighbour", nearest_neighbours(x[:1], k=2), [[NOBODY, NOBODY]]),
            ("of one group", nearest_neighbours(x[:2], k=1, groups=np.zeros(2, np.intp)), [[NOBODY], [NOBODY]]),
            ("two of three", nearest_neighbours(x, k=3), [[1, 2, NOBODY], [0, 2, NOBODY], [0, 1, NOBODY]]),
            ("no query", nearest_neighbours(x[:0], x, 2), []),
            ("no reference", nearest_neighbours(x[:1], x[:0], 1), [[NOBODY]]),
        ):
            with case(name):
                assert found.rows.tolist() == expected
                assert (np.isneginf(found.cosines) == (found.rows == NOBODY)).all()

    def test_equal_references_come_in_their_order(self):
        same = np.ones((2500, 4), np.float32) / 2
        assert nearest_neighbours(same[:2], same, 3).rows.tolist() == [[0, 1, 2], [0, 1, 2]]


class TestUnitRows:
    def test_divides_by_the_norm_and_keeps_zeros(self):
        found = unit_rows(np.array([[3, 4], [0, 0]], np.float32))
        assert found.tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]
        assert unit_rows(np.array([[4, 5]], np.float32), np.ones(2, np.float32)).round(6).tolist() == [
            [np.float32(0.6), np.float32(0.8)]
        ]

import numpy as np

from bottleneck.auditing.diversity import far_apart, k_means, squared_distances, typical_rows
from bottleneck.evaluation.neighbours import unit_rows


def clusters(*sizes: int, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Return rows around orthogonal directions, and the direction of each."""
    random = np.random.default_rng(0)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return unit_rows((np.eye(12)[codes] + spread * random.normal(size=(len(codes), 12))).astype(np.float32)), codes


class TestFarApart:
    def test_one_row_of_each_cluster_comes_first(self):
        units, codes = clusters(40, 5, 5, 20)
        assert sorted(codes[far_apart(units, np.ones(len(units)), 4)].tolist()) == [0, 1, 2, 3]

    def test_clusters_with_chosen_rows_come_last(self):
        units, codes = clusters(10, 10, 10)
        rows = far_apart(units, np.ones(30), 3, chosen=units[codes != 1][[0, 15]])
        assert codes[rows[0]] == 1

    def test_weights_decide_among_rows_of_equal_distance(self):
        units = np.eye(5, dtype=np.float32)
        assert far_apart(units, np.array([0.1, 0.2, 0.9, 0.3, 0.0]), 3).tolist() == [2, 3, 1]

    def test_copies_are_chosen_only_if_nothing_else_is_left(self):
        units = np.repeat(np.eye(2, dtype=np.float32), [4, 1], axis=0)
        rows = far_apart(units, np.array([1.0, 0.9, 0.8, 0.7, 0.1]), 5)
        assert rows.tolist() == [0, 4, 1, 2, 3]


def test_squared_distances_to_the_nearest_row():
    units = np.eye(3, dtype=np.float32)
    assert squared_distances(units, units[:1]).tolist() == [0, 2, 2]


def test_k_means_finds_clusters():
    units, codes = clusters(30, 60, 10)
    found = k_means(units, 3)
    assert {tuple(np.unique(codes[found == number])) for number in np.unique(found)} == {(0,), (1,), (2,)}


class TestTypicalRows:
    def test_typical_rows_of_the_largest_clusters(self):
        units, codes = clusters(60, 30, 8, spread=0.2)
        rows = typical_rows(units, 3)
        assert codes[rows].tolist() == [0, 1, 2]
        similarity = (units[rows[0]] @ units[codes == 0].T).mean()
        assert similarity > np.median((units[codes == 0] @ units[codes == 0].T).mean(axis=1))

    def test_clusters_with_a_labelled_row_come_last(self):
        units, codes = clusters(60, 30, 8)
        labelled = np.zeros(len(units), bool)
        labelled[0] = True
        rows = typical_rows(units, 3, labelled)
        assert 0 not in rows.tolist()
        assert codes[rows[0]] != 0 or len(set(codes[rows].tolist())) > 1

    def test_as_many_as_there_are(self):
        units, _ = clusters(3, 1)
        assert sorted(typical_rows(units, 4).tolist()) == [0, 1, 2, 3]
        same = np.ones((5, 4), np.float32) / 2
        assert sorted(typical_rows(same, 5).tolist()) == [0, 1, 2, 3, 4]
        assert typical_rows(same[:1], 1).tolist() == [0]

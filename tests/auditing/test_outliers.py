import numpy as np

from bottleneck.auditing.outliers import OUTLYING, modified_z_scores, neighbour_distances
from bottleneck.evaluation.neighbours import nearest_neighbours, unit_rows


def test_an_image_unlike_all_others_is_outlying():
    random = np.random.default_rng(0)
    usual = random.normal(loc=3, size=(400, 16)).astype(np.float32)
    foreign = -usual[:3].mean(axis=1, keepdims=True) * random.normal(size=(3, 16)).astype(np.float32)
    x = np.vstack([usual, foreign]).astype(np.float32)
    scores = modified_z_scores(neighbour_distances(x, nearest_neighbours(unit_rows(x, x.mean(axis=0)), k=10)))
    assert np.flatnonzero(scores > OUTLYING).tolist() == [400, 401, 402]


def test_distances_are_medians_over_the_neighbours_that_exist():
    x = np.array([[1, 0], [0, 2], [3, 3]], np.float32)
    distances = neighbour_distances(x, nearest_neighbours(unit_rows(x), k=2))
    half = 1 - np.sqrt(0.5)
    assert np.allclose(distances, [(half + 1) / 2, (half + 1) / 2, half])
    alone = neighbour_distances(x[:1], nearest_neighbours(unit_rows(x[:1]), k=2))
    assert np.isnan(alone).all()
    assert np.isnan(modified_z_scores(alone)).all()


def test_of_equal_distances_none_is_outlying():
    assert modified_z_scores(np.zeros(20)).tolist() == [0] * 20
    mostly_equal = modified_z_scores(np.array([0.1] * 30 + [0.9]))
    assert mostly_equal[:30].tolist() == [0] * 30
    assert mostly_equal[30] > OUTLYING

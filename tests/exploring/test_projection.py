import numpy as np
import pytest

from bottleneck.errors import BottleneckError
from bottleneck.exploring.feature_rows import FeatureRows
from bottleneck.exploring.projection import Components, clusters, embed, plane

RANDOM = np.random.default_rng(0)
CODES = np.repeat([0, 1, 2], [90, 60, 30])
ROWS = (8 * RANDOM.normal(size=(3, 20))[CODES] + RANDOM.normal(size=(180, 20))).astype(np.float32)


def test_components_are_those_of_a_singular_value_decomposition():
    rows = FeatureRows(ROWS)
    found = Components.of(rows, 4)
    centred = ROWS.astype(np.float64) - ROWS.mean(axis=0)
    expected = centred @ np.linalg.svd(centred)[2][:4].T
    np.testing.assert_allclose(np.abs(found.project(rows)), np.abs(expected), atol=1e-3)
    np.testing.assert_allclose(found(ROWS[:5]), found.project(rows)[:5], atol=1e-5)
    np.testing.assert_array_equal(Components.of(rows, 4).axes, found.axes)


def test_a_plane_has_two_dimensions_even_of_one_component():
    assert plane(np.ones((3, 1), np.float32)).tolist() == [[1, 0]] * 3


def test_clusters_are_the_groups_largest_first_and_no_more_than_distinct_rows():
    assert clusters(ROWS, 3).tolist() == CODES.tolist()
    assert clusters(np.ones((5, 2), np.float32), 3).tolist() == [0] * 5


def test_tsne_keeps_neighbours_together_also_those_that_are_placed_later():
    told: list[float] = []
    found = embed(ROWS, told.append, most=120)
    distances = ((found[:, None] - found[None]) ** 2).sum(axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (CODES[distances.argmin(axis=1)] == CODES).all()
    assert told == sorted(told)
    assert told[-1] == 1
    assert len(told) > 10


def test_tsne_needs_four_images():
    with pytest.raises(BottleneckError, match="expected at least 4 images"):
        embed(ROWS[:3], print)

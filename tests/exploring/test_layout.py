import numpy as np

from bottleneck.exploring.layout import Layout, fitted, hilbert


def test_points_fill_the_unit_square_and_keep_their_shape():
    points = fitted(np.array([[10.0, 0], [30, 5], [20, 10]]))
    np.testing.assert_allclose(points, [[0, 0.25], [1, 0.5], [0.5, 0.75]], atol=1e-6)
    np.testing.assert_allclose(fitted(np.full((3, 2), 7.0)), 0.5)
    assert fitted(np.zeros((0, 2))).shape == (0, 2)


def test_the_curve_visits_each_cell_of_a_grid_and_steps_only_to_neighbours():
    side = 16
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    order = np.argsort(hilbert(((grid + 0.5) / side).astype(np.float32)))
    steps = np.abs(np.diff(grid[order], axis=0)).sum(axis=1)
    assert (steps == 1).all()


def test_bytes_are_x_then_y_then_the_order():
    layout = Layout.of(np.random.default_rng(0).normal(size=(9, 2)))
    data = layout.to_bytes()
    x, y, order = (np.frombuffer(data, kind, 9, 36 * place) for place, kind in enumerate(("<f4", "<f4", "<u4")))
    np.testing.assert_array_equal(np.stack([x, y], axis=1), layout.points)
    assert sorted(order.tolist()) == list(range(9))
    assert len(data) == 3 * 36

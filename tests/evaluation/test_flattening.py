import numpy as np
import pytest

from bottleneck.evaluation.flattening import Flattening, spread
from tests.variants import each


@each("n, d", [(60, 200), (300, 24)])
def test_the_leading_components_get_the_variance_of_the_last_of_them(n, d):
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(n, 8)) @ rng.normal(size=(8, d)) * 5 + rng.normal(size=(n, d))).astype(np.float32)
    flat = Flattening.of(features)
    r = min(n - 1, d) // 4
    assert flat.components.shape == (d, r)
    centred = features - features.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred.astype(float), full_matrices=False)
    expected = centred @ axes.T * np.where(np.arange(len(sizes)) < r, sizes[r - 1] / np.maximum(sizes, 1e-9), 1) @ axes
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert flat.unit_rows(features) == pytest.approx(expected, abs=1e-4)


def test_rows_of_several_arrays_count_alike():
    features = np.random.default_rng(0).normal(size=(1500, 12)).astype(np.float32)
    for parts in ([features[:5], features[5:]], [features[:900], features[900:900], features[900:]]):
        flat = Flattening.of(*parts)
        assert flat.unit_rows(features[:9]) == pytest.approx(Flattening.of(features).unit_rows(features[:9]), abs=1e-6)


def test_a_row_at_the_centre_has_no_direction():
    features = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    flat = Flattening.of(features)
    rows = flat.unit_rows(np.stack([flat.centre, features[0]]))
    assert rows[0].tolist() == [0] * 16
    assert np.linalg.norm(rows[1]) == pytest.approx(1)


def test_rows_are_spread_evenly():
    assert spread(3, 10).tolist() == [0, 1, 2]
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(0, 3).tolist() == []

import numpy as np
import pytest

from bottleneck.exploring import feature_rows
from bottleneck.exploring.feature_rows import FeatureRows
from tests.exploring.conftest import cosines
from tests.variants import each

ROWS = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)


@each("dtype", [np.float16, np.float32])
def test_neighbours_are_those_of_numpy(dtype):
    rows = FeatureRows(ROWS.astype(dtype))
    expected = cosines(rows.stored, 7)
    expected[7] = -np.inf
    found = rows.nearest(rows.take(slice(7, 8))[0], 12, leave_out=7)
    assert [row for row, _ in found] == np.argsort(-expected)[:12].tolist()
    assert [cosine for _, cosine in found] == pytest.approx(np.sort(expected)[::-1][:12], abs=1e-5)


def test_the_first_of_equally_similar_rows_comes_first_and_rows_of_zeros_are_like_none():
    rows = FeatureRows(np.array([[0, 0], [2, 0], [1, 0], [0, 1], [3, 0]], np.float32))
    assert rows.nearest(np.array([5, 0], np.float32), 4) == [(1, 1.0), (2, 1.0), (4, 1.0), (0, 0.0)]
    assert rows.nearest(np.array([0, 0], np.float32), 1) == [(0, 0.0)]


def test_fewer_rows_than_wanted_are_all_returned():
    rows = FeatureRows(ROWS[:3])
    assert len(rows.nearest(ROWS[0], 12, leave_out=0)) == 2
    assert FeatureRows(ROWS[:1]).nearest(ROWS[0], 12, leave_out=0) == []


def test_large_features_are_kept_as_float16(session, monkeypatch):
    assert session.features.stored.dtype == np.float32
    monkeypatch.setattr(feature_rows, "_MOST_FLOAT32", 1000)
    found = FeatureRows.read(session.store, session.images.digests)
    assert found.stored.dtype == np.float16
    np.testing.assert_allclose(found.take(slice(None)), session.features.stored, rtol=1e-3, atol=1e-4)

import numpy as np
import pytest

from bottleneck.auditing.reduced import reduced
from bottleneck.evaluation.neighbours import nearest_neighbours, unit_rows
from bottleneck.heads.features import InMemoryFeatures


def low_rank(n: int, d: int, rank: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (4 + random.normal(size=(n, rank)) @ random.normal(size=(rank, d))).astype(np.float32)


def test_all_the_variance_is_kept_if_there_are_enough_components():
    x = low_rank(300, 90, 10)
    found = reduced(InMemoryFeatures(x), 12)
    assert found.features.shape == (300, 12)
    assert found.kept == pytest.approx(1)
    for raw, short in ((unit_rows(x), unit_rows(found.features)), (x - x.mean(axis=0), None)):
        small = found.features - found.features.mean(axis=0) if short is None else short
        assert np.allclose(raw @ raw.T, small @ small.T, atol=1e-3 * (raw @ raw.T).max())


def test_a_remark_says_how_much_is_kept():
    x = np.random.default_rng(1).normal(size=(400, 40)).astype(np.float32) * np.geomspace(10, 0.1, 40, dtype=np.float32)
    found = reduced(InMemoryFeatures(x), 20)
    assert 0.98 < found.kept < 1
    assert "20 principal components" in str(found.remark)
    assert f"{found.kept:.1%}" in str(found.remark)
    exact, short = (nearest_neighbours(unit_rows(y, y.mean(axis=0)), k=5).rows for y in (x, found.features))
    assert (exact == short).mean() > 0.5

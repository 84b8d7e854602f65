import sys
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import BottleneckError
from bottleneck.exploring import projection
from bottleneck.exploring.feature_rows import FeatureRows
from bottleneck.exploring.layout_memo import LayoutMemo
from bottleneck.exploring.maps import Maps

ROWS = FeatureRows(np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32))
DIGESTS = np.arange(30 * 32, dtype=np.uint64).astype(np.uint8).reshape(30, 32)


def made(run_child, **options):
    changes = []
    memo = LayoutMemo(Path("cache"), "fingerprint", DIGESTS)
    maps = Maps(lambda: ROWS, memo, 30, 3, lambda: changes.append(1), run_child=run_child, **options)
    maps.start()
    for task in maps.tasks.values():
        task.wait()
    return maps, changes


def circle(function, components, threads, report):
    assert components.shape == (30, 8)
    angles = np.arange(30, dtype=np.float32)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def unexpected(*arguments, report):
    raise AssertionError("it was made again")


def test_maps_are_made_told_and_remembered():
    maps, changes = made(circle)
    assert {name: maps.state_of(name) for name in maps.tasks} == {"pca": "ready", "tsne": "ready"}
    assert set(maps.clusters.tolist()) == {0, 1, 2}
    assert len(changes) >= 3
    np.testing.assert_allclose(np.abs(maps.layouts["tsne"].points - 0.5).max(), 0.5, atol=1e-6)
    again, _ = made(unexpected)
    np.testing.assert_array_equal(again.layouts["tsne"].points, maps.layouts["tsne"].points)


def test_a_map_that_fails_leaves_the_others():
    def killed(*arguments, report):
        raise BottleneckError("no memory")

    maps, _ = made(killed)
    assert [(one["name"], one["state"], one["error"]) for one in maps.to_json()] == [
        ("pca", "ready", None),
        ("tsne", "failed", "no memory"),
    ]


def test_without_opentsne_there_is_one_map_and_the_line_that_installs_the_other(monkeypatch):
    monkeypatch.setattr(projection, "has_tsne", lambda: False)
    assert list(made(unexpected)[0].tasks) == ["pca"]
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(BottleneckError, match=r"pip install 'bottleneck-vision\[explore\]'"):
        projection.embed(ROWS.take(slice(None)), print)

from pathlib import Path

import numpy as np

from bottleneck.exploring import layout_memo
from bottleneck.exploring.layout_memo import LayoutMemo

DIGESTS = np.random.default_rng(0).integers(0, 256, (5, 32)).astype(np.uint8)
POINTS = np.random.default_rng(1).random((5, 2)).astype(np.float32)


def files():
    return sorted(Path("cache/layouts").glob("*"))


def test_what_is_stored_is_found_for_the_same_images_features_and_options():
    memo = LayoutMemo(Path("cache"), "f", DIGESTS)
    assert memo.get("tsne", [0]) is None
    memo.put("tsne", POINTS, [0])
    np.testing.assert_array_equal(memo.get("tsne", [0]), POINTS)
    assert memo.get("tsne", [1]) is None
    assert memo.get("pca", [0]) is None
    assert LayoutMemo(Path("cache"), "g", DIGESTS).get("tsne", [0]) is None
    assert LayoutMemo(Path("cache"), "f", DIGESTS[::-1]).get("tsne", [0]) is None


def test_damage_is_not_returned():
    memo = LayoutMemo(Path("cache"), "f", DIGESTS)
    memo.put("pca", POINTS)
    (file,) = files()
    whole = file.read_bytes()
    for damaged in (whole[:-3], b"", b"none", whole.replace(b'"version":"1"', b'"version":"9"')):
        file.write_bytes(damaged)
        assert memo.get("pca") is None
    memo.put("pca", np.full((5, 2), np.nan, np.float32))
    assert memo.get("pca") is None


def test_only_the_last_used_are_kept(monkeypatch):
    monkeypatch.setattr(layout_memo, "_MOST", 3)
    memo = LayoutMemo(Path("cache"), "f", DIGESTS)
    for number in range(5):
        memo.put("tsne", POINTS, [number])
    assert len(files()) == 3
    assert memo.get("tsne", [4]) is not None


def test_a_cache_that_cannot_be_written_is_no_error():
    Path("cache").write_text("a file")
    LayoutMemo(Path("cache"), "f", DIGESTS).put("pca", POINTS)
    assert LayoutMemo(Path("cache"), "f", DIGESTS).get("pca") is None

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.auditing.reduced import COPIES
from bottleneck.cache.export import export
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import BottleneckWarning, CacheError
from bottleneck.evaluation.neighbours import unit_rows
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import scan
from bottleneck.reporting.atlas_table import PARTS, export_atlas, plane
from tests.conftest import photo
from tests.variants import each

pq = pytest.importorskip("pyarrow.parquet")

FILES = {
    "a/wide.jpg": photo(1, (400, 100)),
    "a/tall.jpg": photo(2, (100, 400)),
    "b/small.png": photo(3, (8, 8), "PNG"),
    "a/copy.jpg": photo(1, (400, 100)),
    "b/more.jpg": photo(4),
}


@pytest.fixture
def images(folder) -> Dataset:
    return scan(folder(FILES))


@pytest.fixture
def store(spec, images):
    """Return the features of the images, random and not centred."""
    found = FeatureCache("cache").store(spec)
    digests = np.unique(images.digests, axis=0)
    found.append(digests, np.random.default_rng(0).normal(1, 1, (len(digests), 6)).astype(np.float32))
    return found


def written(store, images, *parts):
    """Return the rows of a file with these parts, and the images without a picture."""
    failures = export_atlas(store, images, "out.parquet", parts=parts)
    return pq.read_table("out.parquet").to_pylist(), failures


def test_without_parts_the_file_is_that_of_export(store, images):
    export(store, images, "plain.parquet")
    assert export_atlas(store, images, "out.parquet") == ()
    assert Path("out.parquet").read_bytes() == Path("plain.parquet").read_bytes()


def test_parts_are_more_columns_in_their_order(store, images):
    export_atlas(store, images, "out.parquet", parts=("pictures", "map", "neighbours"))
    table = pq.read_table("out.parquet")
    plain = ["digest", "path", "label", "split", "features"]
    assert table.column_names == [*plain, "x", "y", "neighbours", "image"]
    types = {name: table.schema.field(name).type for name in table.column_names}
    assert str(types["x"]) == str(types["y"]) == "float"
    assert [str(types["neighbours"].field(name).type.value_type) for name in ("ids", "distances")] == ["int32", "float"]
    assert str(types["image"]) == "struct<bytes: binary, path: string>"
    export(store, images, "plain.parquet")
    assert table.select(plain).equals(pq.read_table("plain.parquet"))


def test_neighbours_are_those_of_numpy_and_copies_count_once(store, images):
    rows, _ = written(store, images, "neighbours")
    first = images.first_rows()
    units = unit_rows(store.read(images.digests[first]))
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    for place, row in enumerate(first):
        expected = np.argsort(-cosines[place])[:3]
        assert rows[row]["neighbours"]["ids"] == [first[one] for one in expected]
        assert rows[row]["neighbours"]["distances"] == pytest.approx(1 - cosines[place, expected], abs=1e-6)
    wide, copy = (next(row for row in rows if row["path"].endswith(name)) for name in ("a/wide.jpg", "a/copy.jpg"))
    assert wide["neighbours"] == copy["neighbours"]


def test_a_single_image_has_no_neighbours(store, images):
    (row,), _ = written(store, images.subset([0]), "neighbours", "map")
    assert (row["neighbours"], row["x"], row["y"]) == ({"ids": [], "distances": []}, 0, 0)


def test_the_map_shows_the_first_two_principal_components(store, images):
    rows, _ = written(store, images, "map")
    features = store.read(images.digests[images.first_rows()])
    _, _, axes = np.linalg.svd(features - features.mean(axis=0))
    expected = (features - features.mean(axis=0)) @ axes[:2].T
    found = np.array([[rows[row]["x"], rows[row]["y"]] for row in images.first_rows()])
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)
    assert (found[np.abs(found).argmax(axis=0), (0, 1)] > 0).all()


def test_features_that_do_not_fit_in_memory_are_reduced_with_a_warning(spec, images):
    store, digests = FeatureCache("wide").store(spec), np.unique(images.digests, axis=0)
    store.append(digests, np.random.default_rng(0).normal(1, 1, (len(digests), 100)).astype(np.float32))
    with pytest.warns(BottleneckWarning, match=r"neighbours are approximate: .* principal components"):
        export_atlas(store, images, "out.parquet", parts=["neighbours"], memory=4 * COPIES * len(digests) * 70)
    assert len(pq.read_table("out.parquet")) == 5


@each("dim", [1, 2, 3])
def test_few_features_have_a_map_too(dim):
    features = np.random.default_rng(0).normal(size=(20, dim)).astype(np.float32)
    found = plane(features)
    assert found.shape == (20, 2)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(found[:, 1], 0) == (dim == 1)


def test_pictures_are_small_jpegs_that_keep_their_shape(store, images):
    rows, failures = written(store, images, "pictures")
    sizes = {}
    for row in rows:
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert (picture.format, row["image"]["path"]) == ("JPEG", row["path"])
        sizes[Path(row["path"]).name] = picture.size
    assert sizes == {
        "wide.jpg": (96, 24),
        "tall.jpg": (24, 96),
        "small.png": (96, 96),
        "copy.jpg": (96, 24),
        "more.jpg": (96, 72),
    }
    assert failures == ()


def test_a_file_that_is_gone_or_changed_has_no_picture_unless_a_copy_is_left(store, images):
    paths = {Path(path).name: Path(path) for path in images.paths}
    paths["wide.jpg"].unlink()
    paths["tall.jpg"].unlink()
    paths["more.jpg"].write_bytes(photo(99))
    rows, failures = written(store, images, "pictures")
    assert sorted(Path(row["path"]).name for row in rows if row["image"] is None) == ["more.jpg", "tall.jpg"]
    assert {Path(failure.path).name: failure.code for failure in failures}["more.jpg"] == "changed"
    assert len(rows) == 5


def test_unknown_parts_and_other_formats_are_refused_before_any_work(store, images):
    with pytest.raises(CacheError, match="expected parts among map, neighbours, pictures, got maps"):
        export_atlas(store, images, "out.parquet", parts=["maps"])
    with pytest.raises(CacheError, match=r"expected a Parquet file for map, pictures, got \.npz"):
        export_atlas(store, images, "out.npz", parts=["pictures", "map"])
    assert "out.npz" not in os.listdir()


def test_nothing_is_written_if_there_are_no_images(store, images):
    with pytest.raises(CacheError, match="found none to write"):
        export_atlas(store, images.subset([]), "out.parquet", parts=PARTS)
    assert "out.parquet" not in os.listdir()


def test_progress_is_reported_by_stage(store, images):
    told = []
    export_atlas(store, images, "out.parquet", parts=PARTS, progress=lambda *step: told.append(step))
    assert ("neighbours", 4, 4) in told
    assert ("thumbnails", 5, 5) in told

import errno
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.cache.export import export
from bottleneck.errors import CacheError, MissingFeatures
from bottleneck.images.dataset import Dataset
from tests.cache.numbered import D, add, case, digests, features
from tests.faults import Fault, system_error
from tests.variants import each

LAYOUTS = ["npz", "h5", "parquet"]
NAMES = ("digest", "path", "label", "split")


def dataset(*numbers: int, labels: tuple[str | None, ...] = (), paths: tuple[str, ...] = ()) -> Dataset:
    none = (None,) * len(numbers)
    return Dataset(
        source=Path("/images"),
        paths=paths or tuple(f"/images/ä{number}.jpg" for number in range(len(numbers))),
        digests=digests(*numbers),
        labels=labels or tuple("ab"[number % 2] for number in numbers),
        given_splits=("train", "val", "test", "train")[: len(numbers)],
        groups=none,
    )


def load(path: Path, layout: str) -> dict[str, np.ndarray]:
    if layout == "npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if layout == "h5":
        with h5py.File(path) as file:
            texts = {name: file[name].asstr()[:] for name in NAMES}
            return {**texts, "features": file["features"][:]}
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    texts = {name: np.array(table[name].to_pylist(), object) for name in NAMES}
    return {
        **texts,
        "features": np.array(
            table["features"].to_pylist(), table.schema.field("features").type.value_type.to_pandas_dtype()
        ),
    }


@each("layout, dtype", [("npz", "float16"), ("npz", "float32"), ("h5", "float16"), ("parquet", "float32")])
def test_every_layout_has_one_row_per_path_in_the_order_of_the_paths(store, tmp_path, layout, dtype):
    add(store, 3, 1, dtype=dtype)
    add(store, 2, dtype=dtype)
    out = tmp_path / f"out.{layout}"
    export(store, dataset(1, 2, 3, 1), out)
    found = load(out, layout)

    assert found["digest"].tolist() == [row.tobytes().hex() for row in digests(1, 2, 3, 1)]
    assert found["path"].tolist() == [f"/images/ä{number}.jpg" for number in range(4)]
    assert found["label"].tolist() == ["b", "a", "b", "b"]
    assert found["split"].tolist() == ["train", "val", "test", "train"]
    assert found["features"].dtype == dtype
    assert np.array_equal(found["features"], features(1, 2, 3, 1, dtype=dtype))


@each("layout", LAYOUTS)
def test_labels_and_paths_that_are_missing_or_not_utf8_are_written_as_documented(store, tmp_path, layout):
    add(store, 1, 2, 3)
    out = tmp_path / "out"
    export(store, dataset(1, 2, 3, labels=(None, "b", "caf\udce9"), paths=("/a", "/b", "/caf\udce9.jpg")), out, layout)
    found = load(out, layout)

    assert found["label"].tolist() == [None if layout == "parquet" else "", "b", "caf\\xe9"]
    assert found["path"].tolist() == ["/a", "/b", "/caf\\xe9.jpg"]


def test_no_images_are_an_error(store, tmp_path):
    add(store, 1)
    for layout in LAYOUTS:
        with case(layout), pytest.raises(CacheError, match="found none"):
            export(store, dataset(), tmp_path / "out", layout)

    assert not (tmp_path / "out").exists()


FULL_DISK = """
import resource, sys
import numpy as np
from bottleneck.cache.export import _WRITERS
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
texts = {name: ["x"] * 5000 for name in ("digest", "path", "label", "split")}
features = np.random.default_rng(0).random((5000, 64), np.float32)
try:
    with open("out", "wb+") as file:
        _WRITERS[sys.argv[1]](file, texts, features)
except OSError as error:
    print("OSError", error.errno)
"""


@each("layout", LAYOUTS)
def test_a_full_disk_is_an_error_and_no_crash(layout):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, layout], capture_output=True, text=True)

    assert (done.returncode, done.stdout.split()[:1]) == (0, ["OSError"]), done.stderr


def test_a_name_without_a_known_format_is_refused(store, tmp_path):
    add(store, 1)
    for name in ("out.csv", "out"):
        with case(name), pytest.raises(ValueError, match="npz, h5, parquet"):
            export(store, dataset(1), tmp_path / name)

    assert os.listdir(tmp_path) == ["cache"]


def test_missing_features_leave_the_old_file_unchanged(store, tmp_path):
    add(store, 1)
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    with pytest.raises(MissingFeatures):
        export(store, dataset(1, 2), out)

    assert out.read_bytes() == b"old"


def test_a_write_that_fails_leaves_the_old_file_unchanged_and_nothing_else(store, tmp_path, wrap):
    add(store, 1)
    out = tmp_path / "out.npz"
    out.write_bytes(b"old")
    wrap(np.lib.format, "write_array", Fault(system_error(errno.ENOSPC)))
    with pytest.raises(CacheError, match="No space left"):
        export(store, dataset(1), out)

    assert out.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["cache", "out.npz"]


def test_without_pyarrow_the_error_says_how_to_install_it(store, tmp_path, monkeypatch):
    add(store, 1)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(CacheError, match=r"pip install 'bottleneck-vision\[parquet\]'"):
        export(store, dataset(1), tmp_path / "out.parquet")

    assert os.listdir(tmp_path) == ["cache"]


def test_features_are_chunked_by_rows(store, tmp_path):
    add(store, 1, 2, 3)
    export(store, dataset(1, 2, 3), tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["features"].chunks == (3, D)

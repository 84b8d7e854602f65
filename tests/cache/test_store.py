import errno
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck.cache.store
import bottleneck.utils.files
from bottleneck.cache.compact import ShardSizes
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.shard import read_shard
from bottleneck.errors import CacheError, MissingFeatures, ShardError
from bottleneck.utils.folder import Folder
from tests.cache.numbered import D, add, case, digests, features, files
from tests.faults import Fault, before_first, system_error
from tests.variants import each

FULL_DISK = system_error(errno.ENOSPC)


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


# --- the map digest -> features ---------------------------------------------------------------------------------


def test_a_new_store_is_empty_and_writes_nothing(store, tmp_path):
    assert store.digests().shape == (0, 32)
    assert not store.has(digests(1, 2)).any()
    assert store.shards() == []
    assert not files(tmp_path)


@each("dtype", ["float16", "float32"])
def test_what_was_appended_is_read_bit_for_bit(store, dtype):
    add(store, 1, 2, 3, dtype=dtype)
    found = store.read(digests(1, 2, 3))

    assert found.dtype == np.float32
    assert found.tobytes() == features(1, 2, 3, dtype=dtype).astype(np.float32).tobytes()


def test_digests_that_end_in_zeros_are_distinguished(store):
    # As NumPy byte strings they lose their last zeros.
    close = np.zeros((4, 32), np.uint8)
    close[1, 30], close[2, 31], close[3, 0] = 1, 1, 1
    values = np.arange(4 * D, dtype=np.float32).reshape(4, D)
    store.append(close, values)

    assert np.array_equal(store.digests(), close[[0, 2, 1, 3]])
    assert np.array_equal(store.read(close[::-1]), values[::-1])


def test_digests_are_sorted_without_duplicates(store):
    add(store, 1, 2, 3)
    add(store, 2, 3, 4)
    found = [row.tobytes() for row in store.digests()]

    assert found == sorted(row.tobytes() for row in digests(1, 2, 3, 4))


def test_an_image_twice_in_one_shard_is_read_once(store):
    add(store, 1, 2, 1)

    assert len(store.digests()) == 2
    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_has_returns_which_images_have_features(store):
    add(store, 1, 3)

    assert store.has(digests(1, 2, 3, 1)).tolist() == [True, False, True, True]


def test_missing_features_are_counted(store):
    add(store, 1, 2)

    with pytest.raises(MissingFeatures, match=r"of 5 images .*, 3 are missing"):
        store.read(digests(1, 7, 2, 8, 9))


def test_a_missing_image_that_is_requested_twice_counts_once(store):
    add(store, 1)

    with pytest.raises(MissingFeatures, match=r"of 2 images .*, 1 are missing"):
        store.read(digests(7, 1, 7))


def test_in_an_empty_store_all_are_missing(store):
    with pytest.raises(MissingFeatures, match="2 are missing"):
        store.read(digests(1, 2))


def test_missing_returns_the_rows_without_features(store):
    add(store, 1, 3)

    assert store.missing(digests(1, 2, 3, 4, 2)).tolist() == [1, 3, 4]
    assert store.missing(digests()).tolist() == []


def test_no_images_have_no_features(store):
    assert store.read(digests()).shape == (0, 0)
    add(store, 1)

    assert store.read(digests()).shape == (0, D)
    assert not store.has(digests()).size


def test_the_dimension_is_that_of_the_features(store):
    add(store, 1)

    assert store.dim() == D


def test_an_empty_store_has_no_dimension(store):
    with pytest.raises(MissingFeatures, match="bottleneck extract"):
        store.dim()


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")  # one of them may go to quarantine
def test_shards_of_two_widths_are_never_mixed(cache, spec):
    for width in (1, D - 1, D + 1):
        store = cache.store(replace(spec, decoder=width))
        add(store, 1, 2)

        def mix(store=store, width=width) -> None:
            store.append(digests(3), np.ones((1, width), np.float32))
            store.read(digests(1, 2, 3))

        with case(width), pytest.raises(CacheError):
            mix()


def test_two_stores_of_one_spec_are_one(cache, store, spec):
    add(store, 1)
    other = FeatureCache(str(cache.root)).store(spec)
    add(other, 2)

    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_a_cache_may_be_named_by_a_relative_path(spec, tmp_path):
    add(FeatureCache("here").store(spec), 1)

    assert len(FeatureCache(tmp_path / "here").store(spec).shards()) == 1


# --- what is written, and when it fails -------------------------------------------------------------------------


def test_the_layout_is_that_of_the_design(cache, store, spec):
    path = add(store, 1)

    assert files(cache.root) == {
        f"features/tiny-{spec.fingerprint}/spec.json",
        f"features/tiny-{spec.fingerprint}/shards/{path.name}",
        f"features/tiny-{spec.fingerprint}/index/{path.stem}",
    }
    assert json.loads((store.folder / "spec.json").read_text()) == spec.to_json()
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_batch_too_large_for_one_shard_becomes_several(cache, spec):
    for rows_at_once, shards in ((1, 5), (2, 3), (4, 2), (5, 1), (6, 1)):
        with case(rows_at_once):
            sizes = ShardSizes(bytes=rows_at_once * D * 4)
            store = replace(cache.store(replace(spec, decoder=rows_at_once)), sizes=sizes)
            names = store.append(digests(*range(5)), features(*range(5)))

            assert len(names) == shards
            assert sorted(names) == [path.stem for path in store.shards()]
            assert np.array_equal(store.read(digests(*range(5))), features(*range(5)))


def test_an_empty_batch_is_refused(store):
    with pytest.raises(ShardError, match="above 0"):
        store.append(digests(), features())

    assert store.shards() == []


def test_appending_equal_rows_again_leaves_one_shard(store):
    add(store, 1, 2)
    store.append(digests(1, 2), features(1, 2))

    assert len(store.shards()) == 1


def test_reading_writes_nothing(cache, store):
    add(store, 1, 2)
    before = {path: path.stat().st_mtime_ns for path in cache.root.rglob("*")}
    store.read(digests(1, 2)), store.has(digests(1)), store.dim(), store.digests(), cache.stores(), store.request()

    assert {path: path.stat().st_mtime_ns for path in cache.root.rglob("*")} == before


def test_features_that_are_not_finite_are_refused(store):
    for value in (np.nan, np.inf, -np.inf):
        wrong = features(1, 2)
        wrong[1, 3] = value
        with case(value), pytest.raises(ShardError, match="finite"):
            store.append(digests(1, 2), wrong)

    assert store.shards() == []


def test_a_full_disk_is_a_cache_error_that_leaves_no_file_and_keeps_what_was_committed(store, wrap):
    fault = Fault(FULL_DISK)
    wrap(os, "fsync", fault)
    with pytest.raises(CacheError, match="No space left on device"):
        store.append(digests(1), features(1))
    assert files(store.folder) == set()

    fault.active = False
    add(store, 1)
    before = files(store.folder)
    fault.active = True
    with pytest.raises(CacheError, match=r"No space left on device.*committed before are kept"):
        store.append(digests(2), features(2))
    assert files(store.folder) == before

    fault.active = False
    assert np.array_equal(store.read(digests(1)), features(1))
    add(store, 2)
    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_a_full_disk_during_a_write_leaves_nothing(store, wrap):
    add(store, 1)
    before = files(store.folder)

    class Filling(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            raise FULL_DISK

    wrap(bottleneck.utils.files, "open", lambda call, *args, **options: Filling(*args, **options))

    with pytest.raises(CacheError, match="No space left on device"):
        store.append(digests(2), features(2))
    assert files(store.folder) == before


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_a_folder_that_cannot_be_synced_is_not_acknowledged(store, wrap):
    add(store, 1)

    def only_files(call: Callable[[int], None], descriptor: int) -> None:
        if is_folder(descriptor):
            raise FULL_DISK
        call(descriptor)

    wrap(os, "fsync", only_files)

    with pytest.raises(CacheError):
        store.append(digests(2), features(2))
    assert not [name for name in files(store.folder) if ".tmp" in name]


def test_a_cache_below_a_file_is_a_cache_error(spec, tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(CacheError, match="cannot write"):
        FeatureCache(tmp_path / "file").store(spec).append(digests(1), features(1))


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_data_and_folder_are_durable_before_the_append_returns(store, wrap):
    add(store, 1)
    shards = store.folder / "shards"
    events: list[str] = []

    def fsync(call: Callable[[int], None], descriptor: int) -> None:
        if not is_folder(descriptor):
            events.append("file")
        elif os.path.samestat(os.fstat(descriptor), shards.stat()):
            events.append("folder")
        call(descriptor)

    def rename(call: Callable[..., None], folder: Folder, *names: str) -> None:
        if folder.path == shards:
            events.append("rename")
        call(folder, *names)

    wrap(os, "fsync", fsync)
    wrap(Folder, "rename", rename)
    store.append(digests(2), features(2))

    assert events == ["file", "rename", "folder"]  # the memo of the shard is not synced


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_new_folders_are_durable_before_the_first_append_returns(cache, store, wrap):
    seen: set[int] = set()

    def fsync(call: Callable[[int], None], descriptor: int) -> None:
        seen.add(os.fstat(descriptor).st_ino)
        call(descriptor)

    wrap(os, "fsync", fsync)
    store.append(digests(1), features(1))
    folders = [store.folder / "shards", store.folder, cache.root / "features", cache.root, cache.root.parent]

    assert [folder for folder in folders if folder.stat().st_ino not in seen] == []


# --- writers that are killed, and many at once ------------------------------------------------------------------


def test_temporary_and_foreign_files_are_ignored(store):
    add(store, 1)
    for name in (".tmp-123-abcd", ".tmp-1-x.h5", "x.h5", "0" * 63 + ".h5", "0" * 64 + ".h5.part"):
        (store.folder / "shards" / name).write_bytes(b"half a shard")

    assert len(store.shards()) == 1
    assert np.array_equal(store.read(digests(1)), features(1))
    assert len(store.digests()) == 1
    assert not (store.folder / "quarantine").exists()


WRITER = """
import os, sys
from pathlib import Path
import numpy as np
from bottleneck.backbones.spec import Spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.utils.folder import Folder
import json, stat

root, death, *numbers = sys.argv[1:]
store = FeatureCache(root).store(Spec.from_json(json.loads(Path("spec.json").read_text())))
digests, features = np.load("digests.npy"), np.load("features.npy")
if death == "fsync":
    os.fsync = lambda descriptor: os._exit(9) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
elif death:
    Folder.rename = lambda *args: os._exit(9)
for number in map(int, numbers):
    store.append(digests[number : number + 2], features[number : number + 2])
    print(number, flush=True)
"""


@pytest.fixture
def writer(tmp_path, spec):
    """Return a function that starts a process which appends images (i, i + 1) for each given i."""
    count = 200
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_json()))
    np.save(tmp_path / "digests.npy", digests(*range(count)))
    np.save(tmp_path / "features.npy", features(*range(count)))

    def start(cache: FeatureCache, numbers: list[int], death: str = "") -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", WRITER, str(cache.root), death, *map(str, numbers)]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize("death", ["fsync", "replace"])
def test_a_writer_that_dies_before_its_shard_is_complete_leaves_nothing_to_read(cache, store, writer, death):
    store._prepare()
    process = writer(cache, [5], death)
    printed, _ = process.communicate()

    assert (process.returncode, printed) == (9, "")
    assert [name for name in files(store.folder / "shards") if name.startswith(".tmp")]
    assert store.shards() == []
    assert not store.has(digests(5, 6)).any()
    add(store, 5, 6)
    assert np.array_equal(store.read(digests(5, 6)), features(5, 6))


def test_acknowledged_rows_survive_a_kill_bit_for_bit(cache, store, writer):
    process = writer(cache, list(range(198)) * 20)
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    seen += [int(line) for line in process.stdout]

    assert process.wait() == -signal.SIGKILL, "the writer was done before it was killed"
    images = sorted({image for number in seen for image in (number, number + 1)})
    assert store.read(digests(*images)).tobytes() == features(*images).tobytes()


def test_concurrent_writers_leave_the_rows_of_one_writer(cache, store, writer):
    processes = [writer(cache, list(range(start, start + 12))) for start in (0, 4, 8)]
    for process in processes:
        process.communicate()

    images = range(0, 21)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(store.digests()) == len(images)
    assert store.read(digests(*images)).tobytes() == features(*images).tobytes()


def test_a_listed_shard_that_no_longer_exists_is_no_error(store, wrap):
    kept, gone = add(store, 1), add(store, 2)
    gone.unlink()
    wrap(os, "listdir", lambda call, folder: [gone.name, kept.name])
    wrap(time, "sleep", lambda call, seconds: None)

    assert np.array_equal(store.read(digests(1)), features(1))
    assert len(store.digests()) == 1


def test_an_outdated_listing_is_read_again_after_a_while(store, wrap):
    # A network file system may show a folder as it was before another machine compacted it.
    old, new = add(store, 1), add(store, 1, 2)
    old.unlink()
    looks, waits = iter(range(100)), []
    wrap(os, "listdir", lambda call, folder: [old.name] if next(looks) < 4 else call(folder))
    wrap(time, "sleep", lambda call, seconds: waits.append(seconds))

    assert np.array_equal(store.read(digests(1)), features(1))
    assert store.shards() == [new]
    assert 0 < sum(waits) < 1


def test_a_spec_that_is_deleted_while_a_shard_is_written_is_written_again(store, wrap):
    wrap(bottleneck.cache.store, "write_shard", before_first(lambda: shutil.rmtree(store.folder)))
    add(store, 1)

    assert (store.folder / "spec.json").exists()
    assert [found.name for found in FeatureCache(store.folder.parents[1]).stores()] == [store.name]


def test_a_parent_folder_that_may_not_be_opened_is_no_error(store, wrap):
    def fsync(call: Callable[[Path], None], folder: Path) -> None:
        if folder == store.folder.parents[2]:
            raise system_error(errno.EACCES)
        call(folder)

    wrap(bottleneck.cache.store, "fsync_folder", fsync)
    add(store, 1)

    assert store.has(digests(1)).all()


def test_read_shard_reads_the_shards_of_a_store(store, spec):
    assert np.array_equal(read_shard(add(store, 1, 2), spec).features, features(1, 2))


# --- digests and features as callers pass them ------------------------------------------------------------------


def test_digests_may_be_any_list_or_array_of_their_numbers(store):
    add(store, 1, 2)
    for convert in (np.ndarray.tolist, lambda rows: rows.astype(np.int64), np.asfortranarray, list):
        with case(convert):
            assert store.has(convert(digests(1, 3))).tolist() == [True, False]
            assert np.array_equal(store.read(convert(digests(2, 1))), features(2, 1))
            assert store.missing(convert(digests(3))).tolist() == [0]
            assert store.stream(convert(digests(1))).shape == (1, D)


def test_values_that_are_not_digests_are_refused(store):
    add(store, 1)
    for wrong in ("x", 3, [1, 2], [[1] * 31], [[256] * 32], [[-1] * 32], [[0.5] * 32], [[None] * 32]):
        for call in (store.has, store.missing, store.read, store.stream):
            with case(wrong, call), pytest.raises(CacheError, match=r"expected digests of shape \(n, 32\)"):
                call(wrong)


def test_values_that_are_not_rows_are_not_committed(store):
    for wrong in (("a", "b"), ([1, 2], [3]), (digests(1), 3.0), (digests(1), features(1).tolist())):
        with case(wrong), pytest.raises(CacheError, match="expected"):
            store.append(*wrong)

    assert store.shards() == []


def test_no_digests_give_no_features(store):
    add(store, 1)

    assert store.has([]).shape == (0,)
    assert store.read([]).shape == (0, D)

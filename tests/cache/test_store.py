import errno
import hashlib
import io
import json
import os
import re
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bottleneck.files
from bottleneck.cache.shard import read_shard
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard, ShardError

D = 6


def digests(*numbers: int) -> np.ndarray:
    """Return the digests of images that are known by a number."""
    return np.array([list(hashlib.sha256(bytes([number])).digest()) for number in numbers], np.uint8).reshape(-1, 32)


def features(*numbers: int, dtype: str = "float32") -> np.ndarray:
    """Return the features of images that are known by a number."""
    return np.array([np.random.default_rng(number).normal(size=D) for number in numbers], dtype).reshape(-1, D)


def add(store: Store, *numbers: int, dtype: str = "float32") -> Path:
    """Append one shard and return its path."""
    before = set(store.shards())
    store.append(digests(*numbers), features(*numbers, dtype=dtype))
    (path,) = set(store.shards()) - before
    return path


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def full_disk(*args: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture
def store(cache, spec) -> Store:
    return cache.store(spec)


# --- the map digest -> features ---------------------------------------------------------------------------------


def test_a_new_store_is_empty_and_writes_nothing(store, tmp_path):
    assert store.digests().shape == (0, 32)
    assert not store.has(digests(1, 2)).any()
    assert store.shards() == []
    assert not files(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_was_appended_is_read_bit_for_bit(store, dtype):
    add(store, 1, 2, 3, dtype=dtype)
    found = store.read(digests(1, 2, 3))

    assert found.dtype == np.float32
    assert found.tobytes() == features(1, 2, 3, dtype=dtype).astype(np.float32).tobytes()


def test_reading_keeps_the_given_order_and_repeats(store):
    add(store, 4, 2)
    add(store, 1, 3)

    assert np.array_equal(store.read(digests(3, 1, 4, 1, 2, 3)), features(3, 1, 4, 1, 2, 3))


def test_a_part_of_a_shard_is_read(store):
    add(store, 1, 2, 3, 4, 5)

    assert np.array_equal(store.read(digests(4, 2)), features(4, 2))


def test_digests_that_end_in_zeros_are_told_apart(store):
    # As NumPy byte strings they lose their last zeros.
    close = np.zeros((4, 32), np.uint8)
    close[1, 30], close[2, 31], close[3, 0] = 1, 1, 1
    values = np.arange(4 * D, dtype=np.float32).reshape(4, D)
    store.append(close, values)

    assert np.array_equal(store.digests(), close[[0, 2, 1, 3]])
    assert np.array_equal(store.read(close[::-1]), values[::-1])


def test_digests_are_sorted_and_each_stands_once(store):
    add(store, 1, 2, 3)
    add(store, 2, 3, 4)
    found = [row.tobytes() for row in store.digests()]

    assert found == sorted(row.tobytes() for row in digests(1, 2, 3, 4))


def test_an_image_in_several_shards_is_read_once(store):
    add(store, 1, 2)
    add(store, 2, 3)

    assert np.array_equal(store.read(digests(2)), features(2))
    assert np.array_equal(store.read(digests(1, 2, 3)), features(1, 2, 3))


def test_an_image_twice_in_one_shard_is_read_once(store):
    add(store, 1, 2, 1)

    assert len(store.digests()) == 2
    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_has_says_which_images_are_there(store):
    add(store, 1, 3)

    assert store.has(digests(1, 2, 3, 1)).tolist() == [True, False, True, True]


def test_missing_features_are_counted(store):
    add(store, 1, 2)

    with pytest.raises(MissingFeatures, match=r"of 5 images .*, 3 are missing"):
        store.read(digests(1, 7, 2, 8, 9))


def test_a_missing_image_that_is_asked_for_twice_counts_once(store):
    add(store, 1)

    with pytest.raises(MissingFeatures, match=r"of 2 images .*, 1 are missing"):
        store.read(digests(7, 1, 7))


def test_in_an_empty_store_all_are_missing(store):
    with pytest.raises(MissingFeatures, match="2 are missing"):
        store.read(digests(1, 2))


def test_no_images_have_no_features(store):
    add(store, 1)

    assert store.read(digests()).shape == (0, D)


def test_the_dimension_is_that_of_the_features(store):
    add(store, 1)

    assert store.dim() == D


def test_an_empty_store_has_no_dimension(store):
    with pytest.raises(MissingFeatures, match="bottleneck extract"):
        store.dim()


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")  # one of them may go to quarantine
@pytest.mark.parametrize("width", [1, D - 1, D + 1])
def test_shards_of_two_widths_are_never_mixed(store, width):
    add(store, 1, 2)

    def mix() -> None:
        store.append(digests(3), np.ones((1, width), np.float32))
        store.read(digests(1, 2, 3))

    with pytest.raises(CacheError):
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
    }
    assert json.loads((store.folder / "spec.json").read_text()) == spec.to_json()
    assert path.stem == hashlib.sha256(path.read_bytes()).hexdigest()


def test_appending_equal_rows_again_leaves_one_shard(store):
    add(store, 1, 2)
    store.append(digests(1, 2), features(1, 2))

    assert len(store.shards()) == 1


def test_reading_writes_nothing(cache, store):
    add(store, 1, 2)
    before = {path: path.stat().st_mtime_ns for path in cache.root.rglob("*")}
    store.read(digests(1, 2)), store.has(digests(1)), store.dim(), store.digests(), cache.stores(), store.request()

    assert {path: path.stat().st_mtime_ns for path in cache.root.rglob("*")} == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(store, value):
    wrong = features(1, 2)
    wrong[1, 3] = value

    with pytest.raises(ShardError, match="finite"):
        store.append(digests(1, 2), wrong)

    assert store.shards() == []


def test_a_full_disk_at_fsync_is_a_cache_error_and_leaves_nothing(store, monkeypatch):
    add(store, 1)
    before = files(store.folder)
    monkeypatch.setattr(os, "fsync", full_disk)

    with pytest.raises(CacheError, match="No space left on device"):
        store.append(digests(2), features(2))

    assert files(store.folder) == before


def test_a_full_disk_at_the_first_write_of_all_leaves_no_file(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", full_disk)

    with pytest.raises(CacheError, match="No space left on device"):
        store.append(digests(1), features(1))

    assert files(store.folder) == set()


def test_a_full_disk_in_the_middle_of_a_write_leaves_nothing(store, monkeypatch):
    add(store, 1)
    before = files(store.folder)

    class Filling(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bottleneck.files, "open", Filling, raising=False)

    with pytest.raises(CacheError, match="No space left on device"):
        store.append(digests(2), features(2))

    assert files(store.folder) == before


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_a_folder_that_cannot_be_made_durable_is_not_acknowledged(store, monkeypatch):
    add(store, 1)
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if is_folder(descriptor):
            full_disk()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)

    with pytest.raises(CacheError):
        store.append(digests(2), features(2))

    assert not [name for name in files(store.folder) if ".tmp" in name]


def test_what_was_committed_before_the_disk_was_full_is_kept_and_work_goes_on_after(store, monkeypatch):
    add(store, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(CacheError, match="committed before is kept"):
            store.append(digests(2), features(2))

    assert np.array_equal(store.read(digests(1)), features(1))
    add(store, 2)
    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_a_cache_below_a_file_is_a_cache_error(spec, tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(CacheError, match="cannot write"):
        FeatureCache(tmp_path / "file").store(spec).append(digests(1), features(1))


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_data_and_folder_are_durable_before_the_append_returns(store, monkeypatch):
    add(store, 1)
    events: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        events.append("folder" if is_folder(descriptor) else "file")
        fsync(descriptor)

    def spy_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_rename)
    store.append(digests(2), features(2))

    assert events == ["file", "rename", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_new_folders_are_durable_before_the_first_append_returns(cache, store, monkeypatch):
    seen: set[int] = set()
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        seen.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    store.append(digests(1), features(1))
    folders = [store.folder / "shards", store.folder, cache.root / "features", cache.root, cache.root.parent]

    assert [folder for folder in folders if folder.stat().st_ino not in seen] == []


# --- writers that are killed, and many at once ------------------------------------------------------------------


@pytest.mark.parametrize("name", [".tmp-123-abcd", ".tmp-1-x.h5", "x.h5", "0" * 63 + ".h5", "0" * 64 + ".h5.part"])
def test_temporary_and_foreign_files_are_ignored(store, name):
    add(store, 1)
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
from bottleneck.cache.store import FeatureCache
import json

root, death, *numbers = sys.argv[1:]
store = FeatureCache(root).store(Spec.from_json(json.loads(Path("spec.json").read_text())))
digests, features = np.load("digests.npy"), np.load("features.npy")
if death:
    store._prepare()
    setattr(os if death == "fsync" else Path, death, lambda *args: os._exit(9))
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
def test_a_writer_that_dies_before_its_shard_is_whole_leaves_nothing_to_be_read(cache, store, writer, death):
    process = writer(cache, [5], death)
    printed, _ = process.communicate()

    assert (process.returncode, printed) == (9, "")
    assert [name for name in files(store.folder / "shards") if name.startswith(".tmp")]
    assert store.shards() == []
    assert not store.has(digests(5, 6)).any()
    add(store, 5, 6)
    assert np.array_equal(store.read(digests(5, 6)), features(5, 6))


def test_what_was_acknowledged_is_there_bit_for_bit_after_a_kill(cache, store, writer):
    process = writer(cache, list(range(198)) * 20)
    assert process.stdout is not None
    seen = [int(process.stdout.readline()) for _ in range(20)]
    process.send_signal(signal.SIGKILL)
    seen += [int(line) for line in process.stdout]

    assert process.wait() == -signal.SIGKILL, "the writer was done before it was killed"
    images = sorted({image for number in seen for image in (number, number + 1)})
    assert store.read(digests(*images)).tobytes() == features(*images).tobytes()


def test_many_writers_at_once_leave_the_map_that_one_leaves(cache, store, writer):
    processes = [writer(cache, list(range(start, start + 12))) for start in (0, 4, 8)]
    for process in processes:
        process.communicate()

    images = range(0, 21)
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(store.digests()) == len(images)
    assert store.read(digests(*images)).tobytes() == features(*images).tobytes()


def test_a_shard_that_vanishes_while_the_store_is_read_is_no_error(store, monkeypatch):
    kept, gone = add(store, 1), add(store, 2)
    listed = [gone, kept]
    gone.unlink()
    monkeypatch.setattr(Store, "shards", lambda self: listed)

    assert np.array_equal(store.read(digests(1)), features(1))
    assert len(store.digests()) == 1


# --- shards that cannot be trusted ------------------------------------------------------------------------------


def flip_a_feature(path: Path, *numbers: int) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(features(*numbers).tobytes()) + 3] ^= 0x40
    path.write_bytes(data)


def test_a_flipped_byte_takes_its_shard_alone_out_of_use(store):
    damaged, good = add(store, 1, 2), add(store, 3, 4)
    flip_a_feature(damaged, 1, 2)

    with (
        pytest.warns(BottleneckWarning, match="the shard is damaged"),
        pytest.raises(MissingFeatures, match=r"of 4 .* 2 are"),
    ):
        store.read(digests(1, 2, 3, 4))

    assert store.shards() == [good]
    assert len(files(store.folder / "quarantine")) == 1
    assert store.has(digests(1, 2, 3, 4)).tolist() == [False, False, True, True]
    assert np.array_equal(store.read(digests(4, 3)), features(4, 3))


def test_images_of_a_quarantined_shard_can_be_computed_again(store):
    damaged = add(store, 1, 2)
    flip_a_feature(damaged, 1, 2)
    with pytest.warns(BottleneckWarning), pytest.raises(MissingFeatures):
        store.read(digests(1))

    assert add(store, 1, 2) == damaged
    assert np.array_equal(store.read(digests(1, 2)), features(1, 2))


def test_an_image_that_is_in_a_good_shard_too_is_not_missed(store):
    damaged = add(store, 1, 2)
    add(store, 2, 3)
    flip_a_feature(damaged, 1, 2)

    with pytest.warns(BottleneckWarning):
        assert np.array_equal(store.read(digests(2, 3)), features(2, 3))


def test_the_damaged_bytes_are_kept_in_quarantine(store):
    damaged = add(store, 1)
    flip_a_feature(damaged, 1)
    data = damaged.read_bytes()
    with pytest.warns(BottleneckWarning, match="quarantine"), pytest.raises(MissingFeatures):
        store.read(digests(1))

    (kept,) = (store.folder / "quarantine").iterdir()
    assert kept.name.startswith(damaged.stem)
    assert kept.read_bytes() == data


@pytest.mark.parametrize("ask", [Store.digests, Store.dim, lambda store: store.has(digests(3))])
@pytest.mark.parametrize("damage", [b"", b"garbage", 0.5, -10])
def test_damage_that_shows_without_the_features_is_noticed_at_once(store, ask, damage):
    first, second = sorted([add(store, 1, 2), add(store, 3, 4)])
    data = first.read_bytes()
    cut = int(damage * len(data)) if isinstance(damage, float) else damage
    first.write_bytes(damage if isinstance(damage, bytes) else data[:cut])

    with pytest.warns(BottleneckWarning, match="moved to .*quarantine"):
        ask(store)

    assert store.shards() == [second]
    assert store.dim() == D


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\0" * 10_000])
def test_a_file_of_garbage_is_quarantined_when_it_is_read(store, damage):
    add(store, 1)
    (store.folder / "shards" / f"{'0' * 64}.h5").write_bytes(damage)

    with pytest.warns(BottleneckWarning):
        assert np.array_equal(store.read(digests(1)), features(1))

    assert len(store.shards()) == 1


def test_a_shard_of_another_spec_is_quarantined(cache, store, spec):
    add(store, 1)
    other = cache.store(replace(spec, weights="1" * 64))
    foreign = add(other, 2)
    foreign.rename(store.folder / "shards" / foreign.name)

    with pytest.warns(BottleneckWarning, match="another spec"):
        assert np.array_equal(store.read(digests(1)), features(1))
    assert not store.has(digests(2)).any()


def hostile(store: Store, change: Any) -> Path:
    """Put a changed copy of a shard beside it, named by its own hash."""
    path = store.shards()[0]
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        change(file)
    return copy.rename(path.with_name(f"{hashlib.sha256(copy.read_bytes()).hexdigest()}.h5"))


def test_a_hostile_shard_under_its_own_hash_is_quarantined(store):
    add(store, 1)

    def link(file: h5py.File) -> None:
        del file["features"]
        file["features"] = h5py.ExternalLink("/etc/passwd", "/")

    path = hostile(store, link)

    with pytest.warns(BottleneckWarning, match="link"):
        assert np.array_equal(store.read(digests(1)), features(1))
    assert not path.exists()


@pytest.mark.parametrize("ask", [Store.digests, lambda store: store.read(digests(1))])
def test_a_newer_shard_is_refused_and_stays_where_it_is(store, ask):
    add(store, 1)
    newer = hostile(store, lambda file: file.attrs.modify("format_version", 2))

    with pytest.raises(NewerShard, match="update bottleneck"):
        ask(store)

    assert newer in store.shards()
    assert not (store.folder / "quarantine").exists()


def test_a_quarantine_that_cannot_be_written_leaves_the_others_readable(store, monkeypatch):
    flip_a_feature(add(store, 1), 1)
    add(store, 2)
    monkeypatch.setattr(Path, "replace", full_disk)

    with pytest.warns(BottleneckWarning) as caught:
        assert np.array_equal(store.read(digests(2)), features(2))

    assert len(store.shards()) == 2
    assert "was moved" not in str(caught[0].message)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
def test_a_shard_that_cannot_be_opened_just_now_is_a_cache_error_and_stays(store, monkeypatch, code):
    path = add(store, 1)

    def fail(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", fail)
        with pytest.raises(CacheError):
            store.digests()

    assert store.shards() == [path]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_a_shard_that_cannot_be_read_just_now_is_a_cache_error_and_stays(store, monkeypatch, code):
    path = add(store, 1)

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(CacheError):
            store.read(digests(1))

    assert store.shards() == [path]


def test_a_shard_that_does_not_fit_into_memory_stays(store, monkeypatch):
    path = add(store, 1)

    def fail(*args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(h5py.Dataset, "__getitem__", fail)
        with pytest.raises((MemoryError, CacheError)):
            store.read(digests(1))

    assert store.shards() == [path]


def test_a_shard_that_another_process_has_meanwhile_written_whole_is_not_lost(store, monkeypatch):
    path = add(store, 1)
    whole = path.read_bytes()
    flip_a_feature(path, 1)
    rename = Path.replace

    def after_another_wrote(source: Path, target: Path) -> Path:
        if source == path:
            path.write_bytes(whole)
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", after_another_wrote)

    with pytest.raises(MissingFeatures):  # this reader saw the damage; the next one does not
        store.read(digests(1))
    assert np.array_equal(store.read(digests(1)), features(1))


def test_two_readers_may_quarantine_one_shard(store, monkeypatch):
    path = add(store, 1)
    flip_a_feature(path, 1)
    rename = Path.replace

    def after_another_did(source: Path, target: Path) -> Path:
        source.unlink()
        return rename(source, target)

    monkeypatch.setattr(Path, "replace", after_another_did)

    with pytest.raises(MissingFeatures):
        store.read(digests(1))


# --- specs ------------------------------------------------------------------------------------------------------


def test_specs_never_mix(cache, store, spec):
    other = cache.store(replace(spec, preprocessing=replace(spec.preprocessing, crop=27)))
    store.append(digests(1), features(1))
    other.append(digests(1), features(2))
    other.append(digests(3), features(3))

    assert np.array_equal(store.read(digests(1)), features(1))
    assert np.array_equal(other.read(digests(1)), features(2))
    assert not store.has(digests(3)).any()


def test_all_stores_are_listed_by_name(cache, spec):
    specs = [replace(spec, backbone=name) for name in ("c", "a", "b")]
    for one in specs:
        add(cache.store(one), 1)

    assert [found.spec.backbone for found in cache.stores()] == ["a", "b", "c"]
    assert {found.spec for found in cache.stores()} == set(specs)


def test_an_absent_cache_has_no_stores(cache):
    assert cache.stores() == []


def test_a_folder_that_is_no_store_is_passed_over(cache, store):
    add(store, 1)
    (cache.root / "features" / "notes").mkdir()

    assert cache.stores() == [store]


@pytest.mark.parametrize("backbone", ["timm/x.y", "../../escape", "", "a b", "ä", "x" * 100])
def test_any_name_of_a_backbone_stays_below_the_cache(cache, spec, backbone):
    store = cache.store(replace(spec, backbone=backbone))
    add(store, 1)

    assert store.folder.resolve().parent == (cache.root / "features").resolve()
    assert cache.stores() == [store]


def test_a_store_is_found_by_the_name_of_its_backbone(cache, store):
    add(store, 1)

    assert cache.find("tiny") == store


def test_a_store_is_found_by_the_beginning_of_its_fingerprint(cache, store, spec):
    add(store, 1)
    add(cache.store(replace(spec, decoder=2)), 1)

    assert cache.find(f"tiny-{spec.fingerprint[:4]}") == store
    assert cache.find(store.short_name) == store
    assert cache.find(store.name) == store


def test_the_short_name_has_8_digits_of_the_fingerprint(store, spec):
    assert store.short_name == f"tiny-{spec.fingerprint[:8]}"


def test_a_name_that_several_stores_have_lists_them(cache, store, spec):
    other = cache.store(replace(spec, decoder=2))
    add(store, 1), add(other, 1)

    with pytest.raises(CacheError, match="found 2 specs; choose with --model") as caught:
        cache.find("tiny")

    assert store.short_name in str(caught.value)
    assert other.short_name in str(caught.value)


def test_a_beginning_that_several_stores_have_is_refused(cache, store, spec):
    add(store, 1), add(cache.store(replace(spec, decoder=2)), 1)

    with pytest.raises(CacheError, match="found 2 specs"):
        cache.find("tiny-")


def test_a_backbones_name_does_not_find_one_that_only_begins_so(cache, spec):
    add(cache.store(replace(spec, backbone="tiny-large")), 1)

    with pytest.raises(CacheError, match="found 0 specs"):
        cache.find("tiny")
    with pytest.raises(CacheError, match="found 0 specs"):
        cache.find("tin")


def test_a_name_that_is_absent_lists_what_is_cached(cache, store):
    add(store, 1)

    with pytest.raises(CacheError, match=re.escape(f"cached are: {store.short_name}. Run `bottleneck extract` first")):
        cache.find("resnet50")


def test_an_empty_cache_says_so(cache):
    with pytest.raises(CacheError, match="cached are: none"):
        cache.find("resnet50")


@pytest.mark.parametrize(
    "edit",
    [
        {"decoder": 2},
        {"backbone": "other"},
        {"weights": "1" * 64},
        {"backbone": 5},
        {"decoder": None},
        {"precision": float("nan")},
        {"version": 99},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_spec_that_was_edited_is_refused(cache, store, spec, edit):
    add(store, 1)
    (store.folder / "spec.json").write_text(json.dumps({**spec.to_json(), **edit}))

    with pytest.warns(BottleneckWarning, match=r"spec"):
        assert cache.stores() == []
    with pytest.raises(CacheError, match=r"spec"):
        cache.open(store.name)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_spec_that_is_garbage_is_refused(cache, store, garbage):
    add(store, 1)
    (store.folder / "spec.json").write_bytes(garbage)

    with pytest.warns(BottleneckWarning, match="expected a spec"):
        assert cache.stores() == []


@pytest.mark.parametrize("name", ["tiny", "tiny-0", "", ".."])
def test_a_store_that_is_not_there_is_a_cache_error(cache, store, name):
    add(store, 1)

    with pytest.raises(CacheError, match="expected a spec"):
        cache.open(name)


def test_a_store_is_opened_by_its_name(cache, store):
    add(store, 1)

    assert cache.open(store.name) == store


def test_a_store_whose_spec_cannot_be_read_hides_no_other(cache, store, spec):
    other = cache.store(replace(spec, backbone="other"))
    add(store, 1), add(other, 1)
    (other.folder / "spec.json").write_text("{}")

    with pytest.warns(BottleneckWarning, match=re.escape(str(other.folder))):
        assert cache.stores() == [store]
    with pytest.warns(BottleneckWarning):
        assert cache.find("tiny") == store


def test_features_are_read_without_spec_json_and_the_next_append_mends_it(cache, store):
    add(store, 1)
    (store.folder / "spec.json").unlink()

    assert np.array_equal(store.read(digests(1)), features(1))
    add(store, 2)
    assert cache.stores() == [store]


# --- how the backbone was asked for -----------------------------------------------------------------------------


def test_a_request_is_kept(store):
    store.remember_request({"model": "tiny", "weights": "w.pth", "seed": 0})

    assert store.request() == {"model": "tiny", "weights": "w.pth", "seed": 0}


def test_deleting_the_request_is_harmless(cache, store):
    add(store, 1)
    store.remember_request({"model": "tiny"})
    (store.folder / "request.json").unlink()

    assert store.request() is None
    assert cache.find("tiny") == store
    assert np.array_equal(store.read(digests(1)), features(1))


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe"])
def test_a_request_that_is_garbage_is_none(store, garbage):
    store.remember_request({"model": "tiny"})
    (store.folder / "request.json").write_bytes(garbage)

    assert store.request() is None


def test_a_request_that_is_already_kept_is_not_written_again(store):
    store.remember_request({"model": "tiny"})
    before = (store.folder / "request.json").stat()
    store.remember_request({"model": "tiny"})
    after = (store.folder / "request.json").stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_shards_of_a_store_are_whole_files_that_read_shard_reads(store, spec):
    assert np.array_equal(read_shard(add(store, 1, 2), spec).features, features(1, 2))

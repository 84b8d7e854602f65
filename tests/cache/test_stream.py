"""Features that are read again and again: each row once, proven, in order or mixed, in little memory."""

import errno
import mmap
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest

import bottleneck.cache.shard
import bottleneck.cache.slices
import bottleneck.cache.stream
import bottleneck.cache.verified
from bottleneck.cache.compact import compact
from bottleneck.cache.index import save_entry
from bottleneck.cache.shard import DatasetLayout, read_shard
from bottleneck.cache.store import Store
from bottleneck.cache.stream import Stream
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard, ShardError
from bottleneck.images.clock import _in_memory as in_memory
from bottleneck.images.digest import signature
from tests.cache.numbered import D, add, digests, features, flip_a_feature, overwrite
from tests.cache.test_shard import named

N = 3000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks of 40 float16 rows, blocks of 80 and pools of 600."""
    monkeypatch.setattr(bottleneck.cache.shard, "_CHUNK_BYTES", 80 * D)
    monkeypatch.setattr(bottleneck.cache.verified, "_BLOCK_BYTES", 160 * D)
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 160 * D)
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 1200 * D)


def many(store: Store, dtype: str = "float16", cuts: tuple[int, ...] = (1, 5, 300, 301, 1500, 2990)) -> tuple:
    """Append shards of N random images, and return their digests and features."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N, 32), np.uint8)
    values = random.normal(size=(N, D)).astype(dtype)
    for rows in np.array_split(np.arange(N), cuts):
        store.append(images[rows], values[rows])
    return images, values


def blocks(stream: Stream) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(rows.copy(), found.copy()) for rows, found in stream.blocks()]


def mixed(stream: Stream, seed: int = 0, batch: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(stream.mixed(np.random.default_rng(seed), batch=batch))


def together(passed: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Return the features by row, each of which was given once."""
    rows = np.concatenate([rows for rows, _ in passed])
    assert np.array_equal(np.sort(rows), np.arange(len(rows)))
    return np.concatenate([found for _, found in passed])[np.argsort(rows)]


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, c) and b.tobytes() == d.tobytes() for (a, b), (c, d) in zip(one, other, strict=True)
    )


def lose(store: Store, *numbers: int) -> Path:
    """Append a shard and damage it behind the back of its memo, so that only reading it tells."""
    path = add(store, *numbers)
    entry = store.index().entries[path.stem]
    flip_a_feature(path, *numbers)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)
    return path


PASSES = pytest.mark.parametrize("passed", [blocks, mixed])


# --- what is read -----------------------------------------------------------------------------------------------


@PASSES
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [1, 2, 100, N - 1, N])
def test_each_row_comes_once_with_its_features_as_they_are_stored(store, small, passed, dtype, count):
    images, values = many(store, dtype)
    chosen = np.random.default_rng(1).permutation(N)[:count]
    stream = store.stream(images[chosen])

    assert stream.shape == (count, D)
    assert stream.dtype == dtype
    for _ in range(2):
        assert together(passed(stream)).dtype == dtype
        assert together(passed(stream)).tobytes() == values[chosen].tobytes()


@PASSES
def test_it_reads_what_the_store_reads_with_the_sizes_that_are_real(store, passed):
    random = np.random.default_rng(0)
    images, values = random.integers(0, 256, (5000, 32), np.uint8), random.normal(size=(5000, 512)).astype(np.float16)
    for rows in np.array_split(np.arange(5000), 3):
        store.append(images[rows], values[rows])
    order = random.permutation(5000)

    for chosen in (order, order[:777], np.arange(1500, 3800)):
        assert together(passed(store.stream(images[chosen]))).tobytes() == values[chosen].tobytes()


@PASSES
def test_halves_among_floats_are_given_as_floats(store, passed):
    add(store, 1, 2, dtype="float16"), add(store, 3, 4, dtype="float32")
    stream = store.stream(digests(4, 2, 3, 1))

    assert stream.dtype == np.float32
    assert together(passed(stream)).tobytes() == store.read(digests(4, 2, 3, 1)).tobytes()
    assert store.stream(digests(1, 2)).dtype == np.float16


@PASSES
def test_an_image_that_is_in_two_shards_comes_once(store, passed):
    add(store, 1, 2, 3), add(store, 2, 3, 4), add(store, 4, 4, 5)

    assert np.array_equal(together(passed(store.stream(digests(5, 4, 3, 2, 1)))), features(5, 4, 3, 2, 1))


@PASSES
def test_chunks_of_any_size_are_read_in_small_pieces(store, monkeypatch, passed):
    images, values = many(store, "float32", (1000,))
    monkeypatch.setattr(bottleneck.cache.verified, "_BLOCK_BYTES", 7 * 4 * D)
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 7 * 4 * D)

    assert together(passed(store.stream(images))).tobytes() == values.tobytes()
    assert max(len(rows) for rows, _ in store.stream(images).blocks()) <= 14


@PASSES
def test_a_row_that_is_larger_than_a_block_is_read(store, monkeypatch, passed):
    for module in (bottleneck.cache.verified, bottleneck.cache.stream):
        monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    add(store, 1, 2, 3)

    assert np.array_equal(together(passed(store.stream(digests(3, 1, 2)))), features(3, 1, 2))


@PASSES
def test_no_images_give_nothing(store, passed):
    assert store.stream(digests()).shape == (0, 0)
    add(store, 1)

    assert store.stream(digests()).shape == (0, D)
    assert passed(store.stream(digests())) == []


def test_images_that_repeat_are_refused(store):
    add(store, 1, 2, 3)

    with pytest.raises(ValueError, match="each image once, got 2 again"):
        store.stream(digests(1, 2, 1, 3, 1))


def test_images_without_features_are_missing(store):
    add(store, 1, 2)

    with pytest.raises(MissingFeatures, match=r"of 4 .* 2 are missing"):
        store.stream(digests(1, 2, 3, 4))


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
def test_shards_that_disagree_on_d_are_an_error(store):
    add(store, 1)
    store.append(digests(2), np.ones((1, D + 1), np.float32))

    with pytest.raises(CacheError, match=f"{D} and {D + 1}: delete that folder"):
        store.stream(digests(1))


def test_a_memo_that_is_wrong_about_d_is_not_believed(store):
    path = add(store, 1, 2)
    entry = store.index().entries[path.stem]
    wrong = type(entry)(entry.digests, D - 1, entry.dtype)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), wrong)

    with pytest.raises(CacheError, match=f"expected {D - 1} features"):
        store.stream(digests(1))


# --- the order --------------------------------------------------------------------------------------------------


def test_blocks_come_in_one_order_and_are_large(store, small):
    images, _ = many(store)
    stream = store.stream(images)

    assert same(blocks(stream), blocks(stream))
    assert same(blocks(stream), blocks(store.stream(images)))
    assert len(blocks(stream)) < N / 60


def test_equal_generators_give_equal_batches_and_others_do_not(store, small):
    images, _ = many(store)
    stream, again = store.stream(images), store.stream(images)

    assert same(mixed(stream, 1), mixed(again, 1))
    assert not same(mixed(stream, 1), mixed(stream, 2))
    random = np.random.default_rng(1)
    first = list(stream.mixed(random, batch=64))
    assert same(first, mixed(stream, 1))
    assert not same(first, list(stream.mixed(random, batch=64)))


def test_what_else_is_drawn_between_two_batches_changes_nothing(store, small):
    images, _ = many(store)
    random = np.random.default_rng(1)
    found = [(batch, random.random())[0] for batch in store.stream(images).mixed(random, batch=64)]

    assert same(found, mixed(store.stream(images), 1))


@pytest.mark.parametrize("batch", [1, 64, 1000, N, N + 1, 10**12])
def test_all_batches_but_the_last_have_the_same_size(store, small, batch):
    images, _ = many(store)
    sizes = [len(rows) for rows, _ in mixed(store.stream(images), batch=batch)]

    assert set(sizes[:-1]) <= {batch}
    assert sizes[-1] == (N % batch or batch)


def test_batches_below_one_row_are_refused(store):
    add(store, 1)

    with pytest.raises(ValueError, match="1 row or more, got 0"):
        mixed(store.stream(digests(1)), batch=0)


def test_batches_are_mixed_over_shards_of_one_class_each(store, small):
    images, _ = many(store, cuts=tuple(range(300, N, 300)))
    passed = mixed(store.stream(images), batch=100)

    for rows, _ in passed:
        classes = np.bincount(rows // 300, minlength=10)
        assert (classes > 0).sum() >= 5
        assert classes.max() < 60
        assert np.mean(np.diff(np.sort(rows)) == 1) < 0.5
    assert len({rows[0] // 300 for rows, _ in passed}) > 5


def test_batches_are_the_callers_own(store, small):
    images, values = many(store)
    stream = store.stream(images)
    kept = mixed(stream)
    for _, found in mixed(stream, 1):
        found[:] = 0

    assert together(kept).tobytes() == values.tobytes()
    assert together(blocks(stream)).tobytes() == values.tobytes()


def test_passes_may_be_left_and_run_within_each_other(store, small):
    images, values = many(store)
    stream = store.stream(images)
    next(stream.blocks()), next(stream.mixed(np.random.default_rng(0), batch=10))
    found = []
    for number, batch in enumerate(stream.mixed(np.random.default_rng(0), batch=500)):
        found.append(batch)
        assert together(mixed(stream, number)).tobytes() == values.tobytes()
        assert together(blocks(stream)).tobytes() == values.tobytes()

    assert same(found, mixed(stream, 0, 500))


# --- proof ------------------------------------------------------------------------------------------------------


def test_each_shard_is_proven_once(store, small, opened):
    images, _ = many(store)
    stream = store.stream(images)
    blocks(stream), mixed(stream)

    assert sorted(opened) == [path.stem for path in store.shards()]


@PASSES
def test_few_files_are_open_at_once(store, monkeypatch, passed):
    monkeypatch.setattr(bottleneck.cache.slices, "_FILES", 3)
    for number in range(12):
        add(store, 2 * number, 2 * number + 1)
    stream = store.stream(digests(*range(24)))
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else pytest.skip("needs /proc")
    most = max(len(os.listdir("/proc/self/fd")) for _ in stream.blocks())

    assert most <= before + 4  # one lists the folder
    assert np.array_equal(together(passed(stream)), features(*range(24)))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_damaged_shard_is_quarantined_when_the_stream_is_opened(store):
    path = lose(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.stream(digests(1, 2, 3))

    assert not path.exists()
    assert len(list((store.folder / "quarantine").iterdir())) == 1


@PASSES
def test_where_a_damaged_shard_has_copies_they_are_used(store, passed):
    add(store, 1, 9), add(store, 2, 8)
    lose(store, 1, 2, 3, 4)  # the largest, which is asked first
    add(store, 3, 4)

    with pytest.warns(BottleneckWarning, match="damaged"):
        stream = store.stream(digests(4, 1, 2, 3))
    assert np.array_equal(together(passed(stream)), features(4, 1, 2, 3))


@PASSES
def test_a_shard_that_is_damaged_after_it_was_opened_is_not_served(store, passed):
    path = add(store, 1, 2)
    add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    flip_a_feature(path, 1, 2)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        passed(stream)
    assert not path.exists()


@PASSES
def test_copies_are_used_where_a_shard_is_damaged_between_two_passes(store, passed):
    path = add(store, 1, 2, 3)
    add(store, 1, 2), add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    flip_a_feature(path, 1, 2, 3)

    with pytest.warns(BottleneckWarning, match="damaged"):
        assert np.array_equal(together(passed(stream)), features(1, 2, 3))


@pytest.mark.parametrize("hurt", [flip_a_feature, lambda path, *_: overwrite(path, path.read_bytes()[:-4000])])
@pytest.mark.parametrize("start", [Stream.blocks, lambda stream: stream.mixed(np.random.default_rng(0), batch=1)])
def test_a_shard_that_is_damaged_during_a_pass_is_not_served(store, monkeypatch, start, hurt):
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 1)
    paths = {number: add(store, number) for number in range(8)}
    passing = start(store.stream(digests(*range(8))))
    (first,), found = next(passing)
    assert np.array_equal(found, features(first))
    next(passing)
    for number, path in paths.items():
        hurt(path, number)

    served = []
    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(CacheError, match="damaged while it was read"):
        served.extend((int(rows[0]), found.copy()) for rows, found in passing)
    for number, found in served:
        assert np.array_equal(found, features(number))


@PASSES
def test_a_file_that_was_touched_is_proven_again_and_read(store, opened, passed):
    path = add(store, 1, 2)
    other = add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    opened.clear()
    os.utime(path, (5, 5))

    assert np.array_equal(together(passed(stream)), features(1, 2, 3))
    assert set(opened) == {path.stem}
    assert other.exists()


def test_a_file_that_is_touched_during_a_pass_is_proven_again_and_read(store, monkeypatch, opened):
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    paths = [add(store, number) for number in range(4)]
    passing = store.stream(digests(*range(4))).blocks()
    found = [tuple(array.copy() for array in next(passing))]
    opened.clear()
    for path in paths:
        os.utime(path, (5, 5))
    found += [(rows.copy(), values.copy()) for rows, values in passing]

    assert np.array_equal(together(found), features(*range(4)))
    assert len(opened) == 3


def test_a_file_that_never_rests_is_given_up_on(store, monkeypatch):
    path = add(store, 1, 2)
    stream = store.stream(digests(1, 2))
    read, ticks = os.preadv, iter(range(1, 1000))

    def touch(descriptor: int, *args: object) -> int:
        os.utime(path, (1, next(ticks)))
        return read(descriptor, *args)

    monkeypatch.setattr(os, "preadv", touch)

    with pytest.raises(CacheError, match=r"was compacted|changes while it is read"):
        blocks(stream)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_that_are_not_finite_are_refused(store, value, dtype):
    path = add(store, 1, 2, dtype=dtype)
    add(store, 3, dtype=dtype)
    entry = store.index().entries[path.stem]
    data = path.read_bytes()
    wrong = features(1, 2, dtype=dtype)
    wrong[1, 3] = value
    path.write_bytes(data.replace(features(1, 2, dtype=dtype).tobytes(), wrong.tobytes()))
    path = named(path)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)

    with pytest.warns(BottleneckWarning, match="expected finite features"), pytest.raises(MissingFeatures):
        store.stream(digests(1, 2, 3))
    assert not path.exists()


def test_a_newer_shard_is_refused_and_stays_where_it_is(store):
    path = add(store, 1)
    entry = store.index().entries[path.stem]
    with h5py.File(path, "r+") as file:
        file.attrs.modify("format_version", 2)
    path = named(path)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)

    with pytest.raises(NewerShard, match="update bottleneck"):
        store.stream(digests(1))
    assert path.exists()


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("place", [(h5py, "File"), (os, "preadv")])
def test_a_shard_that_cannot_be_read_just_now_is_a_cache_error_and_stays(store, monkeypatch, code, place):
    path = add(store, 1, 2)

    def fail(*args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*place, fail)

    with pytest.raises(CacheError, match=f"cannot read .*{os.strerror(code)}") as caught:
        store.stream(digests(1))
    assert not isinstance(caught.value, ShardError)
    assert path.exists()


class Failing:
    """A file that cannot be read any more once it was read to its end."""

    def __init__(self, file: FileIO) -> None:
        self.file, self.ended = file, False

    def readinto(self, buffer: memoryview) -> int:
        if self.ended:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        count = self.file.readinto(buffer)
        self.ended = not count
        return count

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


OPENED = bottleneck.cache.verified.opened


@contextmanager
def failing(path: Path) -> Iterator[tuple[object, os.stat_result]]:
    with OPENED(path) as (file, status):
        yield Failing(file), status


def test_a_disk_that_fails_while_hdf5_reads_is_a_cache_error_and_the_shard_stays(store, monkeypatch):
    path = add(store, 1, 2)
    monkeypatch.setattr(bottleneck.cache.verified, "opened", failing)

    with pytest.raises(CacheError, match=f"cannot read .*{os.strerror(errno.EIO)}") as caught:
        store.stream(digests(1))
    assert not isinstance(caught.value, ShardError)
    assert path.exists()


@pytest.mark.parametrize("disk", ["failing", "OPENED"])
def test_a_process_that_keeps_what_hdf5_raised_ends_well(store, disk):
    # HDF5 lets go of its files after Python has ended, which crashes if an error has kept one of them.
    path = add(store, 1)
    path.write_bytes(b"garbage" if disk == "OPENED" else path.read_bytes())
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import bottleneck.cache.verified as verified\n"
        "from tests.cache import test_stream\n"
        f"verified.opened = test_stream.{disk}\n"
        "try:\n"
        "    verified.verify_shard(Path(sys.argv[1]), None)\n"
        "except OSError as error:\n"
        "    sys.kept = error\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", code, str(named(path))]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert result.returncode == 0, result.stderr
    assert ("not a shard" if disk == "OPENED" else "cannot read") in result.stdout


@pytest.mark.parametrize("name", ["digests", "features"])
def test_what_read_shard_refuses_is_refused(store, spec, name):
    # Both ask `layouts`; the crafted shards of test_hostile_shards.py need not be crafted here again.
    path = add(store, 1, 2)
    entry = store.index().entries[path.stem]
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=values, compression="gzip")
    path = named(path)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)
    with pytest.raises(ShardError) as refused:
        read_shard(path, spec)

    with pytest.warns(BottleneckWarning) as caught, pytest.raises(MissingFeatures):
        store.stream(digests(1))
    assert str(refused.value) in str(caught[0].message)


def test_a_shard_that_changes_while_it_is_proven_is_proven_again(store, monkeypatch, opened):
    path = add(store, 1, 2)
    layouts, todo = bottleneck.cache.verified.layouts, [lambda: os.utime(path, (1, 1))]

    def meanwhile(*args: object) -> tuple[DatasetLayout, DatasetLayout]:
        if todo:
            todo.pop()()
        return layouts(*args)

    monkeypatch.setattr(bottleneck.cache.verified, "layouts", meanwhile)

    stream = store.stream(digests(2, 1))
    assert len(opened) > 1
    assert np.array_equal(together(blocks(stream)), features(2, 1))


# --- shards that vanish -----------------------------------------------------------------------------------------


def compacting(store: Store) -> Callable[[], object]:
    return lambda: compact(store)


def test_shards_that_are_compacted_while_a_stream_is_opened_are_found_in_the_new_one(store, monkeypatch):
    for number in range(6):
        add(store, number)
    todo = [compacting(store)]
    verify = bottleneck.cache.stream.verify_shard

    def meanwhile(*args: object) -> object:
        if todo:
            todo.pop()()
        return verify(*args)

    monkeypatch.setattr(bottleneck.cache.stream, "verify_shard", meanwhile)

    assert np.array_equal(together(blocks(store.stream(digests(*range(6))))), features(*range(6)))
    assert len(store.shards()) == 1


@PASSES
def test_shards_that_are_compacted_between_two_passes_are_found_in_the_new_one(store, passed):
    for number in range(6):
        add(store, number)
    stream = store.stream(digests(*range(6)))
    before = together(passed(stream))
    compact(store)

    assert np.array_equal(together(passed(stream)), before)


@pytest.mark.parametrize("start", [Stream.blocks, lambda stream: stream.mixed(np.random.default_rng(0), batch=2)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_pass_goes_on_where_shards_are_joined_during_it(store, monkeypatch, opened, start, dtype):
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 1)
    for number in range(0, 12, 2):
        add(store, number, number + 1, dtype=dtype)
    passing = start(store.stream(digests(*range(12))))
    found = [tuple(array.copy() for array in next(passing))]
    compact(store)
    opened.clear()
    found += [(rows.copy(), values.copy()) for rows, values in passing]
    (joined,) = store.shards()

    assert np.array_equal(together(found), features(*range(12), dtype=dtype))
    assert opened.count(joined.stem) == 1  # once for all the shards that are lost


def test_a_pass_goes_on_where_the_joined_shard_is_joined_again(store, monkeypatch):
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    for number in range(6):
        add(store, number)
    passing = store.stream(digests(*range(6))).blocks()
    found = [tuple(array.copy() for array in next(passing))]
    for number in (7, 8):
        compact(store)
        found.append(tuple(array.copy() for array in next(passing)))
        add(store, number)
    compact(store)
    found += [(rows.copy(), values.copy()) for rows, values in passing]

    assert np.array_equal(together(found), features(*range(6)))


def test_a_shard_that_is_deleted_during_a_pass_is_missing(store, monkeypatch):
    monkeypatch.setattr(bottleneck.cache.stream, "_BLOCK_BYTES", 1)
    for number in range(6):
        add(store, number)
    passing = store.stream(digests(*range(6))).blocks()
    next(passing)
    for path in store.shards():
        store.drop(path.stem)

    with pytest.raises(MissingFeatures, match="1 are missing"):
        list(passing)


@PASSES
def test_images_of_a_shard_that_vanishes_for_good_are_missing(store, passed):
    path = add(store, 1, 2)
    add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    path.unlink()

    with pytest.raises(MissingFeatures, match=r"of 3 .* 2 are missing"):
        passed(stream)


# --- very wide rows ---------------------------------------------------------------------------------------------


def wide(store: Store, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Append rows of any finite numbers that float16 has."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32), np.uint8)
    values = random.integers(0, 0x7C00, (count, dim), np.uint16).view(np.float16)
    store.append(images, values)
    return images, values


@PASSES
@pytest.mark.parametrize(("count", "dim"), [(1, 1_000_000), (3, 200_704), (5, 1_000_000), (9, 300_000)])
def test_rows_wider_than_a_chunk_come_back_bit_for_bit(activations, passed, count, dim):
    images, values = wide(activations, count, dim)
    order = np.arange(count)[::-1]

    found = activations.read(images[order], as_stored=True)
    assert found.dtype == np.float16
    assert found.tobytes() == values[order].tobytes()
    assert together(passed(activations.stream(images[order]))).tobytes() == values[order].tobytes()
    assert activations.read(images[-1:], as_stored=True).tobytes() == values[-1:].tobytes()


def test_of_wide_rows_a_chunk_has_one_and_little_is_padding(activations):
    wide(activations, 7, 1_000_000)
    (path,) = activations.shards()
    with h5py.File(path) as file:
        assert file["features"].chunks == (1, 1_000_000)
    assert path.stat().st_size < 7 * 2_000_000 * 1.01


def test_wide_rows_become_shards_of_a_bounded_size(activations):
    images, values = wide(activations, 70, 1_000_000)  # 140 MB

    assert max(path.stat().st_size for path in activations.shards()) < 68e6
    assert len(activations.shards()) == 3
    assert activations.read(images, as_stored=True).tobytes() == values.tobytes()


def test_wide_rows_of_one_shard_are_mixed(activations, monkeypatch):
    images, _ = wide(activations, 40, 50_000)
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 500_000)  # five rows; a chunk has ten
    firsts = [found[0][0].tolist() for found in (mixed(activations.stream(images), seed, 4) for seed in range(3))]

    assert len({tuple(first) for first in firsts}) == 3


@PASSES
def test_memory_of_wide_rows_is_bounded_by_the_pools(activations, monkeypatch, passed):
    images, _ = wide(activations, 40, 500_000)  # 40 MB
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 4_000_000)
    start = {blocks: Stream.blocks, mixed: lambda stream: stream.mixed(np.random.default_rng(0), batch=4)}[passed]

    tracemalloc.start()
    stream = activations.stream(images)
    opening = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    count = sum(len(rows) for rows, _ in start(stream))
    passing = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 40
    assert opening < 10e6  # four threads verify; a block each
    assert passing < 21e6  # two pools of five or six rows, and a batch and its parts


# --- memory -----------------------------------------------------------------------------------------------------


@PASSES
def test_memory_is_bounded_by_the_pools_whatever_the_number_of_rows(store, monkeypatch, passed):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16_000, 32), np.uint8)
    for rows in np.array_split(np.arange(len(images)), 2):
        store.append(images[rows], np.ones((len(rows), 256), np.float32))  # 8 MB each
    monkeypatch.setattr(bottleneck.cache.stream, "_POOL_BYTES", 1 << 20)
    start = {blocks: Stream.blocks, mixed: lambda stream: stream.mixed(np.random.default_rng(0), batch=64)}[passed]

    tracemalloc.start()
    stream = store.stream(images)
    opening = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    count = sum(len(rows) for rows, _ in start(stream))
    passing = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == len(images)
    assert opening < 7e6  # of 16 MB; 2 to 3 are those of digests
    assert passing < 7e6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems stamp mapped files in other ways")
def test_what_a_memory_map_changes_after_the_proof_is_never_served(store, tmp_path):
    if in_memory(os.stat(tmp_path).st_dev):
        pytest.skip("the temporary folder is in memory, where memory maps leave no trace")
    path = add(store, 1, 2)
    place = path.read_bytes().index(features(1).tobytes())
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0] = memory[0]  # the pages are dirty, and take the next change without a new time stamp
        memory[place] = memory[place]
        stream = store.stream(digests(1, 2))
        while (tmp_path / "tick").write_bytes(b"") or (tmp_path / "tick").stat().st_mtime_ns <= path.stat().st_mtime_ns:
            (tmp_path / "tick").unlink()
        memory[place] ^= 0x40
        with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures):
            blocks(stream)

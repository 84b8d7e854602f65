"""Streams: each row once, verified, in order or shuffled, in little memory."""

import errno
import mmap
import os
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bottleneck.cache.stream
import bottleneck.cache.verified
from bottleneck.backbones.spec import Spec
from bottleneck.cache.compact import ShardSizes, compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import save_entry
from bottleneck.cache.shard import read_shard
from bottleneck.cache.slices import ReadSizes
from bottleneck.cache.store import Store
from bottleneck.cache.stream import Stream
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard, ShardError
from bottleneck.images.digest import signature
from tests.cache.numbered import (
    D,
    add,
    case,
    damage_behind_the_memo,
    digests,
    features,
    flip_a_feature,
    named,
    overwrite,
)
from tests.faults import Fault, before_first, system_error
from tests.variants import each

pytestmark = pytest.mark.usefixtures("no_sync")
N = 3000
ROW = 2 * D  # bytes of a float16 row
SMALL = ReadSizes(block_bytes=80 * ROW, pool_bytes=600 * ROW)
SINGLE = ReadSizes(block_bytes=1, pool_bytes=1)  # one row after the other
Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def small(spec: Spec, tmp_path: Path) -> tuple[Store, np.ndarray, np.ndarray]:
    """Return a store of N random images in shards with chunks of 40 rows, their digests and features."""
    store = Store(tmp_path / "cache" / "features" / f"tiny-{spec.fingerprint}", spec, ShardSizes(chunk_bytes=40 * ROW))
    return store, *many(store)


def many(store: Store, dtype: str = "float16", cuts: tuple[int, ...] = (1, 5, 300, 301, 1500, 2990)) -> tuple:
    """Append shards of N random images, and return their digests and features."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (N, 32), np.uint8)
    values = random.normal(size=(N, D)).astype(dtype)
    for rows in np.array_split(np.arange(N), cuts):
        store.append(images[rows], values[rows])
    return images, values


def blocks(stream: Stream) -> Batches:
    return [(rows.copy(), found.copy()) for rows, found in stream.blocks()]


def shuffled(stream: Stream, seed: int = 0, batch: int = 64) -> Batches:
    return list(stream.mixed(np.random.default_rng(seed), batch=batch))


def together(batches: Batches) -> np.ndarray:
    """Return the features by row, each of which was given once."""
    rows = np.concatenate([rows for rows, _ in batches])
    assert np.array_equal(np.sort(rows), np.arange(len(rows)))
    return np.concatenate([found for _, found in batches])[np.argsort(rows)]


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, c) and b.tobytes() == d.tobytes() for (a, b), (c, d) in zip(one, other, strict=True)
    )


BOTH_WAYS = each("read", [blocks, shuffled])


# --- what is read -----------------------------------------------------------------------------------------------


@given(
    count=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 300), max_size=6),
    share=st.floats(0.01, 1),
    dtypes=st.lists(st.sampled_from(["float16", "float32"]), min_size=1, max_size=3),
    chunk_rows=st.integers(1, 200),
    block_rows=st.integers(1, 200),
    pool_rows=st.integers(1, 200),
    batch=st.integers(1, 400),
)
@example(300, [], 1.0, ["float16"], 100, 1, 1, 7)
@example(300, [100, 200], 0.9, ["float16", "float32"], 300, 7, 400, 10**12)
def test_each_row_comes_once_with_its_stored_features(
    spec, count, cuts, share, dtypes, chunk_rows, block_rows, pool_rows, batch
):
    random = np.random.default_rng(count)
    images, values = random.integers(0, 256, (count, 32), np.uint8), random.normal(size=(count, D)).astype("float16")
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "features" / "tiny", spec, ShardSizes(chunk_bytes=chunk_rows * ROW))
        for number, rows in enumerate(np.array_split(np.arange(count), sorted(cuts))):
            if len(rows):
                store.append(images[rows], values[rows].astype(dtypes[number % len(dtypes)]))
        chosen = random.permutation(count)[: max(1, int(share * count))]
        stream = store.stream(images[chosen], ReadSizes(block_rows * ROW, pool_rows * ROW, files=2))

        assert stream.shape == (len(chosen), D)
        if len(set(dtypes)) == 1:
            assert stream.dtype == dtypes[0]
        wanted = values[chosen].astype(stream.dtype).tobytes()
        for _ in range(2):
            assert together(blocks(stream)).tobytes() == wanted
            sizes = [len(rows) for rows, _ in shuffled(stream, batch=batch)]
            assert set(sizes[:-1]) <= {batch}
            assert sizes[-1] == (len(chosen) % batch or batch)
            assert together(shuffled(stream, batch=batch)).tobytes() == wanted


def test_it_reads_what_the_store_reads_with_the_default_sizes(store):
    random = np.random.default_rng(0)
    images, values = random.integers(0, 256, (5000, 32), np.uint8), random.normal(size=(5000, 512)).astype(np.float16)
    for rows in np.array_split(np.arange(5000), 3):
        store.append(images[rows], values[rows])
    order = random.permutation(5000)

    for chosen in (order, order[:777], np.arange(1500, 3800)):
        stream = store.stream(images[chosen])
        assert together(blocks(stream)).tobytes() == together(shuffled(stream)).tobytes() == values[chosen].tobytes()


def test_float16_among_float32_is_given_as_float32(store):
    add(store, 1, 2, dtype="float16"), add(store, 3, 4, dtype="float32")
    stream = store.stream(digests(4, 2, 3, 1))

    assert stream.dtype == np.float32
    wanted = store.read(digests(4, 2, 3, 1)).tobytes()
    assert together(blocks(stream)).tobytes() == together(shuffled(stream)).tobytes() == wanted
    assert store.stream(digests(1, 2)).dtype == np.float16


def test_an_image_that_is_in_two_shards_comes_once(store):
    add(store, 1, 2, 3), add(store, 2, 3, 4), add(store, 4, 4, 5)

    for read in (blocks, shuffled):
        assert np.array_equal(together(read(store.stream(digests(5, 4, 3, 2, 1)))), features(5, 4, 3, 2, 1))


def test_blocks_of_large_chunks_are_small(store):
    images, values = many(store, "float32", (1000,))
    stream = store.stream(images, ReadSizes(block_bytes=7 * 2 * ROW))

    assert together(blocks(stream)).tobytes() == together(shuffled(stream)).tobytes() == values.tobytes()
    assert max(len(rows) for rows, _ in stream.blocks()) <= 14


def test_no_images_give_nothing(store):
    assert store.stream(digests()).shape == (0, 0)
    add(store, 1)

    assert store.stream(digests()).shape == (0, D)
    assert blocks(store.stream(digests())) == shuffled(store.stream(digests())) == []


def test_images_that_repeat_are_refused(store):
    add(store, 1, 2, 3)

    with pytest.raises(ValueError, match="each image once, got 2 again"):
        store.stream(digests(1, 2, 1, 3, 1))


def test_images_without_features_are_missing(store):
    add(store, 1, 2)

    with pytest.raises(MissingFeatures, match=r"of 4 .* 2 are missing"):
        store.stream(digests(1, 2, 3, 4))


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
def test_shards_that_differ_in_d_are_an_error(store):
    add(store, 1)
    store.append(digests(2), np.ones((1, D + 1), np.float32))

    with pytest.raises(CacheError, match=f"{D} and {D + 1}: delete that folder"):
        store.stream(digests(1))


def test_a_memo_that_is_wrong_about_d_is_not_used(store):
    path = add(store, 1, 2)
    entry = store.index().entries[path.stem]
    wrong = type(entry)(entry.digests, D - 1, entry.dtype)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), wrong)

    with pytest.raises(CacheError, match=f"expected {D - 1} features"):
        store.stream(digests(1))


# --- the order --------------------------------------------------------------------------------------------------


def test_blocks_come_in_one_order_and_are_large(small):
    store, images, _ = small
    stream = store.stream(images, SMALL)

    assert same(blocks(stream), blocks(stream))
    assert same(blocks(stream), blocks(store.stream(images, SMALL)))
    assert len(blocks(stream)) < N / 60


def test_equal_generators_give_equal_batches_and_others_do_not(small):
    store, images, _ = small
    stream, again = store.stream(images, SMALL), store.stream(images, SMALL)

    assert same(shuffled(stream, 1), shuffled(again, 1))
    assert not same(shuffled(stream, 1), shuffled(stream, 2))
    random = np.random.default_rng(1)
    first = list(stream.mixed(random, batch=64))
    assert same(first, shuffled(stream, 1))
    assert not same(first, list(stream.mixed(random, batch=64)))
    random = np.random.default_rng(1)
    assert same([(batch, random.random())[0] for batch in stream.mixed(random, batch=64)], first)


def test_batches_below_one_row_are_refused(store):
    add(store, 1)

    with pytest.raises(ValueError, match="1 row or more, got 0"):
        shuffled(store.stream(digests(1)), batch=0)


def test_batches_mix_shards_of_one_class_each(small):
    store = Store(small[0].folder.with_name("classes"), small[0].spec, small[0].sizes)
    images, _ = many(store, cuts=tuple(range(300, N, 300)))
    batches = shuffled(store.stream(images, SMALL), batch=100)

    for rows, _ in batches:
        classes = np.bincount(rows // 300, minlength=10)
        assert (classes > 0).sum() >= 5
        assert classes.max() < 60
        assert np.mean(np.diff(np.sort(rows)) == 1) < 0.5
    assert len({rows[0] // 300 for rows, _ in batches}) > 5


def test_batches_are_the_callers_own(small):
    store, images, values = small
    stream = store.stream(images, SMALL)
    kept = shuffled(stream)
    for _, found in shuffled(stream, 1):
        found[:] = 0

    assert together(kept).tobytes() == values.tobytes()
    assert together(blocks(stream)).tobytes() == values.tobytes()


def test_iterations_may_be_abandoned_and_nested(small):
    store, images, values = small
    stream = store.stream(images, SMALL)
    next(stream.blocks()), next(stream.mixed(np.random.default_rng(0), batch=10))
    found = []
    for number, batch in enumerate(stream.mixed(np.random.default_rng(0), batch=500)):
        found.append(batch)
        assert together(shuffled(stream, number)).tobytes() == values.tobytes()
        assert together(blocks(stream)).tobytes() == values.tobytes()

    assert same(found, shuffled(stream, 0, 500))


# --- verification -----------------------------------------------------------------------------------------------


def test_each_shard_is_verified_once(small, opened):
    store, images, _ = small
    stream = store.stream(images, SMALL)
    blocks(stream), shuffled(stream)

    assert sorted(opened) == [path.stem for path in store.shards()]


@BOTH_WAYS
def test_few_files_are_open_at_once(store, read):
    for number in range(12):
        add(store, 2 * number, 2 * number + 1)
    stream = store.stream(digests(*range(24)), ReadSizes(block_bytes=1, files=3))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else pytest.skip("needs /proc")
    most = max(len(os.listdir("/proc/self/fd")) for _ in stream.blocks())

    assert most <= before + 4  # one lists the folder
    assert np.array_equal(together(read(stream)), features(*range(24)))
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_damaged_shard_is_quarantined_when_the_stream_is_opened(store):
    path = damage_behind_the_memo(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.stream(digests(1, 2, 3))

    assert not path.exists()
    assert len(list((store.folder / "quarantine").iterdir())) == 1


def test_copies_of_a_damaged_shard_are_used(store):
    add(store, 1, 9), add(store, 2, 8)
    damage_behind_the_memo(store, 1, 2, 3, 4)  # the largest, which is read first
    add(store, 3, 4)

    with pytest.warns(BottleneckWarning, match="damaged"):
        stream = store.stream(digests(4, 1, 2, 3))
    for read in (blocks, shuffled):
        assert np.array_equal(together(read(stream)), features(4, 1, 2, 3))


@BOTH_WAYS
def test_a_shard_that_is_damaged_after_it_was_opened_is_not_returned(store, read):
    path = add(store, 1, 2)
    add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    flip_a_feature(path, 1, 2)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        read(stream)
    assert not path.exists()


@BOTH_WAYS
def test_copies_are_used_if_a_shard_is_damaged_between_two_iterations(store, read):
    path = add(store, 1, 2, 3)
    add(store, 1, 2), add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    flip_a_feature(path, 1, 2, 3)

    with pytest.warns(BottleneckWarning, match="damaged"):
        assert np.array_equal(together(read(stream)), features(1, 2, 3))


def truncate(path: Path, *_: int) -> None:
    overwrite(path, path.read_bytes()[:-4000])


def shuffled_rows(stream: Stream) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return stream.mixed(np.random.default_rng(0), batch=1)


@each("start, damage", [(Stream.blocks, flip_a_feature), (Stream.blocks, truncate), (shuffled_rows, flip_a_feature)])
def test_a_shard_that_is_damaged_during_an_iteration_is_not_returned(store, start, damage):
    paths = {number: add(store, number) for number in range(8)}
    passing = start(store.stream(digests(*range(8)), SINGLE))
    (first,), found = next(passing)
    assert np.array_equal(found, features(first))
    next(passing)
    for number, path in paths.items():
        damage(path, number)

    served = []
    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(CacheError, match="damaged while it was read"):
        served.extend((int(rows[0]), found.copy()) for rows, found in passing)
    for number, found in served:
        assert np.array_equal(found, features(number))


@BOTH_WAYS
def test_a_file_that_was_touched_is_verified_again_and_read(store, opened, read):
    path = add(store, 1, 2)
    other = add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    opened.clear()
    os.utime(path, (5, 5))

    assert np.array_equal(together(read(stream)), features(1, 2, 3))
    assert set(opened) == {path.stem}
    assert other.exists()


def test_a_file_that_is_touched_during_an_iteration_is_verified_again_and_read(store, opened):
    paths = [add(store, number) for number in range(4)]
    passing = store.stream(digests(*range(4)), SINGLE).blocks()
    found = [tuple(array.copy() for array in next(passing))]
    opened.clear()
    for path in paths:
        os.utime(path, (5, 5))
    found += [(rows.copy(), values.copy()) for rows, values in passing]

    assert np.array_equal(together(found), features(*range(4)))
    assert len(opened) == 3


def test_reading_a_file_that_keeps_changing_is_an_error(store, wrap):
    path = add(store, 1, 2)
    stream = store.stream(digests(1, 2))
    ticks = iter(range(1, 1000))

    def touch(call: Callable[..., int], descriptor: int, *args: object) -> int:
        os.utime(path, (1, next(ticks)))
        return call(descriptor, *args)

    wrap(os, "preadv", touch)

    with pytest.raises(CacheError, match=r"was compacted|changes while it is read"):
        blocks(stream)


def test_features_that_are_not_finite_are_refused(store):
    for number, (value, dtype) in enumerate(
        [(np.nan, "float16"), (np.inf, "float16"), (-np.inf, "float32"), (np.nan, "float32")]
    ):
        one, other = 2 * number, 2 * number + 1
        with case(value, dtype):
            path = add(store, one, other, dtype=dtype)
            wrong = features(one, other, dtype=dtype)
            wrong[1, 3] = value
            change = lambda data: data.replace(features(one, other, dtype=dtype).tobytes(), wrong.tobytes())  # noqa: B023, E731
            path = crafted(store, path, change)
            with pytest.warns(BottleneckWarning, match="expected finite features"), pytest.raises(MissingFeatures):
                store.stream(digests(one, other))
            assert not path.exists()


def crafted(store: Store, path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Change a shard, and give it the name of its new bytes and a memo that fits."""
    entry = store.index().entries[path.stem]
    path.write_bytes(change(path.read_bytes()))
    path = named(path)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)
    return path


def edited(edit: Callable[[h5py.File], object]) -> Callable[[bytes], bytes]:
    """Return a function that edits the bytes of an HDF5 file."""

    def change(data: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "copy"
            copy.write_bytes(data)
            with h5py.File(copy, "r+") as file:
                edit(file)
            return copy.read_bytes()

    return change


def test_a_newer_shard_is_refused_and_stays_in_place(store):
    path = crafted(store, add(store, 1), edited(lambda file: file.attrs.modify("format_version", 2)))

    with pytest.raises(NewerShard, match="update bottleneck"):
        store.stream(digests(1))
    assert path.exists()


@pytest.mark.parametrize("place", [(h5py, "File"), (os, "preadv")], ids=["File", "preadv"])
def test_a_shard_that_cannot_be_read_at_the_moment_is_a_cache_error_and_stays(store, wrap, place):
    path = add(store, 1, 2)
    fault = Fault(OSError())
    wrap(*place, fault)

    for code in (errno.EIO, errno.EACCES, errno.EMFILE):
        fault.error = system_error(code)
        with case(code):
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


def test_a_disk_that_fails_while_hdf5_reads_is_a_cache_error_and_the_shard_stays(store, wrap):
    path = add(store, 1, 2)
    wrap(bottleneck.cache.verified, "opened", lambda call, path: failing(path))

    with pytest.raises(CacheError, match=f"cannot read .*{os.strerror(errno.EIO)}") as caught:
        store.stream(digests(1))
    assert not isinstance(caught.value, ShardError)
    assert path.exists()


@each("disk", ["failing", "OPENED"])
def test_a_process_that_keeps_an_error_of_hdf5_exits_normally(store, disk):
    # HDF5 releases its files after Python has ended, which crashes if an error keeps one of them.
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
    command = [sys.executable, "-c", code, str(named(path).absolute())]
    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])

    assert result.returncode == 0, result.stderr
    assert ("not a shard" if disk == "OPENED" else "cannot read") in result.stdout


@each("name", ["digests", "features"])
def test_what_read_shard_refuses_is_refused(store, spec, name):
    # Both call `layouts`; the crafted shards of test_hostile_shards.py need not be crafted here again.
    def compress(file: h5py.File) -> None:
        values = file[name][:]
        del file[name]
        file.create_dataset(name, data=values, compression="gzip")

    path = crafted(store, add(store, 1, 2), edited(compress))
    with pytest.raises(ShardError) as refused:
        read_shard(path, spec)

    with pytest.warns(BottleneckWarning) as caught, pytest.raises(MissingFeatures):
        store.stream(digests(1))
    assert str(refused.value) in str(caught[0].message)


def test_a_shard_that_changes_while_it_is_verified_is_verified_again(store, wrap, opened):
    path = add(store, 1, 2)
    wrap(bottleneck.cache.verified, "layouts", before_first(lambda: os.utime(path, (1, 1))))

    stream = store.stream(digests(2, 1))
    assert len(opened) > 1
    assert np.array_equal(together(blocks(stream)), features(2, 1))


# --- shards that are deleted ------------------------------------------------------------------------------------


def test_shards_that_are_compacted_while_a_stream_is_opened_are_found_in_the_new_one(store, when_opened):
    paths = [add(store, number) for number in range(6)]
    when_opened(before_first(lambda: compact(store), path=paths[0]))

    assert np.array_equal(together(blocks(store.stream(digests(*range(6))))), features(*range(6)))
    assert len(store.shards()) == 1


@BOTH_WAYS
def test_shards_that_are_compacted_between_two_iterations_are_found_in_the_new_one(store, read):
    for number in range(6):
        add(store, number)
    stream = store.stream(digests(*range(6)))
    before = together(read(stream))
    compact(store)

    assert np.array_equal(together(read(stream)), before)


@each("start, dtype", [(Stream.blocks, "float16"), (shuffled_rows, "float32")])
def test_an_iteration_continues_if_shards_are_joined_during_it(store, opened, start, dtype):
    for number in range(0, 12, 2):
        add(store, number, number + 1, dtype=dtype)
    passing = start(store.stream(digests(*range(12)), SINGLE))
    found = [tuple(array.copy() for array in next(passing))]
    compact(store)
    opened.clear()
    found += [(rows.copy(), values.copy()) for rows, values in passing]
    (joined,) = store.shards()

    assert np.array_equal(together(found), features(*range(12), dtype=dtype))
    assert opened.count(joined.stem) == 1  # once for all deleted shards


def test_an_iteration_continues_if_the_joined_shard_is_joined_again(store):
    for number in range(6):
        add(store, number)
    passing = store.stream(digests(*range(6)), SINGLE).blocks()
    found = [tuple(array.copy() for array in next(passing))]
    for number in (7, 8):
        compact(store)
        found.append(tuple(array.copy() for array in next(passing)))
        add(store, number)
    compact(store)
    found += [(rows.copy(), values.copy()) for rows, values in passing]

    assert np.array_equal(together(found), features(*range(6)))


def test_a_shard_that_is_deleted_during_an_iteration_is_missing(store):
    for number in range(6):
        add(store, number)
    passing = store.stream(digests(*range(6)), SINGLE).blocks()
    next(passing)
    for path in store.shards():
        store.drop(path.stem)

    with pytest.raises(MissingFeatures, match="1 are missing"):
        list(passing)


@BOTH_WAYS
def test_images_of_a_deleted_shard_are_missing(store, read):
    path = add(store, 1, 2)
    add(store, 3)
    stream = store.stream(digests(1, 2, 3))
    path.unlink()

    with pytest.raises(MissingFeatures, match=r"of 3 .* 2 are missing"):
        read(stream)


# --- very wide rows ---------------------------------------------------------------------------------------------


def wide(store: Store, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Append rows of any finite numbers that float16 has."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 32), np.uint8)
    values = random.integers(0, 0x7C00, (count, dim), np.uint16).view(np.float16)
    store.append(images, values)
    return images, values


def test_rows_wider_than_a_chunk_come_back_bit_for_bit(activations):
    for count, dim in ((1, 1_000_000), (3, 200_704), (5, 1_000_000), (9, 300_000)):
        store = Store(activations.folder.with_name(f"{count}-{dim}"), activations.spec)
        images, values = wide(store, count, dim)
        order = np.arange(count)[::-1]
        wanted = values[order].tobytes()

        with case(count, dim):
            found = store.read(images[order], as_stored=True)
            assert found.dtype == np.float16
            assert found.tobytes() == wanted
            stream = store.stream(images[order])
            assert together(blocks(stream)).tobytes() == together(shuffled(stream)).tobytes() == wanted
            assert store.read(images[-1:], as_stored=True).tobytes() == values[-1:].tobytes()


def test_a_chunk_has_one_wide_row_and_shards_have_little_padding(activations):
    wide(activations, 7, 1_000_000)
    (path,) = activations.shards()
    with h5py.File(path) as file:
        assert file["features"].chunks == (1, 1_000_000)
    assert path.stat().st_size < 7 * 2_000_000 * 1.01


def test_wide_rows_become_shards_of_a_bounded_size(activations):
    activations = Store(activations.folder, activations.spec, ShardSizes(bytes=6_500_000))
    images, values = wide(activations, 4, 1_000_000)  # 8 MB

    assert max(path.stat().st_size for path in activations.shards()) < 6.6e6
    assert len(activations.shards()) == 2
    assert activations.read(images, as_stored=True).tobytes() == values.tobytes()


def test_wide_rows_of_one_shard_are_shuffled(activations):
    images, _ = wide(activations, 40, 50_000)
    stream = activations.stream(images, ReadSizes(pool_bytes=500_000))  # five rows; a chunk has ten
    firsts = [shuffled(stream, seed, 4)[0][0].tolist() for seed in range(3)]

    assert len({tuple(first) for first in firsts}) == 3


def peaks(store: Store, images: np.ndarray, sizes: ReadSizes, read: object, batch: int) -> tuple[int, int]:
    """Return the peak memory of opening a stream and of reading it."""
    tracemalloc.start()
    stream = store.stream(images, sizes)
    opening = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    batches = stream.blocks() if read is blocks else stream.mixed(np.random.default_rng(0), batch=batch)
    assert sum(len(rows) for rows, _ in batches) == len(images)
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return opening, reading


@BOTH_WAYS
def test_memory_of_wide_rows_is_bounded_by_the_pools(activations, read):
    images, _ = wide(activations, 40, 500_000)  # 40 MB
    opening, reading = peaks(activations, images, ReadSizes(pool_bytes=4_000_000), read, batch=4)

    assert opening < 10e6  # four threads verify, with a block each
    assert reading < 21e6  # two pools of five or six rows, and a batch and its parts


@BOTH_WAYS
def test_memory_is_bounded_by_the_pools_for_any_number_of_rows(store, read):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (16_000, 32), np.uint8)
    for rows in np.array_split(np.arange(len(images)), 2):
        store.append(images[rows], np.ones((len(rows), 256), np.float32))  # 8 MB each
    opening, reading = peaks(store, images, ReadSizes(pool_bytes=1 << 20), read, batch=64)

    assert opening < 7e6  # of 16 MB; 2 to 3 MB are those of digests
    assert reading < 7e6


@pytest.mark.skipif(sys.platform != "linux", reason="other systems stamp mapped files in other ways")
def test_changes_through_a_memory_map_after_verification_are_never_returned(disk, spec):
    store, tmp_path = FeatureCache(disk / "cache").store(spec), disk
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

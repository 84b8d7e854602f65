import errno
import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bottleneck.cache.shard
from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import FORMAT_VERSION, LARGEST_SHARD, Buffer, Rows, read_blocks, read_shard, write_shard
from bottleneck.errors import CacheError, ShardError

MIB = 1 << 20
N, D = 6, 5


def rows(count: int = N, dim: int = D, dtype: str = "float32", seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    return Rows(random.integers(0, 256, (count, 32), np.uint8), random.normal(size=(count, dim)).astype(dtype))


class Slow(io.FileIO):
    """A file that gives a few bytes at a time, as network file systems may."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:1000])


class Broken(io.FileIO):
    """A file whose disk fails."""

    def readinto(self, buffer: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


class Unread(io.FileIO):
    """A file that must not be read."""

    def readinto(self, buffer: Any) -> int:
        raise AssertionError("it was read")


@pytest.fixture
def opened_as(monkeypatch) -> Callable[[type], None]:
    """Return a function that decides what kind of file shards are from now on."""

    def use(kind: type) -> None:
        monkeypatch.setattr(bottleneck.cache.shard, "open", lambda path, *_, **__: kind(path), raising=False)

    return use


@pytest.fixture
def shards(tmp_path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def named(path: Path) -> Path:
    """Name a file by the hash of its bytes."""
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.h5"))


def flip(path: Path, where: int) -> Path:
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    return path


# --- what is written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 3), (1, 2048), (700, 2048)])
def test_rows_come_back_bit_for_bit(shards, spec, dtype, count, dim):
    wanted = rows(count, dim, dtype)
    found = read_shard(write_shard(shards, spec, wanted), spec)

    assert found.digests.tobytes() == wanted.digests.tobytes()
    assert found.features.dtype == dtype
    assert found.features.shape == (count, dim)
    assert found.features.tobytes() == wanted.features.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_smallest_the_largest_and_negative_zero_come_back(shards, spec, dtype):
    limits = np.finfo(dtype)
    values = np.array([[0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_subnormal]], dtype)
    found = read_shard(write_shard(shards, spec, Rows(rows(1).digests, values)), spec)

    assert found.features.tobytes() == values.tobytes()


def test_rows_of_zeros_come_back(shards, spec):
    wanted = Rows(np.zeros((3, 32), np.uint8), np.zeros((3, 4), np.float32))
    found = read_shard(write_shard(shards, spec, wanted), spec)

    assert not found.digests.any()
    assert found.features.tobytes() == wanted.features.tobytes()


def test_features_may_be_a_view_that_is_not_contiguous(shards, spec):
    wanted = rows(8, 10)
    view = Rows(wanted.digests[::2], wanted.features[::2, ::-1])
    found = read_shard(write_shard(shards, spec, view), spec)

    assert np.array_equal(found.digests, view.digests)
    assert np.array_equal(found.features, view.features)


def test_equal_rows_give_equal_bytes_and_one_name(tmp_path, spec):
    (tmp_path / "a").mkdir()
    one, other = (write_shard(tmp_path / folder, spec, rows(100, 50)) for folder in "ab")

    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_writing_equal_rows_twice_leaves_one_file(shards, spec):
    assert write_shard(shards, spec, rows()) == write_shard(shards, spec, rows())
    assert len(list(shards.iterdir())) == 1


@pytest.mark.parametrize("change", ["a feature", "a digest", "the order", "the type", "the spec"])
def test_other_rows_have_another_name(shards, spec, change):
    digests, features = rows().digests.copy(), rows().features.copy()
    other = spec
    if change == "a feature":
        features[-1, -1] = np.nextafter(features[-1, -1], np.float32(np.inf))
    elif change == "a digest":
        digests[-1, -1] ^= 1
    elif change == "the order":
        digests, features = digests[::-1], features[::-1]
    elif change == "the type":
        features = features.astype(np.float16)
    else:
        other = replace(spec, decoder=2)

    assert write_shard(shards, other, Rows(digests, features)) != write_shard(shards, spec, rows())


def test_the_name_is_the_hash_of_the_bytes(shards, spec):
    path = write_shard(shards, spec, rows())

    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".h5"


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("count", "dim"), [(1, 4), (129, 2048), (500, 2048), (3000, 1280), (40_000, 16), (3, 300_000)])
def test_chunks_are_whole_rows_of_at_most_a_mebibyte(shards, spec, dtype, count, dim):
    path = write_shard(shards, spec, rows(count, dim, dtype))

    with h5py.File(path) as file:
        for name in ("digests", "features"):
            dataset = file[name]
            row = dataset.dtype.itemsize * dataset.shape[1]
            height, width = dataset.chunks
            assert width == dataset.shape[1]
            assert height == 1 or height * row <= MIB + row
            assert height * row >= min(MIB / 2, dataset.nbytes)


def test_both_datasets_have_checksums_and_no_compression(shards, spec):
    with h5py.File(write_shard(shards, spec, rows())) as file:
        assert sorted(file) == ["digests", "features"]
        assert all(file[name].fletcher32 and file[name].compression is None for name in file)
        assert (file["digests"].dtype, file["digests"].shape) == (np.uint8, (N, 32))
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (N, D))


def test_the_attributes_are_those_of_the_design(shards, spec):
    with h5py.File(write_shard(shards, spec, rows())) as file:
        assert sorted(file.attrs) == ["fingerprint", "format_version", "n", "spec"]
        assert file.attrs["format_version"] == FORMAT_VERSION == 1
        assert file.attrs["fingerprint"].decode() == spec.fingerprint
        assert Spec.from_json(json.loads(file.attrs["spec"])) == spec
        assert file.attrs["n"] == N


def test_a_shard_holds_nothing_of_the_moment_it_was_written(shards, spec, monkeypatch):
    first = write_shard(shards, spec, rows()).name
    monkeypatch.setattr("time.time", lambda: 4e9)

    assert write_shard(shards, spec, rows()).name == first


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_that_are_not_finite_are_refused(shards, spec, value, dtype):
    wanted = rows(dtype=dtype)
    wanted.features[3, 2] = value

    with pytest.raises(ShardError, match="finite"):
        write_shard(shards, spec, wanted)

    assert not list(shards.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        Rows(rows().digests, rows().features.astype(np.float64)),
        Rows(rows().digests, np.ones((N, D), np.int32)),
        Rows(rows().digests[:-1], rows().features),
        Rows(rows().digests[:, :-1], rows().features),
        Rows(rows().digests.astype(np.int64), rows().features),
        Rows(rows().digests, rows().features[:, 0]),
        Rows(rows().digests[:0], rows().features[:0]),
        Rows(rows().digests, rows().features[:, :0]),
    ],
    ids=["float64", "int32", "a digest less", "short digests", "wide digests", "no columns", "no rows", "d is 0"],
)
def test_rows_that_do_not_add_up_are_refused(shards, spec, wrong):
    with pytest.raises(ShardError, match="expected"):
        write_shard(shards, spec, wrong)

    assert not list(shards.iterdir())


# --- blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 3), (700, 2048), (1001, 777)])
def test_the_blocks_of_a_shard_are_its_rows_in_order(shards, spec, dtype, count, dim):
    wanted = rows(count, dim, dtype)
    blocks = read_blocks(write_shard(shards, spec, wanted), spec)

    assert (blocks.dim, blocks.dtype) == (dim, dtype)
    assert np.array_equal(blocks.digests, wanted.digests)
    assert np.concatenate(blocks.features).tobytes() == wanted.features.tobytes()


def test_blocks_are_views_of_the_buffer_and_a_shard_is_a_copy(shards, spec, monkeypatch):
    path = write_shard(shards, spec, rows(700, 2048))
    buffer = Buffer()
    blocks = read_blocks(path, spec, buffer)
    image = np.frombuffer(buffer.read(path)[0], np.uint8)

    assert len(blocks.features) > 1
    assert all(np.shares_memory(block, image) for block in blocks.features)
    monkeypatch.setattr(bottleneck.cache.shard, "Buffer", lambda: buffer)
    assert not np.shares_memory(read_shard(path, spec).features, image)


def test_one_buffer_serves_large_and_small_shards_after_each_other(shards, spec):
    wanted = {write_shard(shards, spec, rows(count, 50, seed=count)): count for count in (3, 900, 40, 1200)}
    buffer = Buffer()

    for path, count in wanted.items():
        blocks = read_blocks(path, spec, buffer)
        assert np.array_equal(np.concatenate(blocks.features), rows(count, 50, seed=count).features)


# --- what is damaged --------------------------------------------------------------------------------------------


def test_a_flipped_byte_anywhere_is_noticed(shards, spec):
    path = write_shard(shards, spec, rows())
    data = path.read_bytes()
    for where in range(0, len(data), 97):
        flip(path, where)
        with pytest.raises(ShardError, match="do not match the name"):
            read_shard(path, spec)
        path.write_bytes(data)

    assert np.array_equal(read_shard(path, spec).features, rows().features)


@pytest.mark.parametrize("name", ["digests", "features"])
def test_other_readers_of_hdf5_notice_a_flipped_byte_by_its_checksum(shards, spec, name):
    path = write_shard(shards, spec, rows())
    flip(path, path.read_bytes().index(getattr(rows(), name).tobytes()))

    with h5py.File(path) as file, pytest.raises(OSError, match="filter returned failure"):
        file[name][:]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_a_file_cut_short_is_refused(shards, spec, kept):
    path = write_shard(shards, spec, rows(50, 50))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])

    with pytest.raises(ShardError):
        read_shard(path, spec)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_a_file_cut_short_is_refused_even_under_a_matching_name(shards, spec, kept):
    path = write_shard(shards, spec, rows(50, 50))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])

    with pytest.raises(ShardError, match="not a shard"):
        read_shard(named(path), spec)


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x89HDF\r\n\x1a\n" + b"\xff" * 1000, b"\0" * 5000])
def test_garbage_under_a_matching_name_is_refused(shards, spec, garbage):
    (shards / "garbage").write_bytes(garbage)

    with pytest.raises(ShardError, match="not a shard"):
        read_shard(named(shards / "garbage"), spec)


@pytest.mark.parametrize("count", [1, 500])
def test_a_file_that_comes_in_small_pieces_is_read_whole(shards, spec, opened_as, count):
    path = write_shard(shards, spec, rows(count))
    opened_as(Slow)

    assert np.array_equal(read_shard(path, spec).features, rows(count).features)


def test_a_disk_that_fails_says_nothing_about_the_shard(shards, spec, opened_as):
    path = write_shard(shards, spec, rows())
    opened_as(Broken)

    with pytest.raises(CacheError, match="cannot read") as caught:
        read_shard(path, spec)

    assert not isinstance(caught.value, ShardError)


def test_a_file_that_another_machine_has_removed_is_a_file_not_found_error(shards, spec, opened_as):
    path = write_shard(shards, spec, rows())

    def stale(path: Path) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    opened_as(stale)

    with pytest.raises(FileNotFoundError):
        read_shard(path, spec)


def test_a_file_larger_than_any_shard_is_refused_unread(shards, spec, opened_as):
    path = shards / f"{'0' * 64}.h5"
    path.touch()
    os.truncate(path, LARGEST_SHARD + 1)
    opened_as(Unread)

    with pytest.raises(ShardError, match=r"at most 1,073,741,824 bytes, found 1,073,741,825"):
        read_shard(path, spec)


def test_the_largest_shard_is_read(shards, spec, monkeypatch):
    path = write_shard(shards, spec, rows())
    monkeypatch.setattr(bottleneck.cache.shard, "LARGEST_SHARD", path.stat().st_size)

    assert np.array_equal(read_shard(path, spec).features, rows().features)


def test_a_missing_file_is_a_file_not_found_error(shards, spec):
    with pytest.raises(FileNotFoundError):
        read_shard(shards / f"{'0' * 64}.h5", spec)


def test_a_shard_under_another_name_is_refused(shards, spec):
    path = write_shard(shards, spec, rows())

    with pytest.raises(ShardError, match="do not match the name"):
        read_shard(path.rename(shards / f"{'0' * 64}.h5"), spec)

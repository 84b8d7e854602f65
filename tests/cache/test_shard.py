import errno
import hashlib
import io
import itertools
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import (
    FORMAT_VERSION,
    LARGEST_SHARD,
    Buffer,
    Rows,
    opened,
    read_blocks,
    read_shard,
    write_shard,
)
from bottleneck.errors import CacheError, ShardError
from tests.cache.numbered import case, named
from tests.faults import system_error
from tests.variants import each

pytestmark = pytest.mark.usefixtures("no_sync")
MIB = 1 << 20
N, D = 6, 5
DTYPES = st.sampled_from(["float16", "float32"])


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
        raise system_error(errno.EIO)


@pytest.fixture
def opened_as(when_opened: Callable[..., None]) -> Callable[[Callable[[Path], object]], None]:
    """Return a function that decides what kind of file shards are from now on."""
    return lambda kind: when_opened(lambda call, path, *_, **__: kind(path))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def flip(path: Path, where: int) -> Path:
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    return path


# --- what is written --------------------------------------------------------------------------------------------


@given(st.integers(1, 80), st.integers(1, 70), DTYPES, st.integers(1, 3000))
@example(count=700, dim=2048, dtype="float16", chunk_bytes=MIB)
@example(count=1, dim=2048, dtype="float32", chunk_bytes=MIB)
def test_rows_come_back_bit_for_bit_from_chunks_of_whole_rows(shards, spec, count, dim, dtype, chunk_bytes):
    wanted = rows(count, dim, dtype)
    path = write_shard(shards, spec, wanted, chunk_bytes)
    found, blocks = read_shard(path, spec), read_blocks(path, spec)

    assert found.digests.tobytes() == blocks.digests.tobytes() == wanted.digests.tobytes()
    assert found.features.dtype == blocks.dtype == dtype
    assert found.features.shape == (count, blocks.dim) == (count, dim)
    assert found.features.tobytes() == np.concatenate(blocks.features).tobytes() == wanted.features.tobytes()
    assert path.name == hashlib.sha256(path.read_bytes()).hexdigest() + ".h5"
    expect_chunks(path, chunk_bytes)


def expect_chunks(path: Path, chunk_bytes: int) -> None:
    with h5py.File(path) as file:
        for name in ("digests", "features"):
            dataset = file[name]
            row = dataset.dtype.itemsize * dataset.shape[1]
            height, width = dataset.chunks
            assert width == dataset.shape[1]
            assert height == 1 or height * row <= chunk_bytes + row
            assert height * row >= min(chunk_bytes / 2, dataset.nbytes)


def test_chunks_are_about_a_mebibyte(shards, spec):
    for count, dim in ((129, 2048), (3000, 1280), (40_000, 16), (3, 300_000)):
        with case(count, dim):
            expect_chunks(write_shard(shards, spec, rows(count, dim, "float16")), MIB)


@each("dtype", ["float16", "float32"])
def test_extreme_values_and_zeros_come_back(shards, spec, dtype):
    limits = np.finfo(dtype)
    values = np.array([[0.0, -0.0, limits.max, limits.min, limits.tiny, limits.smallest_subnormal]], dtype)
    for name, digests in (("random digest", rows(1).digests), ("digest of zeros", np.zeros((1, 32), np.uint8))):
        with case(name):
            found = read_shard(write_shard(shards, spec, Rows(digests, values)), spec)
            assert np.array_equal(found.digests, digests)
            assert found.features.tobytes() == values.tobytes()


def test_features_may_be_a_view_that_is_not_contiguous(shards, spec):
    wanted = rows(8, 10)
    view = Rows(wanted.digests[::2], wanted.features[::2, ::-1])
    found = read_shard(write_shard(shards, spec, view), spec)

    assert np.array_equal(found.digests, view.digests)
    assert np.array_equal(found.features, view.features)


def test_equal_rows_give_one_file_with_nothing_of_the_time_or_folder_it_was_written(tmp_path, shards, spec, wrap):
    first = write_shard(shards, spec, rows(100, 50))
    assert write_shard(shards, spec, rows(100, 50)) == first
    assert len(list(shards.iterdir())) == 1
    wrap(time, "time", lambda call: 4e9)
    other = write_shard(tmp_path, spec, rows(100, 50))

    assert other.name == first.name
    assert other.read_bytes() == first.read_bytes()


def test_other_rows_have_another_name(shards, spec):
    first = write_shard(shards, spec, rows())
    plain = rows()
    feature, digest = plain.features.copy(), plain.digests.copy()
    feature[-1, -1] = np.nextafter(feature[-1, -1], np.float32(np.inf))
    digest[-1, -1] ^= 1
    changed = {
        "a feature": Rows(plain.digests, feature),
        "a digest": Rows(digest, plain.features),
        "the order": Rows(plain.digests[::-1], plain.features[::-1]),
        "the type": Rows(plain.digests, plain.features.astype(np.float16)),
    }
    for name, other in changed.items():
        with case(name):
            assert write_shard(shards, spec, other) != first
    assert write_shard(shards, replace(spec, decoder=2), plain) != first


def test_the_datasets_and_attributes_are_those_of_the_design(shards, spec):
    with h5py.File(write_shard(shards, spec, rows())) as file:
        assert sorted(file) == ["digests", "features"]
        assert all(file[name].fletcher32 and file[name].compression is None for name in file)
        assert (file["digests"].dtype, file["digests"].shape) == (np.uint8, (N, 32))
        assert (file["features"].dtype, file["features"].shape) == (np.float32, (N, D))
        assert sorted(file.attrs) == ["fingerprint", "format_version", "n", "spec"]
        assert file.attrs["format_version"] == FORMAT_VERSION == 1
        assert file.attrs["fingerprint"].decode() == spec.fingerprint
        assert Spec.from_json(json.loads(file.attrs["spec"])) == spec
        assert file.attrs["n"] == N


def test_features_that_are_not_finite_are_refused(shards, spec):
    for value, dtype in itertools.product((np.nan, np.inf, -np.inf), ("float16", "float32")):
        wanted = rows(dtype=dtype)
        wanted.features[3, 2] = value
        with case(value, dtype), pytest.raises(ShardError, match="finite"):
            write_shard(shards, spec, wanted)

    assert not list(shards.iterdir())


def test_rows_of_inconsistent_shapes_or_types_are_refused(shards, spec):
    digests, features = rows().digests, rows().features
    wrong = {
        "float64": Rows(digests, features.astype(np.float64)),
        "int32": Rows(digests, np.ones((N, D), np.int32)),
        "a digest less": Rows(digests[:-1], features),
        "short digests": Rows(digests[:, :-1], features),
        "wide digests": Rows(digests.astype(np.int64), features),
        "no columns": Rows(digests, features[:, 0]),
        "no rows": Rows(digests[:0], features[:0]),
        "d is 0": Rows(digests, features[:, :0]),
    }
    for name, one in wrong.items():
        with case(name), pytest.raises(ShardError, match="expected"):
            write_shard(shards, spec, one)
    assert not list(shards.iterdir())


# --- blocks -----------------------------------------------------------------------------------------------------


def test_blocks_are_views_of_the_buffer_and_a_shard_is_a_copy(shards, spec):
    path = write_shard(shards, spec, rows(700, 2048))
    buffer = Buffer()
    blocks = read_blocks(path, spec, buffer)
    data = np.frombuffer(buffer.read(path)[0], np.uint8)

    assert len(blocks.features) > 1
    assert all(np.shares_memory(block, data) for block in blocks.features)
    assert read_shard(path, spec).features.base is None


def test_one_buffer_serves_large_and_small_shards_after_each_other(shards, spec):
    wanted = {write_shard(shards, spec, rows(count, 50, seed=count)): count for count in (3, 900, 40, 1200)}
    buffer = Buffer()

    for path, count in wanted.items():
        blocks = read_blocks(path, spec, buffer)
        assert np.array_equal(np.concatenate(blocks.features), rows(count, 50, seed=count).features)


# --- damage -----------------------------------------------------------------------------------------------------


def test_a_flipped_byte_anywhere_is_noticed(shards, spec):
    path = write_shard(shards, spec, rows())
    data = path.read_bytes()
    for where in range(0, len(data), 97):
        flip(path, where)
        with case(where), pytest.raises(ShardError, match="do not match the name"):
            read_shard(path, spec)
        path.write_bytes(data)

    assert np.array_equal(read_shard(path, spec).features, rows().features)


def test_other_readers_of_hdf5_notice_a_flipped_byte_by_its_checksum(shards, spec):
    path = write_shard(shards, spec, rows())
    for name in ("digests", "features"):
        flip(path, path.read_bytes().index(getattr(rows(), name).tobytes()))
        with case(name), h5py.File(path) as file, pytest.raises(OSError, match="filter returned failure"):
            file[name][:]


@each("renamed", [False, True])
def test_a_truncated_or_random_file_is_refused_even_if_its_name_matches(shards, spec, renamed):
    data = write_shard(shards, spec, rows(50, 50)).read_bytes()
    size = len(data)
    contents = {f"first {kept} bytes": data[:kept] for kept in (0, 1, 100, size // 2, size * 9 // 10, size - 1)}
    contents |= {"text": b"garbage", "signature": b"\x89HDF\r\n\x1a\n" + b"\xff" * 1000, "zeros": b"\0" * 5000}
    for name, content in contents.items():
        path = shards / f"{'0' * 64}.h5"
        path.write_bytes(content)
        with case(name), pytest.raises(ShardError, match="not a shard" if renamed else "do not match the name"):
            read_shard(named(path) if renamed else path, spec)


def test_a_file_that_comes_in_small_pieces_is_read_completely(shards, spec, opened_as):
    paths = {count: write_shard(shards, spec, rows(count)) for count in (1, 500)}
    opened_as(Slow)

    for count, path in paths.items():
        assert np.array_equal(read_shard(path, spec).features, rows(count).features)


def test_a_disk_that_fails_is_no_damage(shards, spec, opened_as):
    path = write_shard(shards, spec, rows())
    opened_as(Broken)

    with pytest.raises(CacheError, match="cannot read") as caught:
        read_shard(path, spec)
    assert not isinstance(caught.value, ShardError)


def test_a_file_that_does_not_exist_or_another_machine_has_deleted_is_a_file_not_found_error(shards, spec, opened_as):
    with pytest.raises(FileNotFoundError):
        read_shard(shards / f"{'0' * 64}.h5", spec)
    path = write_shard(shards, spec, rows())

    def stale(path: Path) -> None:
        raise system_error(errno.ESTALE)

    opened_as(stale)
    with pytest.raises(FileNotFoundError):
        read_shard(path, spec)


def test_a_file_larger_than_any_shard_is_refused_unread(shards, spec):
    path = shards / f"{'0' * 64}.h5"
    path.touch()
    os.truncate(path, LARGEST_SHARD)
    with opened(path) as (_, status):
        assert status.st_size == LARGEST_SHARD
    os.truncate(path, LARGEST_SHARD + 1)

    message = r"at most 1,073,741,824 bytes, found 1,073,741,825"
    with pytest.raises(ShardError, match=message), opened(path):
        pass
    with pytest.raises(ShardError, match=message):
        read_shard(path, spec)

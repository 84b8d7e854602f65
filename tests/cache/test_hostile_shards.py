"""Shards that nobody wrote by `write_shard`: what a plain shard never has is refused."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottleneck.cache.shard import FORMAT_VERSION, read_shard, write_shard
from bottleneck.errors import NewerShard, ShardError
from bottleneck.utils.files import canonical_json
from tests.cache.numbered import named
from tests.cache.test_shard import D, N, rows


@pytest.fixture
def shards(tmp_path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


@pytest.fixture
def craft(shards, spec) -> Callable[..., Path]:
    """Return a function that makes a shard by hand, as `write_shard` would unless told otherwise.

    `attributes` replace those of a plain shard (None removes one); `digests` and `features` are functions that put
    something else in their places; the file is named by its own hash, as an attacker would name it.
    """

    def make(
        attributes: dict[str, Any] | None = None,
        digests: Callable[[h5py.File], object] | None = None,
        features: Callable[[h5py.File], object] | None = None,
        then: Callable[[h5py.File], object] | None = None,
    ) -> Path:
        plain = {
            "format_version": FORMAT_VERSION,
            "fingerprint": np.bytes_(spec.fingerprint),
            "spec": np.bytes_(canonical_json(spec.to_json())),
            "n": N,
        }
        put = {
            "digests": digests or (lambda file: store(file, "digests", rows().digests)),
            "features": features or (lambda file: store(file, "features", rows().features)),
        }
        with h5py.File(shards / "crafted", "w") as file:
            for name, value in {**plain, **(attributes or {})}.items():
                if value is not None:
                    file.attrs[name] = value
            for fill in put.values():
                fill(file)
            if then:
                then(file)
        return named(shards / "crafted")

    return make


def store(file: h5py.File, name: str, values: np.ndarray, **options: Any) -> h5py.Dataset:
    return file.create_dataset(name, data=values, **{"chunks": values.shape, "fletcher32": True, **options})


def test_a_plain_shard_made_by_hand_is_read(craft, spec):
    assert np.array_equal(read_shard(craft(), spec).digests, rows().digests)


def test_a_shard_of_another_spec_is_refused(shards, spec):
    path = write_shard(shards, spec, rows())

    with pytest.raises(ShardError, match="another spec"):
        read_shard(path, replace(spec, weights="1" * 64))


def test_a_fingerprint_that_is_not_of_the_spec_beside_it_is_refused(craft, spec):
    other = np.bytes_(canonical_json(replace(spec, decoder=2).to_json()))

    with pytest.raises(ShardError, match="another spec"):
        read_shard(craft({"spec": other}), spec)


def test_a_newer_format_is_refused_as_such(craft, spec):
    with pytest.raises(NewerShard, match=r"found 2.*update bottleneck"):
        read_shard(craft({"format_version": FORMAT_VERSION + 1}), spec)


@pytest.mark.parametrize("version", [0, -1, "one", np.bytes_(b"x"), [1, 2]])
def test_an_impossible_format_version_is_refused_and_not_called_newer(craft, spec, version):
    with pytest.raises(ShardError) as caught:
        read_shard(craft({"format_version": version}), spec)

    assert not isinstance(caught.value, NewerShard)


@pytest.mark.parametrize("name", ["format_version", "fingerprint", "spec", "n"])
def test_a_missing_attribute_is_refused(craft, spec, name):
    with pytest.raises(ShardError):
        read_shard(craft({name: None}), spec)


@pytest.mark.parametrize("count", [N - 1, N + 1, 0, -1, 10**12, "many"])
def test_a_wrong_n_is_refused(craft, spec, count):
    with pytest.raises(ShardError):
        read_shard(craft({"n": count}), spec)


@pytest.mark.parametrize("value", [b"{", b"[]", b"null", b"\xff\xfe"])
def test_garbage_for_the_spec_is_refused(craft, spec, value):
    with pytest.raises(ShardError):
        read_shard(craft({"spec": np.bytes_(value)}), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
def test_an_external_link_is_refused(craft, spec, tmp_path, name):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        store(secret, "values", getattr(rows(), name))

    def link(file: h5py.File) -> None:
        file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/values")

    with pytest.raises(ShardError, match="link"):
        read_shard(craft(**{name: link}), spec)


def test_a_soft_link_is_refused(craft, spec):
    def link(file: h5py.File) -> None:
        file["features"] = h5py.SoftLink("/digests")

    with pytest.raises(ShardError, match="link"):
        read_shard(craft(features=link), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
def test_external_storage_is_refused(craft, spec, tmp_path, name):
    values = getattr(rows(), name)
    (tmp_path / "secret.bin").write_bytes(values.tobytes())

    def elsewhere(file: h5py.File) -> None:
        outside = [(str(tmp_path / "secret.bin"), 0, values.nbytes)]
        file.create_dataset(name, values.shape, values.dtype, external=outside)

    with pytest.raises(ShardError, match="not stored in the shard"):
        read_shard(craft(**{name: elsewhere}), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
def test_a_virtual_dataset_is_refused(craft, spec, tmp_path, name):
    values = getattr(rows(), name)
    with h5py.File(tmp_path / "source.h5", "w") as source:
        store(source, "values", values)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "source.h5"), "values", values.shape)
        file.create_virtual_dataset(name, layout)

    with pytest.raises(ShardError, match="not stored in the shard"):
        read_shard(craft(**{name: virtual}), spec)


@pytest.mark.parametrize("width", [D, 10**9])
def test_features_that_were_never_written_are_refused(craft, spec, width):
    def claim(file: h5py.File) -> None:
        file.create_dataset("features", (N, width), "f4", chunks=(N, min(width, 1000)), fletcher32=True)

    with pytest.raises(ShardError, match="whole rows" if width > D else "more than the file holds"):
        read_shard(craft(features=claim), spec)


def test_rows_that_were_never_written_are_refused(craft, spec):
    count = 10**9

    def claim(name: str, width: int, dtype: str) -> Callable[[h5py.File], object]:
        return lambda file: file.create_dataset(name, (count, width), dtype, chunks=(1000, width), fletcher32=True)

    path = craft({"n": count}, digests=claim("digests", 32, "u1"), features=claim("features", D, "f4"))

    with pytest.raises(ShardError, match="more than the file holds"):
        read_shard(path, spec)


@pytest.mark.parametrize("written", [1, 3, N - 1])
def test_a_chunk_that_was_never_written_is_refused(craft, spec, written):
    def some(file: h5py.File) -> None:
        features = file.create_dataset("features", (N, D), "f4", chunks=(1, D), fletcher32=True)
        features[:written] = rows().features[:written]

    with pytest.raises(ShardError, match="more than the file holds"):
        read_shard(craft(features=some), spec)


def test_a_compressed_bomb_is_refused(craft, spec):
    def bomb(file: h5py.File) -> None:
        zeros = np.zeros((N, 1_000_000), np.float32)
        file.create_dataset("features", data=zeros, chunks=(1, 100_000), compression="gzip")

    path = craft(features=bomb)
    assert path.stat().st_size < 1_000_000

    with pytest.raises(ShardError, match="another filter"):
        read_shard(path, spec)


@pytest.mark.parametrize(
    "values",
    [
        np.ones((N, D), np.float64),
        np.ones((N, D), np.int32),
        np.ones((N, D), np.complex64),
        np.ones((N, D, 2), np.float32),
        np.ones(N, np.float32),
        np.array([[b"text"] * D] * N),
    ],
    ids=["float64", "int32", "complex", "3 axes", "1 axis", "text"],
)
def test_features_of_another_kind_are_refused(craft, spec, values):
    with pytest.raises(ShardError, match="features has shape"):
        read_shard(craft(features=lambda file: store(file, "features", values, fletcher32=False)), spec)


@pytest.mark.parametrize(
    "values",
    [np.ones((N, 31), np.uint8), np.ones((N, 33), np.uint8), np.ones((N, 32), np.int8), np.ones(N, np.uint8)],
    ids=["31 wide", "33 wide", "int8", "1 axis"],
)
def test_digests_of_another_kind_are_refused(craft, spec, values):
    with pytest.raises(ShardError, match="digests"):
        read_shard(craft(digests=lambda file: store(file, "digests", values)), spec)


def test_a_group_in_place_of_a_dataset_is_refused(craft, spec):
    with pytest.raises(ShardError, match="not stored in the shard"):
        read_shard(craft(features=lambda file: file.create_group("features")), spec)


@pytest.mark.parametrize("extra", ["more", "Features"])
def test_more_than_two_datasets_are_refused(craft, spec, extra):
    with pytest.raises(ShardError, match="expected the datasets"):
        read_shard(craft(then=lambda file: store(file, extra, np.ones((1, 1), np.float32))), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
def test_a_missing_dataset_is_refused(craft, spec, name):
    with pytest.raises(ShardError, match="expected the datasets"):
        read_shard(craft(then=lambda file: file.__delitem__(name)), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
@pytest.mark.parametrize(
    "options",
    [
        {"fletcher32": False},
        {"compression": "gzip"},
        {"compression": "lzf", "fletcher32": False},
        {"shuffle": True},
        {"scaleoffset": 0, "fletcher32": False},
    ],
    ids=["none", "gzip too", "lzf", "shuffle too", "scaleoffset"],
)
def test_another_filter_than_the_checksum_is_refused(craft, spec, name, options):
    values = np.ones_like(getattr(rows(), name))

    with pytest.raises(ShardError, match="another filter"):
        read_shard(craft(**{name: lambda file: store(file, name, values, **options)}), spec)


@pytest.mark.parametrize("kind", [">f4", ">f2"])
def test_big_endian_features_are_refused(craft, spec, kind):
    with pytest.raises(ShardError, match="features has shape"):
        read_shard(craft(features=lambda file: store(file, "features", rows().features.astype(kind))), spec)


@pytest.mark.parametrize("name", ["digests", "features"])
@pytest.mark.parametrize("height", [1, N])
def test_chunks_across_columns_are_refused(craft, spec, name, height):
    values = getattr(rows(), name)

    with pytest.raises(ShardError, match="expected whole rows"):
        read_shard(craft(**{name: lambda file: store(file, name, values, chunks=(height, 3))}), spec)


# --- a table of chunks that was tampered with -------------------------------------------------------------------


def chunk_entry(row: int, size: int = 4 * D + 4, mask: int = 0) -> bytes:
    """Return how HDF5's table of chunks lists the one that begins at a row: size, filter mask, place."""
    return struct.pack("<IIQQQ", size, mask, row, 0, 0)


@pytest.fixture
def tampered(craft) -> Callable[..., Path]:
    """Return a function that makes a shard of a chunk a row and replaces bytes of its table of chunks."""

    def make(old: bytes, new: Callable[[bytes], bytes], behind: int = 0) -> Path:
        path = craft(features=lambda file: store(file, "features", rows().features, chunks=(1, D)))
        data = path.read_bytes()
        assert data.count(old) == 1
        where, length = data.index(old), len(old) + behind
        changed = new(data[where : where + length])
        assert len(changed) == length
        path.write_bytes(data[:where] + changed + data[where + length :])
        return named(path)

    return make


def test_the_table_of_chunks_is_where_these_tests_look_for_it(tampered, spec):
    path = tampered(chunk_entry(3), lambda same: same)

    assert np.array_equal(read_shard(path, spec).features, rows().features)


@pytest.mark.parametrize("row", [2, 4, N, 2**40])
def test_chunks_that_overlap_or_lie_elsewhere_are_refused(tampered, spec, row):
    with pytest.raises(ShardError, match=r"overlap or are missing|not a shard"):
        read_shard(tampered(chunk_entry(3), lambda _: chunk_entry(row)), spec)


def test_chunks_that_share_their_bytes_are_refused(tampered, spec):
    # A small file could claim to hold any number of rows so.
    data = tampered(chunk_entry(3), lambda same: same).read_bytes()
    place = data.index(chunk_entry(2)) + len(chunk_entry(2))
    address = data[place : place + 8]
    path = tampered(chunk_entry(3), lambda entry: entry[:-8] + address, behind=8)

    with pytest.raises(ShardError, match="overlap"):
        read_shard(path, spec)


def test_a_chunk_whose_checksum_was_left_out_is_refused(tampered, spec):
    with pytest.raises(ShardError, match="unexpected place or size"):
        read_shard(tampered(chunk_entry(3), lambda _: chunk_entry(3, mask=1)), spec)


@pytest.mark.parametrize("size", [0, 1, 4 * D, 4 * D + 5, 2**32 - 1])
def test_a_chunk_of_another_size_is_refused(tampered, spec, size):
    with pytest.raises(ShardError, match=r"unexpected place or size|more than the file holds"):
        read_shard(tampered(chunk_entry(3), lambda _: chunk_entry(3, size)), spec)


@pytest.mark.parametrize("address", [10**6, 2**40, 2**63, 2**64 - 1])
def test_a_chunk_that_lies_outside_of_the_file_is_refused(tampered, spec, address):
    path = tampered(chunk_entry(3), lambda entry: entry[:-8] + struct.pack("<Q", address), behind=8)

    with pytest.raises(ShardError):
        read_shard(path, spec)

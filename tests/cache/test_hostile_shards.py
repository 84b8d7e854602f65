"""Shards that `write_shard` did not write: anything that a plain shard never has is refused."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import FORMAT_VERSION, read_shard, write_shard
from bottleneck.errors import NewerShard, ShardError
from bottleneck.utils.files import canonical_json
from tests.cache.numbered import case, named
from tests.cache.test_shard import D, N, rows
from tests.variants import each


@pytest.fixture
def shards(tmp_path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


@pytest.fixture
def craft(shards, spec) -> Callable[..., Path]:
    """Return a function that makes a shard by hand, as `write_shard` would, with changes.

    `attributes` replace those of a plain shard (None removes one); `digests` and `features` are functions that write
    something else instead of them; the file is named by its own hash, as an attacker would name it.
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


def refused(path: Path, spec: Spec, *names: object, match: str | None = None) -> ShardError:
    """Check that a shard is refused, and name the case otherwise."""
    with case(*names), pytest.raises(ShardError, match=match) as caught:
        read_shard(path, spec)
    return caught.value


def test_a_shard_of_another_spec_is_refused(shards, craft, spec):
    assert refused(write_shard(shards, spec, rows()), replace(spec, weights="1" * 64), match="another spec")
    other = np.bytes_(canonical_json(replace(spec, decoder=2).to_json()))
    assert refused(craft({"spec": other}), spec, "the fingerprint of one spec, and another spec", match="another spec")


def test_a_newer_format_is_refused_as_such(craft, spec):
    with pytest.raises(NewerShard, match=r"found 2.*update bottleneck"):
        read_shard(craft({"format_version": FORMAT_VERSION + 1}), spec)


def test_an_impossible_format_version_is_refused_and_not_called_newer(craft, spec):
    for version in (0, -1, "one", np.bytes_(b"x"), [1, 2]):
        assert not isinstance(refused(craft({"format_version": version}), spec, version), NewerShard)


def test_missing_and_wrong_attributes_are_refused(craft, spec):
    for name in ("format_version", "fingerprint", "spec", "n"):
        assert refused(craft({name: None}), spec, "without", name)
    for count in (N - 1, N + 1, 0, -1, 10**12, "many"):
        assert refused(craft({"n": count}), spec, "n", count)
    for value in (b"{", b"[]", b"null", b"\xff\xfe"):
        assert refused(craft({"spec": np.bytes_(value)}), spec, "spec", value)


@each("name", ["digests", "features"])
def test_a_link_is_refused(craft, spec, tmp_path, name):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        store(secret, "values", getattr(rows(), name))

    def external(file: h5py.File) -> None:
        file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/values")

    def soft(file: h5py.File) -> None:
        file[name] = h5py.SoftLink("/digests")

    for link in (external, soft):
        assert refused(craft(**{name: link}), spec, link, match="link")


@each("name", ["digests", "features"])
def test_values_that_are_stored_elsewhere_are_refused(craft, spec, tmp_path, name):
    values = getattr(rows(), name)
    (tmp_path / "secret.bin").write_bytes(values.tobytes())
    with h5py.File(tmp_path / "source.h5", "w") as source:
        store(source, "values", values)

    def external(file: h5py.File) -> None:
        outside = [(str(tmp_path / "secret.bin"), 0, values.nbytes)]
        file.create_dataset(name, values.shape, values.dtype, external=outside)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "source.h5"), "values", values.shape)
        file.create_virtual_dataset(name, layout)

    def group(file: h5py.File) -> None:
        file.create_group(name)

    for put in (external, virtual, group):
        assert refused(craft(**{name: put}), spec, put, match="not stored in the shard")


def test_rows_that_were_never_written_are_refused(craft, spec):
    def claim(name: str, count: int, width: int, dtype: str, chunks: tuple[int, int]) -> Callable[[h5py.File], object]:
        return lambda file: file.create_dataset(name, (count, width), dtype, chunks=chunks, fletcher32=True)

    holds = "more than the file holds"
    assert refused(craft(features=claim("features", N, D, "f4", (N, D))), spec, "no features", match=holds)
    wide = craft(features=claim("features", N, 10**9, "f4", (N, 1000)))
    assert refused(wide, spec, "wide features", match="whole rows")
    many = 10**9
    digests, features = claim("digests", many, 32, "u1", (1000, 32)), claim("features", many, D, "f4", (1000, D))
    assert refused(craft({"n": many}, digests=digests, features=features), spec, "many rows", match=holds)


def test_a_chunk_that_was_never_written_is_refused(craft, spec):
    for written in (1, 3, N - 1):

        def some(file: h5py.File, written: int = written) -> None:
            features = file.create_dataset("features", (N, D), "f4", chunks=(1, D), fletcher32=True)
            features[:written] = rows().features[:written]

        assert refused(craft(features=some), spec, written, match="more than the file holds")


def test_a_compressed_bomb_is_refused(craft, spec):
    def bomb(file: h5py.File) -> None:
        zeros = np.zeros((N, 1_000_000), np.float32)
        file.create_dataset("features", data=zeros, chunks=(1, 100_000), compression="gzip")

    path = craft(features=bomb)
    assert path.stat().st_size < 1_000_000

    assert refused(path, spec, match="another filter")


def test_datasets_of_other_types_or_shapes_are_refused(craft, spec):
    features = {
        "float64": np.ones((N, D), np.float64),
        "int32": np.ones((N, D), np.int32),
        "complex": np.ones((N, D), np.complex64),
        "3 axes": np.ones((N, D, 2), np.float32),
        "1 axis": np.ones(N, np.float32),
        "text": np.array([[b"text"] * D] * N),
        "big-endian float32": rows().features.astype(">f4"),
        "big-endian float16": rows().features.astype(">f2"),
    }
    for name, values in features.items():
        path = craft(features=lambda file, values=values: store(file, "features", values, fletcher32=False))
        assert refused(path, spec, name, match="features has shape")
    digests = {
        "31 wide": np.ones((N, 31), np.uint8),
        "33 wide": np.ones((N, 33), np.uint8),
        "int8": np.ones((N, 32), np.int8),
        "1 axis": np.ones(N, np.uint8),
    }
    for name, values in digests.items():
        path = craft(digests=lambda file, values=values: store(file, "digests", values))
        assert refused(path, spec, name, match="digests")


def test_more_or_fewer_than_two_datasets_are_refused(craft, spec):
    for extra in ("more", "Features"):
        path = craft(then=lambda file, extra=extra: store(file, extra, np.ones((1, 1), np.float32)))
        assert refused(path, spec, extra, match="expected the datasets")
    for name in ("digests", "features"):
        path = craft(then=lambda file, name=name: file.__delitem__(name))
        assert refused(path, spec, "without", name, match="expected the datasets")


@each("name", ["digests", "features"])
def test_other_filters_and_chunks_are_refused(craft, spec, name):
    plain = getattr(rows(), name)
    filters = (
        {"fletcher32": False},
        {"compression": "gzip"},
        {"compression": "lzf", "fletcher32": False},
        {"shuffle": True},
        {"scaleoffset": 0, "fletcher32": False},
    )
    for options in filters:
        path = craft(**{name: lambda file, options=options: store(file, name, np.ones_like(plain), **options)})
        assert refused(path, spec, options, match="another filter")
    for height in (1, N):
        path = craft(**{name: lambda file, height=height: store(file, name, plain, chunks=(height, 3))})
        assert refused(path, spec, "chunks across columns", height, match="expected whole rows")


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


def test_chunks_that_overlap_or_lie_elsewhere_are_refused(tampered, spec):
    for row in (2, 4, N, 2**40):
        path = tampered(chunk_entry(3), lambda _, row=row: chunk_entry(row))
        assert refused(path, spec, row, match=r"overlap or are missing|not a shard")


def test_chunks_that_share_their_bytes_are_refused(tampered, spec):
    # Otherwise a small file could claim to hold any number of rows.
    data = tampered(chunk_entry(3), lambda same: same).read_bytes()
    place = data.index(chunk_entry(2)) + len(chunk_entry(2))
    address = data[place : place + 8]
    assert refused(tampered(chunk_entry(3), lambda entry: entry[:-8] + address, behind=8), spec, match="overlap")


def test_a_chunk_of_another_size_or_without_its_checksum_is_refused(tampered, spec):
    for size in (0, 1, 4 * D, 4 * D + 5, 2**32 - 1):
        path = tampered(chunk_entry(3), lambda _, size=size: chunk_entry(3, size))
        assert refused(path, spec, size, match=r"unexpected place or size|more than the file holds")
    path = tampered(chunk_entry(3), lambda _: chunk_entry(3, mask=1))
    assert refused(path, spec, "no checksum", match="unexpected place or size")


def test_a_chunk_that_lies_outside_of_the_file_is_refused(tampered, spec):
    for address in (10**6, 2**40, 2**63, 2**64 - 1):
        path = tampered(chunk_entry(3), lambda entry, to=address: entry[:-8] + struct.pack("<Q", to), behind=8)
        assert refused(path, spec, address)

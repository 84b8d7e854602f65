import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.cache.shard import FORMAT_VERSION, Rows, read_outline, read_shard, write_shard
from bottleneck.errors import NewerShard, ShardError
from bottleneck.files import canonical_json

MIB = 1 << 20
N, D = 6, 5


def rows(count: int = N, dim: int = D, dtype: str = "float32", seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    return Rows(random.integers(0, 256, (count, 32), np.uint8), random.normal(size=(count, dim)).astype(dtype))


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


def named(path: Path) -> Path:
    """Name a file by the hash of its bytes."""
    return path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.h5"))


def flip(path: Path, where: int) -> Path:
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)
    return path


both = pytest.mark.parametrize("read", [read_shard, read_outline])


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


def test_the_outline_has_the_digests_and_the_width(shards, spec):
    outline = read_outline(write_shard(shards, spec, rows()), spec)

    assert np.array_equal(outline.digests, rows().digests)
    assert outline.dim == D


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


@both
def test_the_checksum_notices_a_flipped_byte_even_under_a_matching_name(shards, spec, read):
    path = write_shard(shards, spec, rows())
    data = path.read_bytes()
    values = (rows().features if read is read_shard else rows().digests).tobytes()
    where = data.index(values)
    path = named(flip(path, where))

    with pytest.raises(ShardError, match="not a shard"):
        read(path, spec)


@both
@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_a_file_cut_short_is_refused(shards, spec, read, kept):
    path = write_shard(shards, spec, rows(50, 50))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])

    with pytest.raises(ShardError):
        read(path, spec)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.9, -1])
def test_a_file_cut_short_is_refused_even_under_a_matching_name(shards, spec, kept):
    path = write_shard(shards, spec, rows(50, 50))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])

    with pytest.raises(ShardError, match="not a shard"):
        read_shard(named(path), spec)


@both
@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x89HDF\r\n\x1a\n" + b"\xff" * 1000, b"\0" * 5000])
def test_garbage_under_a_matching_name_is_refused(shards, spec, read, garbage):
    (shards / "garbage").write_bytes(garbage)

    with pytest.raises(ShardError, match="not a shard"):
        read(named(shards / "garbage"), spec)


@both
def test_a_missing_file_is_a_file_not_found_error(shards, spec, read):
    with pytest.raises(FileNotFoundError):
        read(shards / f"{'0' * 64}.h5", spec)


def test_a_shard_under_another_name_is_refused(shards, spec):
    path = write_shard(shards, spec, rows())

    with pytest.raises(ShardError, match="do not match the name"):
        read_shard(path.rename(shards / f"{'0' * 64}.h5"), spec)


# --- what is hostile --------------------------------------------------------------------------------------------


@both
def test_a_plain_shard_made_by_hand_is_read(craft, spec, read):
    assert np.array_equal(read(craft(), spec).digests, rows().digests)


@both
def test_a_shard_of_another_spec_is_refused(shards, spec, read):
    path = write_shard(shards, spec, rows())

    with pytest.raises(ShardError, match="another spec"):
        read(path, replace(spec, weights="1" * 64))


@both
def test_a_fingerprint_that_is_not_of_the_spec_beside_it_is_refused(craft, spec, read):
    other = np.bytes_(canonical_json(replace(spec, decoder=2).to_json()))

    with pytest.raises(ShardError, match="another spec"):
        read(craft({"spec": other}), spec)


@both
def test_a_newer_format_is_refused_as_such(craft, spec, read):
    with pytest.raises(NewerShard, match=r"found 2.*update bottleneck"):
        read(craft({"format_version": FORMAT_VERSION + 1}), spec)


@both
@pytest.mark.parametrize("version", [0, -1, "one", np.bytes_(b"x"), [1, 2]])
def test_an_impossible_format_version_is_refused_and_not_called_newer(craft, spec, read, version):
    with pytest.raises(ShardError) as caught:
        read(craft({"format_version": version}), spec)

    assert not isinstance(caught.value, NewerShard)


@both
@pytest.mark.parametrize("name", ["format_version", "fingerprint", "spec", "n"])
def test_a_missing_attribute_is_refused(craft, spec, read, name):
    with pytest.raises(ShardError):
        read(craft({name: None}), spec)


@both
@pytest.mark.parametrize("count", [N - 1, N + 1, 0, -1, 10**12, "many"])
def test_a_wrong_n_is_refused(craft, spec, read, count):
    with pytest.raises(ShardError):
        read(craft({"n": count}), spec)


@both
@pytest.mark.parametrize("value", [b"{", b"[]", b"null", b"\xff\xfe"])
def test_garbage_for_the_spec_is_refused(craft, spec, read, value):
    with pytest.raises(ShardError):
        read(craft({"spec": np.bytes_(value)}), spec)


@both
@pytest.mark.parametrize("name", ["digests", "features"])
def test_an_external_link_is_refused(craft, spec, read, tmp_path, name):
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        store(secret, "values", getattr(rows(), name))

    def link(file: h5py.File) -> None:
        file[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/values")

    with pytest.raises(ShardError, match="link"):
        read(craft(**{name: link}), spec)


@both
def test_a_soft_link_is_refused(craft, spec, read):
    def link(file: h5py.File) -> None:
        file["features"] = h5py.SoftLink("/digests")

    with pytest.raises(ShardError, match="link"):
        read(craft(features=link), spec)


@both
@pytest.mark.parametrize("name", ["digests", "features"])
def test_external_storage_is_refused(craft, spec, read, tmp_path, name):
    values = getattr(rows(), name)
    (tmp_path / "secret.bin").write_bytes(values.tobytes())

    def elsewhere(file: h5py.File) -> None:
        outside = [(str(tmp_path / "secret.bin"), 0, values.nbytes)]
        file.create_dataset(name, values.shape, values.dtype, external=outside)

    with pytest.raises(ShardError, match="not stored in the shard"):
        read(craft(**{name: elsewhere}), spec)


@both
@pytest.mark.parametrize("name", ["digests", "features"])
def test_a_virtual_dataset_is_refused(craft, spec, read, tmp_path, name):
    values = getattr(rows(), name)
    with h5py.File(tmp_path / "source.h5", "w") as source:
        store(source, "values", values)

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "source.h5"), "values", values.shape)
        file.create_virtual_dataset(name, layout)

    with pytest.raises(ShardError, match="not stored in the shard"):
        read(craft(**{name: virtual}), spec)


@both
@pytest.mark.parametrize("width", [D, 10**9])
def test_features_that_were_never_written_are_refused(craft, spec, read, width):
    def claim(file: h5py.File) -> None:
        file.create_dataset("features", (N, width), "f4", chunks=(N, min(width, 1000)), fletcher32=True)

    with pytest.raises(ShardError, match="more than the file holds"):
        read(craft(features=claim), spec)


@both
def test_rows_that_were_never_written_are_refused(craft, spec, read):
    count = 10**9

    def claim(name: str, width: int, dtype: str) -> Callable[[h5py.File], object]:
        return lambda file: file.create_dataset(name, (count, width), dtype, chunks=(1000, width), fletcher32=True)

    path = craft({"n": count}, digests=claim("digests", 32, "u1"), features=claim("features", D, "f4"))

    with pytest.raises(ShardError, match="more than the file holds"):
        read(path, spec)


@both
@pytest.mark.parametrize("written", [1, 3, N - 1])
def test_a_chunk_that_was_never_written_is_refused(craft, spec, read, written):
    def some(file: h5py.File) -> None:
        features = file.create_dataset("features", (N, D), "f4", chunks=(1, D), fletcher32=True)
        features[:written] = rows().features[:written]

    with pytest.raises(ShardError, match="more than the file holds"):
        read(craft(features=some), spec)


@both
def test_a_compressed_bomb_is_refused(craft, spec, read):
    def bomb(file: h5py.File) -> None:
        zeros = np.zeros((N, 1_000_000), np.float32)
        file.create_dataset("features", data=zeros, chunks=(1, 100_000), compression="gzip")

    path = craft(features=bomb)
    assert path.stat().st_size < 1_000_000

    with pytest.raises(ShardError, match="more than the file holds"):
        read(path, spec)


@both
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
def test_features_of_another_kind_are_refused(craft, spec, read, values):
    with pytest.raises(ShardError, match="features has shape"):
        read(craft(features=lambda file: store(file, "features", values, fletcher32=False)), spec)


@both
@pytest.mark.parametrize(
    "values",
    [np.ones((N, 31), np.uint8), np.ones((N, 33), np.uint8), np.ones((N, 32), np.int8), np.ones(N, np.uint8)],
    ids=["31 wide", "33 wide", "int8", "1 axis"],
)
def test_digests_of_another_kind_are_refused(craft, spec, read, values):
    with pytest.raises(ShardError, match="digests"):
        read(craft(digests=lambda file: store(file, "digests", values)), spec)


@both
def test_a_group_in_place_of_a_dataset_is_refused(craft, spec, read):
    with pytest.raises(ShardError, match="not stored in the shard"):
        read(craft(features=lambda file: file.create_group("features")), spec)


@both
@pytest.mark.parametrize("extra", ["more", "Features"])
def test_more_than_two_datasets_are_refused(craft, spec, read, extra):
    with pytest.raises(ShardError, match="expected the datasets"):
        read(craft(then=lambda file: store(file, extra, np.ones((1, 1), np.float32))), spec)


@both
@pytest.mark.parametrize("name", ["digests", "features"])
def test_a_missing_dataset_is_refused(craft, spec, read, name):
    with pytest.raises(ShardError, match="expected the datasets"):
        read(craft(then=lambda file: file.__delitem__(name)), spec)

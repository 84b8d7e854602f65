"""Invalid shards are moved to quarantine, and their images are missing."""

import errno
import hashlib
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import bottleneck.cache.shard
from bottleneck.cache.shard import Buffer
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard
from bottleneck.utils.tree import Tree
from tests.cache.numbered import D, add, case, digests, features, files, flip_a_feature, overwrite
from tests.faults import Fault, before_first, system_error
from tests.variants import each

pytestmark = pytest.mark.usefixtures("no_sync")
CALLS: dict[str, Callable[[Store], object]] = {
    "digests": Store.digests,
    "dim": Store.dim,
    "has": lambda store: store.has(digests(3)),
    "index": Store.index,
    "read": lambda store: store.read(digests(1)),
}


def test_a_flipped_byte_puts_only_its_shard_into_quarantine(store):
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


def test_an_image_that_is_also_in_an_intact_shard_is_not_missing(store):
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


def cut(path: Path, size: float) -> None:
    data = path.read_bytes()
    overwrite(path, data[: int(size * len(data)) if isinstance(size, float) else size])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: overwrite(path, b""),
    "garbage": lambda path: overwrite(path, b"garbage"),
    "half": lambda path: cut(path, 0.5),
    "without its end": lambda path: cut(path, -10),
    "a bit": lambda path: overwrite(path, path.read_bytes()[:-3] + bytes([path.read_bytes()[-3] ^ 1]) + b"  "),
}


@each("call", ["digests", "dim", "has", "index"])
def test_damage_is_noticed_without_reading_features(cache, spec, call):
    for number, (name, damage) in enumerate(DAMAGES.items()):
        with case(name):
            store = cache.store(replace(spec, decoder=number))
            first, second = sorted([add(store, 1, 2), add(store, 3, 4)])
            damage(first)

            with pytest.warns(BottleneckWarning, match="moved to .*quarantine"):
                CALLS[call](store)

            assert store.shards() == [second]
            assert store.dim() == D
            assert not (store.folder / "index" / first.stem).exists()


def test_a_file_that_is_not_a_shard_is_quarantined_when_it_is_read(store):
    add(store, 1)
    for damage in (b"", b"garbage", b"\0" * 10_000):
        (store.folder / "shards" / f"{'0' * 64}.h5").write_bytes(damage)

        with case(damage[:10]), pytest.warns(BottleneckWarning):
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


def hostile(store: Store, change: Callable[[h5py.File], object]) -> Path:
    """Add a changed copy of a shard, named by its own hash."""
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


@each("call", ["digests", "read"])
def test_a_newer_shard_is_refused_and_stays_in_place(store, call):
    add(store, 1)
    newer = hostile(store, lambda file: file.attrs.modify("format_version", 2))

    with pytest.raises(NewerShard, match="update bottleneck"):
        CALLS[call](store)

    assert newer in store.shards()
    assert not (store.folder / "quarantine").exists()


def test_a_quarantine_that_cannot_be_written_leaves_the_others_readable(store, wrap):
    flip_a_feature(add(store, 1), 1)
    add(store, 2)
    wrap(Tree, "rename", Fault(system_error(errno.ENOSPC)))

    with pytest.warns(BottleneckWarning) as caught:
        assert np.array_equal(store.read(digests(2)), features(2))

    assert len(store.shards()) == 2
    assert "was moved" not in str(caught[0].message)


@pytest.mark.parametrize("target", [(bottleneck.cache.shard, "open"), (h5py, "File")], ids=["open", "File"])
def test_a_shard_that_cannot_be_read_at_the_moment_is_a_cache_error_and_stays(store, wrap, target):
    path = add(store, 1)
    os.utime(path, (1, 1))  # its memo is no longer valid
    fault = Fault(OSError())
    wrap(*target, fault)

    codes = (errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM)
    for call, code in itertools.product(("digests", "dim", "read"), codes):
        fault.error = system_error(code)
        with case(call, code), pytest.raises(CacheError, match="cannot read"):
            CALLS[call](store)
    fault.active = False
    assert store.shards() == [path]
    assert np.array_equal(store.read(digests(1)), features(1))


@pytest.mark.parametrize("target", [(Buffer, "read"), (h5py, "File")], ids=["Buffer", "File"])
def test_a_shard_that_does_not_fit_into_memory_stays(store, wrap, target):
    path = add(store, 1)
    os.utime(path, (1, 1))
    wrap(*target, Fault(MemoryError()))

    for call in ("digests", "read"):
        with case(call), pytest.raises((MemoryError, CacheError)):
            CALLS[call](store)
    assert store.shards() == [path]


def test_a_shard_that_another_process_writes_again_before_quarantine_is_not_lost(store, wrap):
    path = add(store, 1)
    whole = path.read_bytes()
    flip_a_feature(path, 1)
    wrap(Tree, "rename", before_first(lambda: overwrite(path, whole), path=path))

    assert np.array_equal(store.read(digests(1)), features(1))  # by the same reader that saw the damage


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_in_place_of_a_shard_is_quarantined_without_waiting(store):
    path = add(store, 1)
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(BottleneckWarning, match="expected a regular file"):
        assert store.missing(digests(1)).tolist() == [0]


def test_two_readers_may_quarantine_one_shard(store, wrap):
    path = add(store, 1)
    flip_a_feature(path, 1)
    wrap(Tree, "rename", before_first(path.unlink, path=path))

    with pytest.warns(BottleneckWarning, match="Another process has moved it"), pytest.raises(MissingFeatures):
        store.read(digests(1))

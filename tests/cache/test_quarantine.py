"""Shards that cannot be trusted are taken out of use, and what they held is missing."""

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import bottleneck.cache.shard
import bottleneck.cache.store
import bottleneck.utils.files
from bottleneck.cache.shard import Buffer
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard
from bottleneck.utils.tree import Tree
from tests.cache.numbered import D, add, digests, features, files, flip_a_feature, overwrite


def raises(error: Exception) -> Any:
    """Return what can stand in the place of any function, and raises."""

    def fail(*args: object, **options: object) -> None:
        raise error

    return fail


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
    overwrite(first, damage if isinstance(damage, bytes) else data[:cut])

    with pytest.warns(BottleneckWarning, match="moved to .*quarantine"):
        ask(store)

    assert store.shards() == [second]
    assert store.dim() == D


@pytest.mark.parametrize("ask", [Store.digests, lambda store: store.has(digests(1, 2, 3)), Store.index])
def test_a_shard_that_was_changed_in_place_is_noticed_without_reading_features(store, ask):
    damaged, good = add(store, 1, 2), add(store, 3)
    flip_a_feature(damaged, 1, 2)

    with pytest.warns(BottleneckWarning, match="do not match the name"):
        ask(store)

    assert store.shards() == [good]
    assert store.has(digests(1, 2, 3)).tolist() == [False, False, True]
    assert not (store.folder / "index" / damaged.stem).exists()


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
    monkeypatch.setattr(Tree, "rename", raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))

    with pytest.warns(BottleneckWarning) as caught:
        assert np.array_equal(store.read(digests(2)), features(2))

    assert len(store.shards()) == 2
    assert "was moved" not in str(caught[0].message)


@pytest.mark.parametrize("ask", [Store.digests, Store.dim, lambda store: store.read(digests(1))])
@pytest.mark.parametrize("code", [errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM])
def test_a_shard_that_cannot_be_read_just_now_is_a_cache_error_and_stays(store, monkeypatch, ask, code):
    path = add(store, 1)
    os.utime(path, (1, 1))  # its memo is no longer believed
    error = OSError(code, os.strerror(code))

    for target, name in ((bottleneck.cache.shard, "open"), (h5py, "File")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, raises(error), raising=False)
            with pytest.raises(CacheError, match="cannot read"):
                ask(store)

    assert store.shards() == [path]
    assert np.array_equal(store.read(digests(1)), features(1))


@pytest.mark.parametrize("ask", [Store.digests, lambda store: store.read(digests(1))])
def test_a_shard_that_does_not_fit_into_memory_stays(store, monkeypatch, ask):
    path = add(store, 1)
    os.utime(path, (1, 1))

    for target, name in ((Buffer, "read"), (h5py, "File")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, raises(MemoryError()))
            with pytest.raises((MemoryError, CacheError)):
                ask(store)

    assert store.shards() == [path]


def test_a_shard_that_another_process_has_meanwhile_written_whole_is_not_lost(store, monkeypatch):
    path = add(store, 1)
    whole = path.read_bytes()
    flip_a_feature(path, 1)
    rename = Tree.rename

    def after_another_wrote(tree: Tree, source: Path, target: Path, **options: bool) -> Path:
        if source == path:
            overwrite(path, whole)
        return rename(tree, source, target, **options)

    monkeypatch.setattr(Tree, "rename", after_another_wrote)

    assert np.array_equal(store.read(digests(1)), features(1))  # by the very reader that saw the damage


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_in_place_of_a_shard_is_quarantined_and_nobody_waits(store):
    path = add(store, 1)
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(BottleneckWarning, match="expected a regular file"):
        assert store.missing(digests(1)).tolist() == [0]


def test_two_readers_may_quarantine_one_shard(store, monkeypatch):
    path = add(store, 1)
    flip_a_feature(path, 1)
    rename = Tree.rename

    def after_another_did(tree: Tree, source: Path, target: Path, **options: bool) -> Path:
        source.unlink()
        return rename(tree, source, target, **options)

    monkeypatch.setattr(Tree, "rename", after_another_did)

    with pytest.warns(BottleneckWarning, match="Another process has moved it"), pytest.raises(MissingFeatures):
        store.read(digests(1))

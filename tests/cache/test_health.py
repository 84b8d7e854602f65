import os
import time
from pathlib import Path

from bottleneck.cache.health import look_at, unfinished
from bottleneck.utils.files import TEMPORARY
from tests.cache.numbered import add


def test_a_sound_store(store):
    paths = [add(store, 1, 2), add(store, 3)]
    found = look_at(store, most=9)

    assert (found.shards, found.checked, found.damage) == (2, 2, ())
    assert found.bytes == sum(path.stat().st_size for path in paths)


def test_only_the_newest_shards_are_checked(store):
    old = add(store, 1)
    add(store, 2)
    old.write_bytes(b"damaged")
    os.utime(old, (0, 0))

    assert look_at(store, most=1).damage == ()
    assert len(look_at(store, most=2).damage) == 1


def test_looking_moves_nothing(store):
    path = add(store, 1)
    path.write_bytes(path.read_bytes()[:900])
    before = sorted(Path("cache").rglob("*"))
    found = look_at(store, most=9)

    assert "not a shard" in found.damage[0]
    assert sorted(Path("cache").rglob("*")) == before


def test_unfinished_files_count_after_a_day(store):
    add(store, 1)
    (store.folder / "shards" / f"{TEMPORARY}9-0123abcd").write_bytes(b"")
    folders = [store.folder / "shards"]

    assert unfinished(store.tree, folders) == 0
    assert unfinished(store.tree, folders, now=time.time() + 90_000) == 1

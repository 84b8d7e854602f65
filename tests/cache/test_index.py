"""The index in memory, and the memo of each shard."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.cache.index import Index, ShardEntry, load_entry, save_entry
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, MissingFeatures
from bottleneck.images.digest import signature
from tests.cache.numbered import D, add, case, digests, features, flip_a_feature
from tests.variants import each

STEPS = st.tuples(
    st.sampled_from(["add", "add", "add", "delete", "replace", "forget"]),
    st.sampled_from("abc"),
    st.lists(st.integers(0, 11), min_size=1, max_size=5),
)


class Folder:
    """A folder of shards that exist only in memory; it records which are loaded."""

    def __init__(self, **shards: tuple[int, ...]) -> None:
        self.shards = shards
        self.loads: list[str] = []
        self.lost: set[str] = set()  # listed, but invalid

    def names(self) -> list[str]:
        return sorted(self.shards)

    def load(self, name: str) -> ShardEntry | None:
        self.loads.append(name)
        return None if name in self.lost else ShardEntry(digests(*self.shards[name]), D, "float32")

    def index(self) -> Index:
        return Index(self.names, self.load)


def has(index: Index, *numbers: int) -> list[bool]:
    return index.has(digests(*numbers)).tolist()


def sorted_bytes(found: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in found)


# --- in memory --------------------------------------------------------------------------------------------------


def test_an_index_of_nothing_is_empty():
    index = Folder().index()

    assert index.digests().shape == (0, 32)
    assert has(index, 1, 2) == [False, False]
    assert index.shards_of(digests(1)) == {}
    assert index.shards_of(digests()) == {}


@given(st.lists(STEPS, max_size=30))
def test_an_index_follows_a_folder_as_a_dictionary_does(steps):
    folder, forgotten = Folder(), set()
    index = folder.index()
    for number, (step, name, numbers) in enumerate(steps):
        if step == "add":
            folder.shards[f"{name}{number}"] = tuple(numbers)
        elif step == "delete":
            folder.shards.pop(next(iter(sorted(folder.shards)), ""), None)
        elif step == "replace" and folder.shards:
            folder.shards = {f"all{number}": tuple(sorted({one for held in folder.shards.values() for one in held}))}
        elif step == "forget" and folder.shards:
            index.forget(max(folder.shards))
            forgotten.add(max(folder.shards))
        index.refresh()
        shards = {name: held for name, held in folder.shards.items() if name not in forgotten}
        expect_index(index, shards, all_digests=step == "delete")
    expect_index(index, {name: held for name, held in folder.shards.items() if name not in forgotten})
    assert len(folder.loads) == len(set(folder.loads))  # each shard is loaded once


def expect_index(index: Index, shards: dict[str, tuple[int, ...]], all_digests: bool = True) -> None:
    """Check that an index has the images of some shards and no others, and takes each from one that has it."""
    there = sorted({number for held in shards.values() for number in held})
    assert index.entries.keys() == shards.keys()
    assert has(index, *range(12)) == [number in there for number in range(12)]
    needed = index.shards_of(digests(*range(12)))
    assert sorted(row for rows in needed.values() for row in rows.tolist()) == there
    for name, rows in needed.items():
        assert set(rows.tolist()) <= set(shards[name])
    if all_digests:
        assert [row.tobytes() for row in index.digests()] == sorted_bytes(digests(*there))


def test_known_shards_are_not_loaded_again():
    folder = Folder(a=(1, 2))
    index = folder.index()
    folder.shards["b"] = (3,)
    assert has(index, 1, 2, 3) == [True, True, False]
    index.refresh()
    index.refresh()

    assert has(index, 1, 2, 3, 4) == [True, True, True, False]
    assert folder.loads == ["a", "b"]


def test_the_folder_is_listed_again_if_a_shard_is_deleted_before_it_is_loaded():
    folder = Folder(a=(1,), b=(2,))

    def load(name: str) -> ShardEntry:
        if name == "b" and "b" in folder.shards:  # another process compacts just now
            folder.shards = {"c": (1, 2)}
        if name not in folder.shards:
            raise FileNotFoundError(name)
        return ShardEntry(digests(*folder.shards[name]), D, "float32")

    index = Index(folder.names, load)

    assert has(index, 1, 2) == [True, True]
    assert list(index.entries) == ["c"]


def test_listing_stops_if_shards_keep_disappearing():
    names = iter(range(1000))

    index = Index(lambda: [f"shard {next(names)}"], lambda name: None)

    assert index.entries == {}
    assert next(names) < 100


def test_an_invalid_shard_is_not_loaded_again_by_the_same_index():
    folder = Folder(a=(1,), b=(2,))
    folder.lost = {"a"}
    index = folder.index()
    index.refresh()
    index.refresh()

    assert has(index, 1, 2) == [False, True]
    assert folder.loads.count("a") == 1
    assert folder.index().entries.keys() == {"b"}
    assert folder.loads.count("a") == 2


def test_many_shards_that_come_one_by_one_are_found_as_at_once():
    folder = Folder()
    index = folder.index()
    for number in range(40):
        folder.shards[f"{number:03}"] = (number, number + 1, 1000 + number)
        index.refresh()
        with case(number):
            assert has(index, number, number + 1, number + 2, 1000 + number, 0) == [True, True, False, True, True]
            assert len(index._segments) <= 9  # each of which is searched

    there = {*range(41), *range(1000, 1040)}
    assert [row.tobytes() for row in index.digests()] == sorted_bytes(digests(*there))
    needed = index.shards_of(digests(*sorted(there)))
    assert sorted(np.concatenate(list(needed.values())).tolist()) == list(range(len(there)))


def test_an_unknown_name_may_be_forgotten():
    index = Folder(a=(1, 2)).index()
    index.forget("unknown")

    assert has(index, 1, 2) == [True, True]


def test_few_large_shards_are_preferred_to_many_small_ones():
    small = {f"{number:03}": (number,) for number in range(20)}
    folder = Folder(**small, zz=tuple(range(20)), zzz=tuple(range(5)))

    assert list(folder.index().shards_of(digests(*range(20)))) == ["zz"]


# --- on disk ----------------------------------------------------------------------------------------------------


def memo(store: Store, shard: Path) -> Path:
    return store.folder / "index" / shard.stem


def test_an_entry_is_read_back(tmp_path):
    (tmp_path / "shard").write_bytes(b"x")
    wanted = ShardEntry(digests(1, 2, 3), 1280, "float16")
    save_entry(tmp_path / "memo", signature((tmp_path / "shard").stat()), wanted)
    found = load_entry(tmp_path / "memo", tmp_path / "shard")

    assert np.array_equal(found.digests, wanted.digests)
    assert (found.dim, found.dtype, len(found)) == (1280, "float16", 3)


def test_the_entry_of_a_deleted_shard_is_not_returned(tmp_path):
    (tmp_path / "shard").write_bytes(b"x")
    save_entry(tmp_path / "memo", signature((tmp_path / "shard").stat()), ShardEntry(digests(1), D, "float32"))
    (tmp_path / "shard").unlink()

    with pytest.raises(FileNotFoundError):
        load_entry(tmp_path / "memo", tmp_path / "shard")


def write_at(path: Path, data: bytes, seconds: int) -> None:
    path.write_bytes(data)
    os.utime(path, (seconds, seconds))


def replace_file(path: Path) -> None:
    write_at(path.with_name("other"), b"y", 5)
    path.with_name("other").replace(path)


def restore_the_time(path: Path) -> None:
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:  # until its clock ticks
        write_at(path, b"y", 5)


def test_a_memo_of_a_file_that_has_changed_is_not_used(tmp_path):
    shard = tmp_path / "shard"
    changes: dict[str, Callable[[Path], object]] = {
        "longer": lambda path: write_at(path, b"xx", 5),
        "touched": lambda path: os.utime(path, (6, 6)),
        "replaced": replace_file,
        "with its old time": restore_the_time,
    }
    for name, change in changes.items():
        write_at(shard, b"x", 5)
        save_entry(tmp_path / "memo", signature(shard.stat()), ShardEntry(digests(1), D, "float32"))
        assert load_entry(tmp_path / "memo", shard)
        change(shard)
        with case(name):
            assert load_entry(tmp_path / "memo", shard) is None


def test_shards_with_memos_are_not_opened(store, opened):
    add(store, 1, 2), add(store, 3)
    store.digests(), store.has(digests(1, 9)), store.dim(), store.missing(digests(4))

    assert opened == []


def test_a_shard_without_a_memo_is_verified_once(store, opened):
    first, second = add(store, 1, 2), add(store, 3)
    memo(store, first).unlink()
    assert store.has(digests(1, 2, 3)).all()
    assert store.has(digests(1, 2, 3)).all()

    assert opened == [first.stem]
    assert memo(store, second).exists()


def test_a_shard_that_was_only_touched_is_verified_again_and_kept(store, opened):
    path = add(store, 1)
    os.utime(path, (1, 1))
    assert store.has(digests(1)).all()
    assert store.has(digests(1)).all()

    assert opened == [path.stem]
    assert store.shards() == [path]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a byte less": lambda data: data[:-1],
    "a row less": lambda data: data[:-48],
    "a row more": lambda data: data + b"\0" * 32,
    "another header": lambda data: b"[]" + data,
    "a bit of a digest": lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:],
    "another d": lambda data: data.replace(b'"dim": 6', b'"dim": 7'),
    "another type": lambda data: data.replace(b"float32", b"float16"),
}


def test_a_damaged_memo_is_ignored_and_written_again(store, opened):
    path, other = add(store, 1, 2), add(store, 3)
    whole = memo(store, path).read_bytes()
    for name, damage in DAMAGES.items():
        broken = damage(whole)
        memo(store, path).write_bytes(broken)
        opened.clear()
        with case(name):
            assert broken != whole
            assert store.has(digests(1, 2, 3, 4)).tolist() == [True, True, True, False]
            assert store.dim() == D
            assert np.array_equal(store.read(digests(3, 2, 1)), features(3, 2, 1))
            assert opened[0] == path.stem
            assert memo(store, path).read_bytes() == whole
            assert store.shards() == sorted([path, other])


def test_the_memo_of_another_shard_is_ignored(store):
    one, other = add(store, 1, 2), add(store, 3, 4)
    shutil.copy(memo(store, one), memo(store, other))

    assert store.has(digests(1, 2, 3, 4)).all()
    assert np.array_equal(store.read(digests(4, 1)), features(4, 1))


def test_memos_of_deleted_shards_change_nothing(store):
    add(store, 1).unlink()
    add(store, 2)

    assert store.has(digests(1, 2)).tolist() == [False, True]
    with pytest.raises(MissingFeatures):
        store.read(digests(1))


def test_deleting_the_index_changes_no_result(store):
    add(store, 1, 2), add(store, 2, 3)
    before = store.digests()
    shutil.rmtree(store.folder / "index")

    assert np.array_equal(store.digests(), before)
    assert np.array_equal(store.read(digests(3, 1, 2)), features(3, 1, 2))
    assert store.dim() == D


@each("obstacle", ["a file in its place", "a folder in the place of a memo"])
def test_an_index_that_cannot_be_written_changes_no_result(store, obstacle):
    path = add(store, 1, 2)
    shutil.rmtree(store.folder / "index")
    if obstacle == "a file in its place":
        (store.folder / "index").write_text("x")
    else:
        memo(store, path).mkdir(parents=True)
    add(store, 3)

    assert store.has(digests(1, 2, 3, 4)).tolist() == [True, True, True, False]
    assert np.array_equal(store.read(digests(3, 1, 2)), features(3, 1, 2))


def test_an_index_adds_what_another_process_appends(store, cache, spec):
    index = store.index()
    add(cache.store(spec), 1, 2)
    assert has(index, 1) == [False]
    index.refresh()

    assert has(index, 1, 2, 3) == [True, True, False]


def test_an_index_removes_the_images_of_a_deleted_shard(store):
    path = add(store, 1)
    add(store, 2)
    index = store.index()
    store.drop(path.stem)
    index.refresh()

    assert has(index, 1, 2) == [False, True]


def test_a_damaged_shard_is_quarantined_by_the_index_and_warned_of_once(store):
    damaged = add(store, 1)
    flip_a_feature(damaged, 1)
    with pytest.warns(BottleneckWarning) as caught:
        index = store.index()
    index.refresh()

    assert len(caught) == 1
    assert has(index, 1) == [False]

"""Entries of shards that a process keeps in memory."""

import os
from pathlib import Path

import numpy as np

from bottleneck.cache.index import Index, load_entry
from bottleneck.cache.recent import RecentEntries, ShardEntry
from tests.cache.numbered import add, case, digests

STATE = ((1, 2, 3, 4), None)
ENTRY = ShardEntry(digests(1, 2), 6, "float32")


def test_an_entry_is_known_as_long_as_both_files_are_the_same(tmp_path):
    recent = RecentEntries()
    recent.put(tmp_path / "memo", STATE, ENTRY)

    assert recent.get(tmp_path / "memo", STATE) is ENTRY
    assert recent.get(tmp_path / "memo", ((1, 2, 3, 5), None)) is None
    assert recent.get(tmp_path / "memo", ((1, 2, 3, 4), (1, 2, 3, 4))) is None
    assert recent.get(tmp_path / "other", STATE) is None


def test_a_relative_path_means_the_file_it_meant(tmp_path):
    recent = RecentEntries()
    os.chdir(tmp_path)
    recent.put(Path("memo"), STATE, ENTRY)
    assert recent.get(tmp_path / "memo", STATE) is ENTRY
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")

    assert recent.get(Path("memo"), STATE) is None


def test_the_oldest_entries_are_dropped_if_there_are_too_many():
    recent = RecentEntries(limit=3 * ENTRY.nbytes)
    for number in (0, 1, 0, 2, 3):
        recent.put(Path(str(number)), STATE, ENTRY)

    known = [recent.get(Path(str(number)), STATE) is ENTRY for number in range(4)]
    assert known in ([False, True, True, True], [True, False, True, True])


def test_an_entry_larger_than_the_limit_is_not_kept(tmp_path):
    recent = RecentEntries(limit=10)
    recent.put(tmp_path, STATE, ENTRY)

    assert recent.get(tmp_path, STATE) is None


def test_a_memo_is_read_once_in_a_process(store):
    path = add(store, 1, 2)
    memo = store.folder / "index" / path.stem

    assert load_entry(memo, path) is load_entry(memo, path)


def test_a_process_verifies_the_shards_of_a_read_only_cache_once(store, opened):
    paths = [add(store, 1, 2), add(store, 3)]
    for path in paths:
        (store.folder / "index" / path.stem).unlink()
    (store.folder / "index").rmdir()
    (store.folder / "index").write_text("no folder")
    opened.clear()
    for _ in range(3):
        assert store.has(digests(1, 2, 3, 4)).tolist() == [True, True, True, False]

    assert sorted(opened) == sorted(path.stem for path in paths)


def test_a_few_digests_are_found_as_many_are():
    held = {"a": tuple(range(0, 60, 2)), "b": tuple(range(0, 60, 3)), "c": (1,)}
    for count in (1, 2, 31, 32, 33, 100):
        index = Index(lambda: sorted(held), lambda name: ShardEntry(digests(*held[name]), 6, "float32"))
        wanted = digests(*range(count))
        there = {number for numbers in held.values() for number in numbers}
        expected = [number in there for number in range(count)]

        with case(count):
            assert index.has(wanted).tolist() == expected
            assert index.has(wanted).tolist() == expected
            assert index.has(np.repeat(wanted, 2, axis=0)).tolist() == [found for found in expected for _ in range(2)]


def test_digests_with_a_common_prefix_are_distinguished():
    twin = digests(1).copy()
    twin[0, -1] ^= 1
    index = Index(lambda: ["a"], lambda name: ShardEntry(digests(1, 2), 6, "float32"))

    assert index.has(np.concatenate([twin, digests(1)])).tolist() == [False, True]

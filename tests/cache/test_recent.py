"""What a process remembers of shards."""

from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.index import Index, load_entry
from bottleneck.cache.recent import RecentEntries, ShardEntry
from tests.cache.numbered import add, digests

STATE = ((1, 2, 3, 4), None)
ENTRY = ShardEntry(digests(1, 2), 6, "float32")


def test_an_entry_is_known_as_long_as_both_files_are_the_same(tmp_path):
    recent = RecentEntries()
    recent.put(tmp_path / "memo", STATE, ENTRY)

    assert recent.get(tmp_path / "memo", STATE) is ENTRY
    assert recent.get(tmp_path / "memo", ((1, 2, 3, 5), None)) is None
    assert recent.get(tmp_path / "memo", ((1, 2, 3, 4), (1, 2, 3, 4))) is None
    assert recent.get(tmp_path / "other", STATE) is None


def test_a_relative_path_means_the_file_it_meant(tmp_path, monkeypatch):
    recent = RecentEntries()
    monkeypatch.chdir(tmp_path)
    recent.put(Path("memo"), STATE, ENTRY)
    assert recent.get(tmp_path / "memo", STATE) is ENTRY
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert recent.get(Path("memo"), STATE) is None


def test_those_that_came_first_go_where_there_are_too_many():
    recent = RecentEntries(limit=3 * ENTRY.nbytes)
    for number in (0, 1, 0, 2, 3):
        recent.put(Path(str(number)), STATE, ENTRY)

    assert [recent.get(Path(str(number)), STATE) is ENTRY for number in range(4)] == [False, True, True, True] or [
        recent.get(Path(str(number)), STATE) is ENTRY for number in range(4)
    ] == [True, False, True, True]


def test_an_entry_larger_than_all_that_may_be_kept_is_not(tmp_path):
    recent = RecentEntries(limit=10)
    recent.put(tmp_path, STATE, ENTRY)

    assert recent.get(tmp_path, STATE) is None


def test_a_memo_is_read_once_in_a_process(store, monkeypatch):
    path = add(store, 1, 2)
    memo = store.folder / "index" / path.stem
    first = load_entry(memo, path)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))

    assert load_entry(memo, path) is first


def test_where_the_cache_cannot_be_written_shards_are_proven_once_in_a_process(store, opened):
    paths = [add(store, 1, 2), add(store, 3)]
    for path in paths:
        (store.folder / "index" / path.stem).unlink()
    (store.folder / "index").rmdir()
    (store.folder / "index").write_text("no folder")
    opened.clear()
    for _ in range(3):
        assert store.has(digests(1, 2, 3, 4)).tolist() == [True, True, True, False]

    assert sorted(opened) == sorted(path.stem for path in paths)


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 100])
def test_few_digests_are_found_as_many_are(count):
    held = {"a": tuple(range(0, 60, 2)), "b": tuple(range(0, 60, 3)), "c": (1,)}
    index = Index(lambda: sorted(held), lambda name: ShardEntry(digests(*held[name]), 6, "float32"))
    wanted = digests(*range(count))
    expected = [number % 2 == 0 or number % 3 == 0 or number == 1 for number in range(count)]
    expected = [right and number < 60 for number, right in enumerate(expected)]

    assert index.has(wanted).tolist() == expected
    assert index.has(wanted).tolist() == expected
    assert index.has(np.repeat(wanted, 2, axis=0)).tolist() == [right for right in expected for _ in range(2)]


def test_digests_that_begin_alike_are_told_apart():
    twin = digests(1).copy()
    twin[0, -1] ^= 1
    index = Index(lambda: ["a"], lambda name: ShardEntry(digests(1, 2), 6, "float32"))

    assert index.has(np.concatenate([twin, digests(1)])).tolist() == [False, True]

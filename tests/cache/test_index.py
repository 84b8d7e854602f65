"""The index in memory, and the memo of each shard that it is made from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bottleneck.cache.index
import bottleneck.cache.shard
from bottleneck.cache.index import Index, ShardEntry, load_entry, save_entry
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, MissingFeatures
from bottleneck.images.digest import signature
from tests.cache.numbered import D, add, digests, features, flip_a_feature


class Folder:
    """A folder of shards that exist in memory alone; it counts how often each is loaded."""

    def __init__(self, **shards: tuple[int, ...]) -> None:
        self.shards = shards
        self.loads: list[str] = []
        self.lost: set[str] = set()  # listed, and not to be loaded

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


def test_images_that_an_earlier_segment_has_are_not_sought_in_later_ones():
    folder = Folder(a=(1, 2, 3))
    index = folder.index()
    folder.shards = {**folder.shards, "b": (4, 5)}
    index.refresh()

    assert {name: rows.tolist() for name, rows in index.shards_of(digests(1)).items()} == {"a": [0]}
    assert {name: rows.tolist() for name, rows in index.shards_of(digests(4, 1)).items()} == {"a": [1], "b": [0]}


def test_shards_that_come_are_taken_in_and_those_that_are_known_are_not_loaded_again():
    folder = Folder(a=(1, 2))
    index = folder.index()
    folder.shards["b"] = (3,)
    assert has(index, 1, 2, 3) == [True, True, False]
    index.refresh()
    index.refresh()

    assert has(index, 1, 2, 3, 4) == [True, True, True, False]
    assert folder.loads == ["a", "b"]


def test_shards_that_go_are_forgotten():
    folder = Folder(a=(1, 2), b=(2, 3))
    index = folder.index()
    del folder.shards["a"]
    index.refresh()

    assert has(index, 1, 2, 3) == [False, True, True]
    assert list(index.entries) == ["b"]
    assert sorted_bytes(index.digests()) == sorted_bytes(digests(2, 3))
    del folder.shards["b"]
    index.refresh()
    assert has(index, 1, 2, 3) == [False] * 3
    assert index.digests().shape == (0, 32)


def test_all_shards_replaced_by_one_keep_their_images():
    folder = Folder(a=(1, 2), b=(3, 4))
    index = folder.index()
    folder.shards = {"compacted": (1, 2, 3, 4)}
    index.refresh()

    assert has(index, 1, 2, 3, 4) == [True] * 4
    assert list(index.shards_of(digests(1, 4))) == ["compacted"]


def test_a_shard_that_vanishes_between_listing_and_loading_leads_to_another_look():
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


def test_a_folder_in_which_shards_vanish_forever_is_given_up_on():
    names = iter(range(1000))

    index = Index(lambda: [f"shard {next(names)}"], lambda name: None)

    assert index.entries == {}
    assert next(names) < 100


def test_a_shard_that_cannot_be_trusted_is_not_tried_again_by_the_same_index():
    folder = Folder(a=(1,), b=(2,))
    folder.lost = {"a"}
    index = folder.index()
    index.refresh()
    index.refresh()

    assert has(index, 1, 2) == [False, True]
    assert folder.loads.count("a") == 1
    assert folder.index().entries.keys() == {"b"}
    assert folder.loads.count("a") == 2


def test_a_shard_that_was_forgotten_stays_so():
    folder = Folder(a=(1, 2), b=(2, 3))
    index = folder.index()
    index.forget("a")
    index.refresh()

    assert has(index, 1, 2, 3) == [False, True, True]
    assert index.shards_of(digests(2)).keys() == {"b"}
    index.forget("never heard of")
    assert has(index, 1, 2, 3) == [False, True, True]


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 10, 17, 40])
def test_many_shards_that_come_one_by_one_are_found_as_at_once(count):
    folder = Folder()
    index = folder.index()
    for number in range(count):
        folder.shards[f"{number:03}"] = (number, number + 1, 1000 + number)
        index.refresh()
        assert has(index, number, number + 1, number + 2, 1000 + number, 0) == [True, True, False, True, True]

    there = {*range(count + 1), *range(1000, 1000 + count)}
    assert_shares_out(index, folder, sorted(there))
    assert len(index._segments) <= 9  # each of which is looked into
    assert sorted_bytes(index.digests()) == sorted_bytes(digests(*there))
    assert [row.tobytes() for row in index.digests()] == sorted_bytes(index.digests())
    assert_shares_out(index, folder, sorted(there))  # sorted together now


def assert_shares_out(index: Index, folder: Folder, numbers: list[int]) -> None:
    """Check that each row is to be taken from one shard, which has it."""
    needed = index.shards_of(digests(*numbers))
    assert sorted(np.concatenate(list(needed.values())).tolist()) == list(range(len(numbers)))
    for name, rows in needed.items():
        assert {numbers[row] for row in rows} <= set(folder.shards[name])


def test_shards_of_shares_the_rows_out_and_leaves_out_what_is_nowhere():
    folder = Folder(a=(1, 2), b=(3,), c=(9,))
    needed = folder.index().shards_of(digests(3, 1, 7, 2))

    assert {name: sorted(rows.tolist()) for name, rows in needed.items()} == {"a": [1, 3], "b": [0]}


def test_few_large_shards_are_preferred_to_many_small_ones():
    small = {f"{number:03}": (number,) for number in range(20)}
    folder = Folder(**small, zz=tuple(range(20)), zzz=tuple(range(5)))

    assert list(folder.index().shards_of(digests(*range(20)))) == ["zz"]


def test_an_image_in_two_shards_is_found_and_listed_once():
    folder = Folder(a=(1, 2), b=(2, 3))
    index = folder.index()

    assert len(index.digests()) == 3
    assert sum(map(len, index.shards_of(digests(1, 2, 3)).values())) == 3
    index.forget("a")
    assert has(index, 1, 2, 3) == [False, True, True]
    index = folder.index()
    index.forget("b")
    assert has(index, 1, 2, 3) == [True, True, False]


# --- on disk ----------------------------------------------------------------------------------------------------


def memo(store: Store, shard: Path) -> Path:
    return store.folder / "index" / shard.stem


def test_what_is_remembered_of_a_shard_comes_back(tmp_path):
    (tmp_path / "shard").write_bytes(b"x")
    wanted = ShardEntry(digests(1, 2, 3), 1280, "float16")
    save_entry(tmp_path / "memo", signature((tmp_path / "shard").stat()), wanted)
    found = load_entry(tmp_path / "memo", tmp_path / "shard")

    assert np.array_equal(found.digests, wanted.digests)
    assert (found.dim, found.dtype, len(found)) == (1280, "float16", 3)


def test_of_a_shard_that_is_gone_nothing_is_recalled(tmp_path):
    (tmp_path / "shard").write_bytes(b"x")
    save_entry(tmp_path / "memo", signature((tmp_path / "shard").stat()), ShardEntry(digests(1), D, "float32"))
    (tmp_path / "shard").unlink()

    with pytest.raises(FileNotFoundError):
        load_entry(tmp_path / "memo", tmp_path / "shard")


@pytest.mark.parametrize("change", ["longer", "touched", "replaced", "back to its old time"])
def test_a_memo_of_a_file_that_has_changed_is_not_believed(tmp_path, change):
    shard = tmp_path / "shard"
    shard.write_bytes(b"x")
    os.utime(shard, (5, 5))
    save_entry(tmp_path / "memo", signature(shard.stat()), ShardEntry(digests(1), D, "float32"))
    if change == "longer":
        shard.write_bytes(b"xx")
        os.utime(shard, (5, 5))
    elif change == "touched":
        os.utime(shard, (6, 6))
    elif change == "replaced":
        (tmp_path / "other").write_bytes(b"y")
        os.utime(tmp_path / "other", (5, 5))
        (tmp_path / "other").replace(shard)
    else:
        before = shard.stat().st_ctime_ns
        while shard.stat().st_ctime_ns == before:  # until its clock ticks
            shard.write_bytes(b"y")
            os.utime(shard, (5, 5))

    assert load_entry(tmp_path / "memo", shard) is None


def test_shards_that_are_remembered_are_not_opened(store, opened):
    add(store, 1, 2), add(store, 3)
    store.digests(), store.has(digests(1, 9)), store.dim(), store.missing(digests(4))

    assert opened == []


def test_a_shard_whose_memo_is_gone_is_proven_once_and_remembered(store, opened):
    first, second = add(store, 1, 2), add(store, 3)
    memo(store, first).unlink()
    assert store.has(digests(1, 2, 3)).all()
    assert store.has(digests(1, 2, 3)).all()

    assert opened == [first.stem]
    assert memo(store, second).exists()


def test_a_shard_that_was_merely_touched_is_proven_again_and_stays(store, opened):
    path = add(store, 1)
    os.utime(path, (1, 1))
    assert store.has(digests(1)).all()
    assert store.has(digests(1)).all()

    assert opened == [path.stem]
    assert store.shards() == [path]


def flipped(data: bytes) -> bytes:
    """Flip a bit of the digests in a memo."""
    where = data.index(b"\n") + 5
    return data[:where] + bytes([data[where] ^ 1]) + data[where + 1 :]


def edited(**told: object) -> Callable[[bytes], bytes]:
    """Return a function that edits the head of a memo and seals it again."""

    def edit(data: bytes) -> bytes:
        head, _, digests = data[:-16].partition(b"\n")
        body = json.dumps({**json.loads(head), **told}).encode() + b"\n" + digests
        return body + bottleneck.cache.index._checksum(body)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"garbage",
        lambda data: b"\n" * 100,
        lambda data: data[:-1],
        lambda data: data[:-48],
        lambda data: data + b"\0" * 32,
        lambda data: b"[]" + data,
        flipped,
        edited(version=2),
        edited(file=[1, 2, 3, 4]),
        edited(file=None),
        edited(dim="6"),
        edited(dim=-6),
        edited(dtype="object"),
        edited(dtype=["float32"]),
        lambda data: data.replace(b'"dim": 6', b'"dim": 7'),
        lambda data: data.replace(b"float32", b"float16"),
    ],
    ids=[
        "empty", "garbage", "newlines", "a byte less", "a row less", "a row more", "another head", "a bit", "newer",
        "of another file", "of no file", "a text for d", "a negative d", "objects", "a list of types", "another d",
        "another type",
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_memo_is_ignored_and_written_anew(store, opened, damage):
    path, other = add(store, 1, 2), add(store, 3)
    whole = memo(store, path).read_bytes()
    broken = damage(whole)
    assert broken != whole
    memo(store, path).write_bytes(broken)

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


def test_memos_of_shards_that_are_gone_change_nothing(store):
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


@pytest.mark.parametrize("obstacle", ["a file in its place", "a folder in the place of a memo"])
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


def test_an_index_follows_what_another_process_appends(store, cache, spec):
    index = store.index()
    add(cache.store(spec), 1, 2)
    assert has(index, 1) == [False]
    index.refresh()

    assert has(index, 1, 2, 3) == [True, True, False]


def test_an_index_that_outlives_a_shard_sees_its_images_vanish(store):
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

import itertools
import threading

import numpy as np
import pytest

import bottleneck.cache.store
from bottleneck.cache import compact as module
from bottleneck.cache.compact import Compaction, compact
from bottleneck.cache.lock import maintenance
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError
from tests.cache.numbered import add, digests, features, flip_a_feature


def served(store: Store, *numbers: int) -> bool:
    return np.array_equal(store.read(digests(*numbers)), features(*numbers))


def test_many_small_shards_become_one_with_the_same_rows(store):
    for number in range(10):
        add(store, number, number + 1)

    assert compact(store) == Compaction(before=10, after=1)
    assert served(store, *range(11))
    assert len(store.digests()) == 11
    assert len(list((store.folder / "index").iterdir())) == 1


def test_the_rows_of_a_joined_shard_stand_in_the_order_of_their_digests_each_once(store):
    add(store, 3, 1, 2)
    add(store, 1, 5)
    compact(store)
    (path,) = store.shards()
    rows = store.load(path.stem)

    assert [row.tobytes() for row in rows.digests] == sorted(row.tobytes() for row in digests(1, 2, 3, 5))


def test_compacting_twice_changes_nothing(store):
    for number in range(4):
        add(store, number)
    compact(store)
    before = store.shards()

    assert compact(store) == Compaction(before=1, after=1)
    assert store.shards() == before


@pytest.mark.parametrize(("rows", "after"), [(1, 4), (2, 2), (4, 1)])
def test_a_joined_shard_is_no_larger_than_one_that_is_written(store, monkeypatch, rows, after):
    for number in range(4):
        add(store, number)
    monkeypatch.setattr(module, "_BYTES", rows * features(1).nbytes)
    monkeypatch.setattr(bottleneck.cache.store, "_SHARD_BYTES", rows * features(1).nbytes)

    assert compact(store) == Compaction(before=4, after=after)
    assert served(store, *range(4))


def test_a_joined_shard_takes_one_append():
    assert module._BYTES <= bottleneck.cache.store._SHARD_BYTES


def test_a_shard_whose_images_all_stand_in_another_goes(store):
    large, small = add(store, 1, 2, 3), add(store, 2, 3)
    compact(store)

    assert len(store.shards()) == 1
    assert small not in store.shards()
    assert served(store, 1, 2, 3)
    assert large  # whether it or a sorted twin of it stays is decided by name


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_shards_of_the_same_images_in_any_order_become_one(store, order):
    add(store, 1, 2, 3)
    if order != (1, 2, 3):
        add(store, *order)
    compact(store)

    assert len(store.shards()) == 1
    assert served(store, 1, 2, 3)


def test_a_shard_goes_only_for_one_of_a_higher_rank(store, monkeypatch):
    # The rule by which no row is lost, whatever other compactions do at the same time.
    dropped: list[tuple[int, str]] = []
    drop = Store.drop

    def spy(self: Store, name: str) -> None:
        rows = self.load(name)
        dropped.append((len({row.tobytes() for row in rows.digests}), name))
        drop(self, name)

    monkeypatch.setattr(Store, "drop", spy)
    for numbers in ((1, 2), (2, 1), (1,), (2, 3), (4,)):
        add(store, *numbers)
    compact(store)
    (path,) = store.shards()

    assert len(dropped) >= 4
    assert max(dropped) < (4, path.stem)


def test_full_shards_are_left_alone(store, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 6)
    full, half, small, other = add(store, 1, 2, 3, 4, 5, 6), add(store, 7, 8, 9), add(store, 10), add(store, 11)
    compact(store)

    assert full in store.shards()
    assert not {half, small, other} & set(store.shards())
    assert len(store.shards()) == 2


def test_no_joined_shard_has_more_rows_than_a_full_one(store, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 6)
    for number in range(20):
        add(store, number)
    compact(store)

    assert all(len(store.load(path.stem).digests) <= 6 for path in store.shards())
    assert len(store.shards()) <= 4
    assert served(store, *range(20))


def test_float16_and_float32_are_never_joined(store):
    add(store, 1, dtype="float16")
    add(store, 2, dtype="float16")
    add(store, 3)
    add(store, 4)
    compact(store)

    kinds = sorted(str(store.load(path.stem).features.dtype) for path in store.shards())
    assert kinds == ["float16", "float32"]


def test_a_damaged_shard_is_quarantined_and_the_others_are_joined(store):
    add(store, 1)
    add(store, 2)
    flip_a_feature(add(store, 3), 3)
    with pytest.warns(BottleneckWarning, match="damaged"):
        compact(store)

    assert served(store, 1, 2)
    assert len(store.shards()) == 1
    assert store.missing(digests(3)).tolist() == [0]


def test_an_empty_store_has_nothing_to_join(store):
    add(store, 1)
    store.drop(store.shards()[0].stem)

    assert compact(store) == Compaction(before=0, after=0)


def test_only_one_maintenance_job_works_at_a_time(store):
    add(store, 1)
    add(store, 2)
    with maintenance(store.folder), pytest.raises(CacheError, match="try again later"):
        compact(store)

    assert len(store.shards()) == 2
    assert compact(store).after == 1


def test_a_reader_that_listed_the_folder_before_finds_its_rows_in_the_new_shard(store, monkeypatch):
    for number in range(4):
        add(store, number)
    names = Store._names
    listed = iter([names(store)])
    index = store.index()
    compact(store)
    monkeypatch.setattr(Store, "_names", lambda self: next(listed, None) or names(self))

    assert served(store, 0, 1, 2, 3)
    assert index.has(digests(0, 1, 2, 3)).all()


def test_readers_are_never_refused_while_shards_are_joined_and_added(store, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 16)
    add(store, *range(8))
    stop, wrong = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if not served(store, *range(8)):
                wrong.append("rows")

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(8, 40):
        add(store, number)
        if number % 4 == 0:
            compact(store)
    stop.set()
    for reader in readers:
        reader.join()

    assert not wrong
    assert served(store, *range(40))

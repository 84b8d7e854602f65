import itertools
import threading
from pathlib import Path

import numpy as np
import pytest

import bottleneck.cache.store
from bottleneck.cache import compact as module
from bottleneck.cache.compact import Compaction, compact
from bottleneck.cache.lock import maintenance
from bottleneck.cache.shard import Rows
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError
from tests.cache.numbered import add, digests, features, files, flip_a_feature


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


def test_only_one_maintenance_job_works_at_a_time(store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
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


# --- small shards are joined as they are written ----------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what only a loss of power would show."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def one_by_one(store: Store, numbers: range) -> None:
    for number in numbers:
        store.append(digests(number), features(number))


def test_however_many_images_come_one_by_one_there_are_few_shards_and_all_rows(store, quick, monkeypatch):
    monkeypatch.setattr(module, "_MANY", 4)
    monkeypatch.setattr(module, "_ROWS", 64)
    counts, written = [], 0
    commit = Store.commit

    def count(self: Store, rows: Rows) -> str:
        nonlocal written
        written += len(rows.digests)
        return commit(self, rows)

    monkeypatch.setattr(Store, "commit", count)
    for number in range(300):
        one_by_one(store, range(number, number + 1))
        counts.append(len(store.shards()))

    full = 300 // 64
    assert max(counts) <= full + 3 * 4 + 1  # fewer than four of 1, of 4 and of 16 rows, and the one just written
    assert written <= 300 * 4
    assert len(store.digests()) == 300
    assert served(store, *range(300))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_commits_of_any_small_size_are_joined(store, quick, size):
    for start in range(0, 40 * size, size):
        store.append(digests(*range(start, start + size)), features(*range(start, start + size)))

    assert len(store.shards()) == 9
    assert served(store, *range(40 * size))


def test_activations_are_joined_too_and_fewer_of_them_make_a_full_shard(activations, quick, monkeypatch):
    monkeypatch.setattr(module, "_BYTES", 40 * features(1).nbytes)
    one_by_one(activations, range(66))

    assert len(activations.shards()) == 4  # two full ones, of 32 rows, and two of one
    assert served(activations, *range(66))


def test_a_few_small_shards_are_left_as_they_are(store, quick):
    one_by_one(store, range(31))

    assert len(store.shards()) == 31
    assert not (store.folder / "maintenance.lock").exists()


def test_large_commits_are_never_rewritten(store, quick, monkeypatch):
    monkeypatch.setattr(module, "_MANY", 2)
    monkeypatch.setattr(module, "_ROWS", 6)
    names = [add(store, *range(start, start + 4)) for start in range(0, 40, 4)]

    assert store.shards() == sorted(names)


def test_what_append_returns_is_there_when_it_returns(store, quick):
    for number in range(70):
        (name,) = store.append(digests(number), features(number))
        assert store.folder / "shards" / f"{name}.h5" in store.shards()


def test_many_small_shards_of_before_are_joined_by_the_next_commit(store, quick, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bottleneck.cache.store, "join_small", lambda *_: None)
        one_by_one(store, range(100))
    assert len(store.shards()) == 100
    one_by_one(store, range(100, 101))

    assert len(store.shards()) == 2
    assert served(store, *range(101))


def test_reading_alone_joins_nothing_and_writes_nothing(store, quick, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bottleneck.cache.store, "join_small", lambda *_: None)
        one_by_one(store, range(40))
    before = files(store.folder)
    assert served(store, *range(40))

    assert files(store.folder) == before


def no_room(*_: object) -> None:
    raise CacheError("cannot write: No space left on device")


@pytest.mark.parametrize(
    ("target", "broken"),
    [
        ("bottleneck.cache.compact.maintenance", maintenance),  # held by another job, see below
        ("bottleneck.cache.compact._join", no_room),
        ("bottleneck.cache.store.Store.drop", no_room),
    ],
)
def test_a_commit_does_not_fail_where_shards_cannot_be_joined(store, quick, monkeypatch, target, broken):
    one_by_one(store, range(32))
    if broken is maintenance:
        with maintenance(store.folder):
            one_by_one(store, range(32, 34))
    else:
        with monkeypatch.context() as patch:
            patch.setattr(target, broken)
            one_by_one(store, range(32, 34))
    assert served(store, *range(34))
    one_by_one(store, range(34, 35))

    assert len(store.shards()) <= 5  # it is made good by the next
    assert served(store, *range(35))


def test_threads_that_commit_one_by_one_leave_few_shards_and_all_rows(store, quick):
    threads = [threading.Thread(target=one_by_one, args=(store, range(first, 200, 4))) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert served(store, *range(200))
    assert len(store.shards()) < 3 * 32


def test_a_new_image_and_a_known_one_cost_no_more_file_reads_after_a_thousand_others(store, quick, monkeypatch, opened):
    one_by_one(store, range(40))
    reads: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (reads.append(self), whole(self))[1])

    def cost(number: int) -> int:
        one_by_one(store, range(number, number + 1))
        opened.clear()
        reads.clear()
        for _ in range(3):
            assert served(store, number)
            assert served(store, 3)
        return len(opened) + len([path for path in reads if path.parent.name == "index"])

    before = cost(1000)
    one_by_one(store, range(40, 300))
    assert cost(1001) <= before == 6

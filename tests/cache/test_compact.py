import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.cache.compact import Compaction, ShardSizes, compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.lock import maintenance
from bottleneck.cache.shard import Rows
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError
from tests.cache.numbered import add, case, digests, features, files, flip_a_feature, rows, served
from tests.variants import each

pytestmark = pytest.mark.usefixtures("no_sync")
ROW = features(1).nbytes


def sized(store: Store, **sizes: int) -> Store:
    return replace(store, sizes=ShardSizes(**sizes))


def commit_each(store: Store, *numbers: int) -> None:
    """Write a shard for each image without joining any."""
    for number in numbers:
        store.commit(rows(number))


def one_by_one(store: Store, numbers: range) -> None:
    for number in numbers:
        store.append(digests(number), features(number))


def row_counts(store: Store) -> list[int]:
    return sorted(len(store.load(path.stem).digests) for path in store.shards())


@given(
    groups=st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=8),
    full=st.integers(1, 10),
    by_bytes=st.booleans(),
)
def test_compacting_keeps_every_row_once_in_few_shards_that_are_not_too_large(spec, groups, full, by_bytes):
    with tempfile.TemporaryDirectory() as folder:
        store = sized(FeatureCache(folder).store(spec), **({"bytes": full * ROW} if by_bytes else {"rows": full}))
        before = {store.commit(rows(*group)) for group in groups}
        images = sorted({number for group in groups for number in group})
        sizes = row_counts(store)
        done = compact(store)
        kept = {name: store.load(name) for name in (path.stem for path in store.shards())}

        assert done == Compaction(len(before), len(kept))
        assert served(store, *images)
        assert len(store.digests()) == len(images)
        joined = [found for name, found in kept.items() if name not in before]
        assert all(len(found.digests) <= full for found in joined)
        for found in joined:
            assert [row.tobytes() for row in found.digests] == sorted({row.tobytes() for row in found.digests})
        if max(sizes) <= full // 2 and sum(sizes) <= full:
            assert len(kept) == 1
        assert len(list((store.folder / "index").iterdir())) == len(kept)


def test_small_shards_become_one_and_compacting_again_changes_nothing(store):
    commit_each(store, *range(10))
    assert compact(store) == Compaction(before=10, after=1)
    before = store.shards()

    assert compact(store) == Compaction(before=1, after=1)
    assert store.shards() == before
    assert len(list((store.folder / "index").iterdir())) == 1


def test_a_shard_whose_images_are_all_in_another_is_deleted(store):
    _, small = add(store, 1, 2, 3), add(store, 2, 3)
    compact(store)

    assert len(store.shards()) == 1
    assert small not in store.shards()
    assert served(store, 1, 2, 3)  # whether the large shard or a sorted twin is kept depends on the names


def test_shards_of_the_same_images_in_any_order_become_one(cache, spec):
    for number, order in enumerate(itertools.permutations((1, 2, 3))):
        with case(order):
            store = cache.store(replace(spec, decoder=number))
            add(store, 1, 2, 3)
            store.append(digests(*order), features(*order))
            compact(store)

            assert len(store.shards()) == 1
            assert served(store, 1, 2, 3)


def test_a_shard_is_deleted_only_if_another_has_a_higher_rank(store):
    # The rule by which no row is lost, whatever other compactions do at the same time.
    dropped: list[tuple[int, str]] = []

    class Watched(Store):
        def drop(self, name: str) -> None:
            dropped.append((len({row.tobytes() for row in self.load(name).digests}), name))
            super().drop(name)

    store = Watched(store.folder, store.spec)
    for numbers in ((1, 2), (2, 1), (1,), (2, 3), (4,)):
        add(store, *numbers)
    compact(store)
    (path,) = store.shards()

    assert len(dropped) >= 4
    assert max(dropped) < (4, path.stem)


def test_full_shards_are_not_joined(store):
    store = sized(store, rows=6)
    full, half, small, other = add(store, 1, 2, 3, 4, 5, 6), add(store, 7, 8, 9), add(store, 10), add(store, 11)
    compact(store)

    assert full in store.shards()
    assert not {half, small, other} & set(store.shards())
    assert len(store.shards()) == 2


def test_float16_and_float32_are_never_joined(store):
    for number, dtype in enumerate(["float16", "float16", "float32", "float32"]):
        add(store, number, dtype=dtype)
    compact(store)

    assert sorted(str(store.load(path.stem).features.dtype) for path in store.shards()) == ["float16", "float32"]


def test_a_damaged_shard_is_quarantined_and_the_others_are_joined(store):
    add(store, 1), add(store, 2)
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


def test_only_one_maintenance_job_runs_at_a_time(store):
    add(store, 1), add(store, 2)
    with maintenance(store.folder), pytest.raises(CacheError, match="try again later"):
        compact(store, patience=0.0)

    assert len(store.shards()) == 2
    assert compact(store).after == 1


def test_a_reader_that_listed_the_folder_before_finds_its_rows_in_the_new_shard(store):
    commit_each(store, *range(4))
    index, old = store.index(), [path.stem for path in store.shards()]
    compact(store)
    listed = iter([old])

    class Late(Store):
        def _names(self) -> list[str]:
            return next(listed, None) or super()._names()

    assert served(Late(store.folder, store.spec), 0, 1, 2, 3)
    assert index.has(digests(0, 1, 2, 3)).all()


def test_readers_are_never_refused_while_shards_are_joined_and_added(store):
    store = sized(store, rows=16)
    add(store, *range(8))
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            if not served(store, *range(8)):
                wrong.append("rows")

    readers = [threading.Thread(target=read) for _ in range(2)]
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


def test_there_are_few_shards_however_many_images_come_one_by_one(store):
    counts, written = [], []

    class Counted(Store):
        def commit(self, rows: Rows) -> str:
            written.append(len(rows.digests))
            return super().commit(rows)

    store = Counted(store.folder, store.spec, ShardSizes(rows=64, many=4))
    for number in range(150):
        one_by_one(store, range(number, number + 1))
        counts.append(len(os.listdir(store.folder / "shards")))

    full = 150 // 64
    assert max(counts) <= full + 3 * 4 + 1  # fewer than four of 1, of 4 and of 16 rows, and the one just written
    assert sum(written) <= 150 * 4
    assert len(store.digests()) == 150
    assert served(store, *range(150))


def test_commits_of_any_small_size_are_joined(store):
    size = 7
    for start in range(0, 40 * size, size):
        store.append(digests(*range(start, start + size)), features(*range(start, start + size)))

    assert len(store.shards()) == 9
    assert served(store, *range(40 * size))


def test_activations_are_joined_too_and_fewer_of_them_make_a_full_shard(activations):
    activations = sized(activations, bytes=40 * ROW)
    one_by_one(activations, range(66))

    assert row_counts(activations) == [1, 1, 32, 32]
    assert served(activations, *range(66))


def test_a_few_small_shards_are_not_joined(store):
    one_by_one(store, range(31))

    assert len(store.shards()) == 31
    assert not (store.folder / "maintenance.lock").exists()


def test_large_commits_are_never_rewritten(store):
    store = sized(store, many=2, rows=6)
    paths = [add(store, *range(start, start + 4)) for start in range(0, 40, 4)]

    assert store.shards() == sorted(paths)


def test_a_shard_that_append_returned_is_not_joined_by_the_same_call(store):
    for number in range(70):
        (name,) = store.append(digests(number), features(number))
        assert (store.folder / "shards" / f"{name}.h5").exists()


def test_the_next_commit_joins_many_old_shards_but_reading_never_does(store):
    commit_each(store, *range(100))
    before = files(store.folder)
    assert served(store, *range(100))
    assert files(store.folder) == before
    one_by_one(store, range(100, 101))

    assert len(store.shards()) == 2
    assert served(store, *range(101))


def test_a_commit_joins_no_more_than_its_limit(store):
    commit_each(store, *range(12))
    sized(store, many=4, at_once=5).append(digests(12), features(12))

    assert row_counts(store) == [*[1] * 8, 5]


class Locked(Store):
    def append(self, *given: np.ndarray) -> list[str]:
        with maintenance(self.folder):
            return super().append(*given)


class NoSpaceToJoin(Store):
    def commit(self, rows: Rows) -> str:
        if len(rows.digests) > 1:
            raise CacheError("cannot write: No space left on device")
        return super().commit(rows)


class NothingDeleted(Store):
    def drop(self, name: str) -> None:
        raise CacheError("cannot delete: Input/output error")


@each("broken", [Locked, NoSpaceToJoin, NothingDeleted])
def test_a_commit_does_not_fail_if_shards_cannot_be_joined(store, broken: Callable[[Path, object], Store]):
    one_by_one(store, range(32))
    one_by_one(broken(store.folder, store.spec), range(32, 34))
    assert served(store, *range(34))
    one_by_one(store, range(34, 35))

    assert len(store.shards()) <= 5
    assert served(store, *range(35))


def test_threads_that_commit_one_by_one_leave_few_shards_and_all_rows(store):
    store = sized(store, many=8)
    threads = [threading.Thread(target=one_by_one, args=(store, range(first, 100, 4))) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert served(store, *range(100))
    assert len(store.shards()) < 3 * 8


def test_a_read_opens_no_more_shards_after_many_commits(store, opened):
    store = sized(store, many=8)
    one_by_one(store, range(20))

    def shards_opened(number: int) -> int:
        one_by_one(store, range(number, number + 1))
        opened.clear()
        for _ in range(3):
            assert served(store, number)
            assert served(store, 3)
        return len(opened)

    before = shards_opened(1000)
    one_by_one(store, range(20, 100))
    assert shards_opened(1001) <= before == 6

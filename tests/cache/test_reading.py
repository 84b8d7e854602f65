"""Rows out of many shards: in the requested order, and from another shard if one fails."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.cache.compact import ShardSizes
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.reading import map_shards
from bottleneck.cache.recent import ShardEntry
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures
from bottleneck.utils.tree import Tree
from tests.cache.numbered import D, add, case, damage_behind_the_memo, digests, features, rows
from tests.faults import before_first
from tests.variants import each

pytestmark = pytest.mark.usefixtures("no_sync")


# --- what is read -----------------------------------------------------------------------------------------------


@given(
    shards=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8), min_size=1, max_size=6),
    order=st.lists(st.floats(0, 1, exclude_max=True), max_size=30),
    chunk_rows=st.integers(1, 8),
)
def test_rows_are_returned_in_the_requested_order_for_any_shards(spec, shards, order, chunk_rows):
    with tempfile.TemporaryDirectory() as folder:
        store = replace(FeatureCache(folder).store(spec), sizes=ShardSizes(chunk_bytes=chunk_rows * D * 4))
        for numbers in shards:
            store.commit(rows(*numbers))
        there = sorted({number for numbers in shards for number in numbers})
        wanted = [there[int(place * len(there))] for place in order]

        assert np.array_equal(store.read(digests(*wanted)), features(*wanted))
        assert store.has(digests(*range(21))).tolist() == [number in there for number in range(21)]
        assert len(store.digests()) == len(there)


def test_rows_in_any_order_over_large_shards_are_those_of_one_array(store):
    store = replace(store, sizes=ShardSizes(chunk_bytes=40 * D))  # many blocks per shard
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3000, 32), np.uint8)
    values = random.normal(size=(3000, D)).astype(np.float32)
    for part in np.array_split(random.permutation(3000), [1, 5, 300, 301, 1500, 1600, 2000, 2990]):
        store.append(images[part], values[part])

    chosen = [random.permutation(3000)[:count] for count in (1, 2, 100, 2999, 3000)]
    for wanted in (*chosen, random.integers(0, 3000, 5000), np.arange(3000)):
        assert store.read(images[wanted]).tobytes() == values[wanted].tobytes()


def test_rows_over_shards_that_are_read_at_once_are_those_of_one_array(store):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1200, 32), np.uint8)
    values = random.normal(size=(1200, 1024)).astype(np.float32)
    for part in np.array_split(random.permutation(1200), 3):  # of 1.6 MB each
        store.append(images[part], values[part])

    for wanted in (random.permutation(1200), random.integers(0, 1200, 50)):
        assert store.read(images[wanted]).tobytes() == values[wanted].tobytes()


@each("rows, at_once", [(383, False), (384, True)])
def test_shards_of_1_5_megabytes_are_processed_at_once_and_smaller_ones_in_turn(rows, at_once):
    entry = ShardEntry(np.zeros((rows, 32), np.uint8), 1024, "float32")
    index = SimpleNamespace(entries={"a": entry, "b": entry})
    both = threading.Barrier(2, timeout=10 if at_once else 0.01)

    def meets(name: str) -> tuple[str, bool]:
        with suppress(threading.BrokenBarrierError):
            both.wait()
            return name, True
        return name, False

    assert list(map_shards(meets, index.entries, index)) == [("a", at_once), ("b", at_once)]


def test_only_the_shards_that_are_needed_are_opened(store, opened):
    paths = [add(store, 2 * number, 2 * number + 1) for number in range(6)]
    assert np.array_equal(store.read(digests(7, 2, 6)), features(7, 2, 6))

    assert sorted(opened) == sorted([paths[1].stem, paths[3].stem])


def test_one_large_shard_is_opened_instead_of_many_small_ones(store, opened):
    for number in range(6):
        add(store, number)
    large = add(store, *range(6))
    assert np.array_equal(store.read(digests(*range(6))), features(*range(6)))

    assert opened == [large.stem]


def test_no_shard_is_opened_for_no_images(store, opened):
    add(store, 1)

    assert store.read(digests()).shape == (0, D)
    assert opened == []


def test_float16_is_kept_only_on_request_and_only_if_all_shards_store_it(cache, spec):
    table = (
        (("float16", "float16"), True, "float16"),
        (("float16", "float16"), False, "float32"),
        (("float16", "float32"), True, "float32"),
        (("float32", "float32"), True, "float32"),
    )
    for row, (dtypes, as_stored, expected) in enumerate(table):
        with case(dtypes, as_stored):
            store = cache.store(replace(spec, decoder=row))
            for number, dtype in enumerate(dtypes):
                add(store, number, dtype=dtype)
            found = store.read(digests(1, 0, 1), as_stored=as_stored)

            assert found.dtype == expected
            wanted = [features(number, dtype=dtypes[number])[0].astype(expected) for number in (1, 0, 1)]
            assert found.tobytes() == np.array(wanted).tobytes()


def test_what_was_read_is_the_readers_own(store):
    add(store, 1, 2)
    one, other = store.read(digests(1, 2)), store.read(digests(1, 2))
    one[:] = 0

    assert np.array_equal(other, features(1, 2))


def test_several_threads_may_read_one_store(store):
    for number in range(8):
        add(store, number, number + 100)
    wrong: list[int] = []

    def read(seed: int) -> None:
        wanted = np.random.default_rng(seed).permutation([*range(8), *range(100, 108)]).tolist()
        if not np.array_equal(store.read(digests(*wanted)), features(*wanted)):
            wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


@pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning")
@each("width", [D - 1, D + 1])
def test_shards_that_differ_in_d_are_an_error_that_names_both(store, width):
    add(store, 1)
    store.append(digests(2), np.ones((1, width), np.float32))

    with pytest.raises(CacheError, match=f"{min(D, width)} and {max(D, width)}: delete that folder"):
        store.read(digests(1))


# --- shards that fail while they are read -----------------------------------------------------------------------


def test_a_damaged_shard_is_not_returned_even_if_its_memo_fits(store):
    path = damage_behind_the_memo(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.read(digests(1, 2, 3))

    assert not path.exists()
    assert store.has(digests(1, 2, 3)).tolist() == [False, False, True]


def test_copies_of_a_damaged_shard_are_used(store):
    add(store, 1, 9), add(store, 2, 8)
    damage_behind_the_memo(store, 1, 2, 3, 4)  # the largest, which is read first
    add(store, 3, 4)

    with pytest.warns(BottleneckWarning, match="damaged"):
        assert np.array_equal(store.read(digests(4, 1, 2, 3)), features(4, 1, 2, 3))


def test_copies_that_are_damaged_too_are_missing(store):
    damage_behind_the_memo(store, 1, 2, 3), damage_behind_the_memo(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.read(digests(1, 2, 3))


def test_a_damaged_shard_that_is_not_needed_is_left_for_later(store):
    path = damage_behind_the_memo(store, 1)
    add(store, 2)

    assert np.array_equal(store.read(digests(2)), features(2))
    assert path.exists()


@each("wanted", [(1,), (4, 3, 2, 1), (5, 4, 3, 2, 1, 1)])
def test_shards_that_are_compacted_while_they_are_read_are_read_from_the_new_one(store, when_opened, wanted):
    first, second = add(store, 1, 2), add(store, 3, 4)
    add(store, 5)

    def compact() -> None:
        store.append(digests(1, 2, 3, 4), features(1, 2, 3, 4))
        store.drop(first.stem), store.drop(second.stem)

    when_opened(before_first(compact, path=first))

    assert np.array_equal(store.read(digests(*wanted)), features(*wanted))
    assert not first.exists()


def test_shards_that_were_read_are_not_read_again_for_rows_of_a_deleted_one(store, when_opened, opened):
    kept, gone = add(store, 1, 2, 3), add(store, 4)

    def compact() -> None:
        store.append(digests(4, 5), features(4, 5))
        gone.unlink()

    when_opened(before_first(compact, path=gone))

    assert np.array_equal(store.read(digests(1, 2, 3, 4)), features(1, 2, 3, 4))
    assert opened.count(kept.stem) == 1


def test_images_of_a_deleted_shard_are_missing(store, when_opened):
    path = add(store, 1, 2)
    add(store, 3)
    when_opened(before_first(path.unlink, path=path))

    with pytest.raises(MissingFeatures, match=r"of 3 .* 2 are missing"):
        store.read(digests(1, 2, 3))


def test_shards_that_are_compacted_repeatedly_are_an_error(store, when_opened, wrap):
    add(store, 1)
    others = iter(range(100, 200))
    wrap(time, "sleep", lambda call, seconds: None)

    def gone(call: Callable[..., object], path: Path, *args: object, **options: object) -> None:
        number = next(others)
        store.append(digests(1, number), features(1, number))
        Path(path).unlink()
        raise FileNotFoundError(str(path))

    when_opened(gone)

    with pytest.raises(CacheError, match=r"disappear while they are read.*Try again"):
        store.read(digests(1))
    assert next(others) < 150


def test_a_damaged_shard_that_is_written_again_before_quarantine_is_read_again(store, wrap):
    path = add(store, 1)
    whole = path.read_bytes()
    path.unlink()
    path = damage_behind_the_memo(store, 1)
    wrap(Tree, "rename", before_first(lambda: path.write_bytes(whole), path=path))

    assert np.array_equal(store.read(digests(1)), features(1))
    assert store.shards() == [path]


@each("call, with_memo", [(lambda store: store.read(digests(1, 2, 3)), True), (Store.digests, False)])
def test_a_shard_that_is_absent_for_a_moment_is_not_missing(store, when_opened, call, with_memo):
    # As when another process takes it for damaged, finds it intact in quarantine and restores it.
    path = add(store, 1, 2)
    add(store, 3)
    if not with_memo:
        os.utime(path, (1, 1))

    def away() -> None:
        raise FileNotFoundError(str(path))

    when_opened(before_first(away, path=path))

    assert len(call(store)) == 3

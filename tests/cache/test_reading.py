"""Rows out of many shards: in the order that was asked for, and from another shard where one fails."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bottleneck.cache.reading
import bottleneck.cache.shard
from bottleneck.cache.index import save_entry
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures
from bottleneck.images.digest import signature
from bottleneck.utils.tree import Tree
from tests.cache.numbered import D, add, digests, features, flip_a_feature


def when_opened(monkeypatch, path: Path, act: Callable[[], object]) -> None:
    """Do something the first time that a shard is opened to be read."""
    todo = [act]

    def open_(opened: Path, *args: object, **options: object) -> object:
        if Path(opened) == path and todo:
            todo.pop()()
        return open(opened, *args, **options)

    monkeypatch.setattr(bottleneck.cache.shard, "open", open_, raising=False)


# --- what is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_rows_in_any_order_over_many_shards_are_those_of_one_array(store, monkeypatch, threads):
    monkeypatch.setattr(bottleneck.cache.reading, "_THREADS", threads)
    monkeypatch.setattr(bottleneck.cache.shard, "_CHUNK_BYTES", 40 * D)  # many blocks a shard
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3000, 32), np.uint8)
    values = random.normal(size=(3000, D)).astype(np.float32)
    for rows in np.array_split(random.permutation(3000), [1, 5, 300, 301, 1500, 1600, 2000, 2990]):
        store.append(images[rows], values[rows])

    for count in (1, 2, 100, 2999, 3000):
        rows = random.permutation(3000)[:count]
        assert store.read(images[rows]).tobytes() == values[rows].tobytes()
    rows = random.integers(0, 3000, 5000)
    assert store.read(images[rows]).tobytes() == values[rows].tobytes()
    assert store.read(images).tobytes() == values.tobytes()


def test_only_the_shards_that_are_needed_are_opened(store, opened):
    paths = [add(store, 2 * number, 2 * number + 1) for number in range(6)]
    assert np.array_equal(store.read(digests(7, 2, 6)), features(7, 2, 6))

    assert sorted(opened) == sorted([paths[1].stem, paths[3].stem])


def test_one_large_shard_is_opened_in_place_of_many_small_ones(store, opened):
    for number in range(6):
        add(store, number)
    large = add(store, *range(6))
    assert np.array_equal(store.read(digests(*range(6))), features(*range(6)))

    assert opened == [large.stem]


def test_no_shard_is_opened_for_no_images(store, opened):
    add(store, 1)

    assert store.read(digests()).shape == (0, D)
    assert opened == []


@pytest.mark.parametrize("wanted", [(1, 1), (3, 1, 3, 2, 2, 1, 3), (2,) * 50])
def test_images_that_are_asked_for_again_are_given_again(store, wanted):
    add(store, 1, 2), add(store, 3)

    assert np.array_equal(store.read(digests(*wanted)), features(*wanted))


@pytest.mark.parametrize(
    ("dtypes", "as_stored", "expected"),
    [
        (("float16", "float16"), True, "float16"),
        (("float16", "float16"), False, "float32"),
        (("float16", "float32"), True, "float32"),
        (("float32", "float32"), True, "float32"),
    ],
)
def test_halves_stay_halves_only_when_asked_for_and_only_among_themselves(store, dtypes, as_stored, expected):
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
@pytest.mark.parametrize("width", [1, D - 1, D + 1])
def test_shards_that_disagree_on_d_are_an_error_that_names_both(store, width):
    add(store, 1)
    store.append(digests(2), np.ones((1, width), np.float32))

    with pytest.raises(CacheError, match=f"{min(D, width)} and {max(D, width)}: delete that folder"):
        store.read(digests(1))


# --- shards that fail while they are read -----------------------------------------------------------------------


def lose(store: Store, *numbers: int) -> Path:
    """Append a shard and damage it behind the back of its memo, so that only reading it tells."""
    path = add(store, *numbers)
    entry = store.index().entries[path.stem]
    flip_a_feature(path, *numbers)
    save_entry(store.folder / "index" / path.stem, signature(path.stat()), entry)
    assert store.has(digests(*numbers)).all()
    return path


def test_a_damaged_shard_is_not_served_even_where_its_memo_fits(store):
    path = lose(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning, match="damaged"), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.read(digests(1, 2, 3))

    assert not path.exists()
    assert store.has(digests(1, 2, 3)).tolist() == [False, False, True]


def test_where_a_damaged_shard_has_copies_they_are_used(store):
    add(store, 1, 9), add(store, 2, 8)
    lose(store, 1, 2, 3, 4)  # the largest, which is read first
    add(store, 3, 4)

    with pytest.warns(BottleneckWarning, match="damaged"):
        assert np.array_equal(store.read(digests(4, 1, 2, 3)), features(4, 1, 2, 3))


def test_copies_that_are_damaged_too_are_missing(store):
    lose(store, 1, 2, 3), lose(store, 1, 2)
    add(store, 3)

    with pytest.warns(BottleneckWarning), pytest.raises(MissingFeatures, match=r"of 3 .* 2 are"):
        store.read(digests(1, 2, 3))


def test_a_damaged_shard_that_is_not_needed_is_left_for_later(store):
    path = lose(store, 1)
    add(store, 2)

    assert np.array_equal(store.read(digests(2)), features(2))
    assert path.exists()


@pytest.mark.parametrize("wanted", [(1,), (1, 2), (4, 3, 2, 1), (1, 5), (5, 4, 3, 2, 1, 1)])
def test_shards_that_are_compacted_while_they_are_read_are_read_from_the_new_one(store, monkeypatch, wanted):
    first, second = add(store, 1, 2), add(store, 3, 4)
    add(store, 5)

    def compact() -> None:
        store.append(digests(1, 2, 3, 4), features(1, 2, 3, 4))
        store.drop(first.stem), store.drop(second.stem)

    when_opened(monkeypatch, first, compact)

    assert np.array_equal(store.read(digests(*wanted)), features(*wanted))
    assert not first.exists()


def test_shards_that_were_read_are_not_read_again_for_those_that_vanished(store, monkeypatch):
    kept, gone = add(store, 1, 2, 3), add(store, 4)
    opened: list[Path] = []

    def spy(path: Path, *args: object, **options: object) -> object:
        opened.append(path)
        if path == gone and gone.exists():
            store.append(digests(4, 5), features(4, 5))
            gone.unlink()
        return open(path, *args, **options)

    monkeypatch.setattr(bottleneck.cache.shard, "open", spy, raising=False)

    assert np.array_equal(store.read(digests(1, 2, 3, 4)), features(1, 2, 3, 4))
    assert opened.count(kept) == 1


def test_images_of_a_shard_that_vanishes_for_good_are_missing(store, monkeypatch):
    path = add(store, 1, 2)
    add(store, 3)
    when_opened(monkeypatch, path, path.unlink)

    with pytest.raises(MissingFeatures, match=r"of 3 .* 2 are missing"):
        store.read(digests(1, 2, 3))


def test_shards_that_are_compacted_away_over_and_over_are_given_up_on(store, monkeypatch):
    add(store, 1)
    others = iter(range(100, 200))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def gone(path: Path, *args: object, **options: object) -> None:
        number = next(others)
        store.append(digests(1, number), features(1, number))
        Path(path).unlink()
        raise FileNotFoundError(str(path))

    monkeypatch.setattr(bottleneck.cache.shard, "open", gone, raising=False)

    with pytest.raises(CacheError, match=r"disappear while they are read.*Try again"):
        store.read(digests(1))
    assert next(others) < 150


def test_a_shard_that_is_whole_again_when_it_is_looked_at_is_read_again(store, monkeypatch):
    path = add(store, 1)
    whole = path.read_bytes()
    path.unlink()
    path = lose(store, 1)
    rename = Tree.rename

    def after_another_wrote(tree: Tree, source: Path, target: Path, **options: bool) -> Path:
        if source == path:
            path.write_bytes(whole)
        return rename(tree, source, target, **options)

    monkeypatch.setattr(Tree, "rename", after_another_wrote)

    assert np.array_equal(store.read(digests(1)), features(1))
    assert store.shards() == [path]


@pytest.mark.parametrize(
    ("ask", "remembered"),
    [(lambda store: store.read(digests(1, 2, 3)), True), (Store.digests, False)],
    ids=["read", "digests"],
)
def test_a_shard_that_is_away_for_a_moment_is_not_missing(store, monkeypatch, ask, remembered):
    # As one is that another process takes for damaged, finds whole in quarantine and puts back.
    path = add(store, 1, 2)
    add(store, 3)
    if not remembered:
        os.utime(path, (1, 1))

    def away() -> None:
        raise FileNotFoundError(str(path))

    when_opened(monkeypatch, path, away)

    assert len(ask(store)) == 3

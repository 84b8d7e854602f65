"""What is to be done for a set of images: which files are read, in what order, and by which of several processes."""

from itertools import pairwise
from pathlib import Path

import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import ImagesError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.items import Item, items_of
from bottleneck.extraction.job import Limits
from bottleneck.extraction.memory import LEAST_MEMORY
from bottleneck.images.digest import read_file
from bottleneck.images.file_index import FileIndex
from bottleneck.images.scan import scan
from tests import tiny
from tests.conftest import photo
from tests.extraction.conftest import found_in, many
from tests.variants import each


def digest(seed: int) -> bytes:
    return tiny.digest(photo(seed)).tobytes()


def items(
    found: FileIndex, store: Store, known: set[bytes] = frozenset(), share: tuple[int, int] = (0, 1)
) -> list[Item]:
    return items_of(found, Claims(store.index(), known), share)


def by_row(found: list[Item]) -> list[Item]:
    return sorted(found, key=lambda item: item.rows[0])


def unknown(count: int) -> FileIndex:
    """Return the survey of so many files that nobody has read, and that need not be there."""
    Path("one.jpg").write_bytes(b"x")
    found = found_in(Path("one.jpg"))
    found.found.paths[:] = [f"{number:05}.jpg" for number in range(count)]
    found.digests[:] = [None] * count
    return found


@each("memory", [0, -1, LEAST_MEMORY - 1, float("nan"), float("inf"), 1e9 + 0.5, "2G", True])
def test_a_memory_that_is_too_small_or_no_number_is_refused(memory):
    with pytest.raises(ImagesError, match="expected --memory to be"):
        Limits(memory=memory)


def test_processes_of_one_machine_divide_the_memory():
    assert Limits(memory=10**9).divided(4).memory == 250_000_000
    assert Limits(memory=LEAST_MEMORY).divided(4).memory == LEAST_MEMORY
    assert Limits().divided(4, lambda: 16 << 30).memory == (2 << 30)  # each has a network, which takes 1 GiB


def test_each_unknown_file_is_an_item_though_it_may_be_a_copy(folder, store):
    found = found_in(folder({"a.jpg": 1, "b.jpg": 1, "c.jpg": 2}))

    assert by_row(items(found, store)) == [Item([0], None), Item([1], None), Item([2], None)]


def test_known_images_without_features_are_one_item_with_all_their_rows(folder, store):
    dataset = scan(folder({"a.jpg": 1, "b.jpg": 2, "c.jpg": 1, "d.jpg": 3, "e.jpg": 1}), labels=False)

    assert by_row(items(FileIndex.of(dataset), store)) == [
        Item([0, 2, 4], digest(1)),
        Item([1], digest(2)),
        Item([3], digest(3)),
    ]


def test_images_with_features_and_images_that_need_not_be_tried_are_no_items(folder, store):
    dataset = scan(folder(many(6)), labels=False)
    store.append(tiny.digest(photo(2)), tiny.features(photo(2)))

    found = items(FileIndex.of(dataset), store, {digest(4), digest(99)})
    assert [item.rows for item in by_row(found)] == [[0], [1], [3], [5]]


def test_known_and_unknown_files_stand_together(folder, store):
    images = folder({"a.jpg": 1, "c.jpg": 2})
    scan(images, labels=False, cache="cache")
    folder({"b.jpg": 3})

    found = by_row(items(found_in(images), store))
    assert [(item.rows, item.digest) for item in found] == [([0], digest(1)), ([1], None), ([2], digest(2))]


def test_nothing_to_do_is_no_items(store):
    assert items(unknown(0), store) == []
    assert items(unknown(0), store, share=(1, 3)) == []


@each("count, block", [(64, 4), (100, 6), (10_000, 256), (15, 1)])
def test_neighbours_are_read_together_in_blocks_whose_order_is_left_to_chance(store, count, block):
    found = unknown(count)
    orders = [[item.rows[0] for item in items(found, store)] for _ in range(2)]

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(count))
    assert orders[0] != orders[1]
    for order in orders:
        starts = [0, *(place + 1 for place, (one, two) in enumerate(pairwise(order)) if two != one + 1)]
        assert all(order[start] % block == 0 for start in starts)


def test_the_size_of_a_block_is_limited(store):
    order = [item.rows[0] for item in items_of(unknown(300), Claims(store.index(), set()), (0, 1), block=3)]
    jumps = sum(two != one + 1 for one, two in pairwise(order))

    assert sorted(order) == list(range(300))
    assert jumps >= 80  # of 99: by chance some blocks follow their neighbours


@each("count", [0, 1, 2, 15, 16, 17, 100, 1000])
@each("processes", [1, 2, 3, 8])
def test_shares_are_disjoint_and_complete(store, count, processes):
    found = unknown(count)
    shares = [[item.rows[0] for item in items(found, store, share=(i, processes))] for i in range(processes)]

    assert sorted(row for share in shares for row in share) == list(range(count))
    if count >= 16:
        assert max(map(len, shares)) <= count / processes + max(1, count // 16)


def test_a_share_is_the_same_each_time(store):
    found = unknown(200)

    one, again, other = ({item.rows[0] for item in items(found, store, share=(i, 3))} for i in (1, 1, 2))
    assert one == again
    assert not one & other


def test_processes_that_share_the_images_compute_each_once(folder, store, go):
    images = folder(many(40))
    done = []
    for place in range(3):  # each sees the images as they were before the others began
        done.append(go(images, FeatureCache(f"cache-{place}").store(tiny.SPEC), share=(place, 3)).computed)

    assert sum(map(len, done)) == 40
    assert len(set().union(*done)) == 40


def test_processes_begin_in_different_places_and_go_on_through_neighbours(folder, tools, go):
    images = folder({f"{number:03}.jpg": b"x" for number in range(64)})
    orders = []
    for cache in ("one", "two"):
        names: list[str] = []
        tools.update(
            readers=1, read_file=lambda path, *_, names=names: names.append(Path(path).name) or read_file(path)
        )
        go(found_in(images), FeatureCache(cache).store(tiny.SPEC), threads=1)
        orders.append([int(name[:3]) for name in names])
        Path("cache/digests.sqlite").unlink()

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] != orders[1]
    for order in orders:
        assert sum(later == earlier + 1 for earlier, later in pairwise(order)) >= 64 - 16

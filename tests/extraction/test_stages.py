"""The threads that read, decode and compute: what each hands on, and how all of them end."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import ImageError
from bottleneck.extraction.claims import Claims
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.items import Item
from bottleneck.extraction.job import Limits
from bottleneck.extraction.memory import LEAST_MEMORY, MemoryBudget
from bottleneck.extraction.plan import EngineStart
from bottleneck.extraction.queues import Cancelled
from bottleneck.extraction.stages import THREADS, Computed, Crashed, Read, Stages
from bottleneck.images.decode import decode
from tests import tiny
from tests.conftest import photo
from tests.extraction.conftest import ONE_FILE, PIXELS, many, soon, steady
from tests.tiny import TinyEngine


def digest(seed: int) -> bytes:
    return tiny.digest(photo(seed)).tobytes()


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


@pytest.fixture
def begun(store, tools):
    """Return a function that begins to read and decode items; all threads are stopped in the end."""
    all_of_them: list[Stages] = []

    def begin(
        images: Path,
        items: list[Item],
        known: set[bytes] = frozenset(),
        threads: int = 2,
        memory: MemoryBudget | None = None,
    ) -> Stages:
        paths = [str(path) for path in sorted(images.iterdir())]
        claims, memory = Claims(store.index(), known), memory or MemoryBudget(LEAST_MEMORY)
        limits = Limits(threads=threads, max_pixels=10_000)
        found = Stages(paths, limits, Collaborators(**tools), tiny.PREPROCESSING, claims, memory)
        all_of_them.append(found)
        found.read(items)
        return found

    yield begin
    for found in all_of_them:
        found.stop(5)


def unknown(count: int) -> list[Item]:
    return [Item([row], None) for row in range(count)]


def take(found: Stages, count: int) -> list[Read | Computed | Crashed]:
    return [found.events.get() for _ in range(count)]


def test_of_each_item_comes_one_event(folder, begun, store):
    cut = photo(1, size=(120, 80))[:1500]
    files = {"a.jpg": 1, "b.jpg": 2, "c.jpg": 1, "d.jpg": b"", "e.jpg": cut, "f.jpg": photo(3, size=(200, 100))}
    store.append(tiny.digest(photo(2)), tiny.features(photo(2)))
    found = begun(folder(files), unknown(6))
    events = {event.item.rows[0]: event for event in take(found, 6)}

    assert events.keys() == set(range(6))
    assert [events[row].has_pixels for row in (1, 3, 4, 5)] == [False] * 4
    assert sorted([events[0].has_pixels, events[2].has_pixels]) == [False, True]  # copies: one is decoded
    assert (events[1].digest, events[1].has_pixels, events[1].problem) == (digest(2), False, None)
    assert (events[3].problem.code, events[3].digest) == ("empty", b"")
    assert [events[row].undecodable.code for row in (4, 5)] == ["truncated", "too-large"]
    assert events[4].digest == tiny.digest(cut).tobytes()
    assert found.events._items == found._pixels._items.__class__()  # no more events


def test_an_event_has_all_that_the_memo_of_digests_needs(folder, begun):
    images = folder({"a.jpg": 1})
    before = time.time()
    (event,) = take(begun(images, unknown(1)), 1)

    status = (images / "a.jpg").stat()
    assert (event.row, event.digest) == (0, digest(1))
    assert event.signature == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert before <= event.when <= time.time()
    assert event.has_pixels


def test_a_known_item_is_read_from_the_first_of_its_rows_that_holds_it(folder, begun):
    images = folder({"a.jpg": 9, "b.jpg": b"", "c.jpg": 1, "d.jpg": 1})
    (event,) = take(begun(images, [Item([0, 1, 2, 3], digest(1))]), 1)

    assert (event.row, event.digest, event.has_pixels) == (2, digest(1), True)


@pytest.mark.parametrize(("rows", "code"), [([0], "changed"), ([1], "empty"), ([1, 0], "changed"), ([0, 1], "empty")])
def test_a_known_item_that_no_row_holds_is_a_problem(folder, begun, rows, code):
    images = folder({"a.jpg": 9, "b.jpg": b""})
    (event,) = take(begun(images, [Item(rows, digest(1))]), 1)

    assert (event.problem.code, event.has_pixels, event.undecodable) == (code, False, None)


def test_a_known_item_with_features_is_not_even_read(folder, begun, store, reads):
    store.append(tiny.digest(photo(1)), tiny.features(photo(1)))
    (event,) = take(begun(folder({"a.jpg": 1}), [Item([0], digest(1))]), 1)

    assert (event.signature, event.problem, event.has_pixels) == (None, None, False)
    assert not reads


def test_the_engine_is_shown_some_of_the_images_and_computes_all(folder, begun):
    samples: list[np.ndarray] = []
    found = begun(folder(many(10)), unknown(10))
    take(found, 10)
    engine = TinyEngine(4)
    found.start(lambda sample: EngineStart(samples.append(sample()) or engine))
    assert take(found, 1) == [EngineStart(engine)]
    found.compute(engine)
    batches = take(found, 3)

    known = {decode(photo(seed), tiny.PREPROCESSING).pixels.tobytes() for seed in range(10)}
    assert samples[0].shape == (8, 12, 12, 3)
    assert {pixels.tobytes() for pixels in samples[0]} <= known
    assert len({pixels.tobytes() for pixels in samples[0]}) == 8
    assert sorted(digest for batch in batches for digest in batch.digests) == sorted(digest(n) for n in range(10))


def test_an_engine_that_cannot_be_started_is_an_event(folder, begun):
    def nothing(sample: object) -> TinyEngine:
        raise LookupError("no engine")

    found = begun(folder(many(3)), unknown(3))
    take(found, 3)
    found.start(nothing)

    (event,) = take(found, 1)
    assert isinstance(event, Crashed)
    assert isinstance(event.error, LookupError)


def test_of_each_batch_come_its_digests_and_their_features(folder, begun):
    found = begun(folder(many(6)), unknown(6))
    take(found, 6)
    found.compute(TinyEngine(4))
    batches = take(found, 2)

    assert [batch.count for batch in batches] == [4, 2]
    rows = {key: row.tobytes() for batch in batches for key, row in zip(batch.digests, batch.features, strict=True)}
    assert rows == {digest(number): tiny.features(photo(number)).tobytes() for number in range(6)}


def test_what_others_have_committed_is_left_out_of_a_batch_and_counted(folder, begun, store):
    found = begun(folder(many(8)), unknown(8))
    take(found, 8)
    for seed in (0, 3):
        FeatureCache("cache").store(store.spec).append(tiny.digest(photo(seed)), tiny.features(photo(seed)))
    found._claims.index.refresh()
    engine = TinyEngine(8)
    found.compute(engine)
    (batch,) = take(found, 1)

    assert (batch.count, engine.batches) == (8, [6])
    assert sorted(batch.digests) == sorted(digest(seed) for seed in (1, 2, 4, 5, 6, 7))
    assert batch.features.shape == (6, tiny.DIM)


def test_a_batch_that_others_have_committed_whole_does_not_reach_the_engine(folder, begun, store):
    found = begun(folder(many(4)), unknown(4))
    take(found, 4)
    for seed in range(4):
        FeatureCache("cache").store(store.spec).append(tiny.digest(photo(seed)), tiny.features(photo(seed)))
    found._claims.index.refresh()
    engine = TinyEngine(4)
    found.compute(engine)

    assert take(found, 1) == [Computed(4, [], None)]
    assert engine.batches == []


@pytest.mark.parametrize("what", ["read_file", "decode"])
def test_an_unexpected_error_is_an_event(folder, begun, tools, what):
    error = ZeroDivisionError("a mistake of ours")

    def broken(*args: object) -> object:
        raise error

    tools[what] = broken
    (event,) = take(begun(folder({"a.jpg": 1}), unknown(1)), 1)

    assert event == Crashed(error)


def test_an_error_of_the_engine_is_an_event(folder, begun):
    def stop() -> None:
        raise ZeroDivisionError("a mistake of ours")

    found = begun(folder({"a.jpg": 1}), unknown(1))
    take(found, 1)
    found.compute(TinyEngine(before=stop))

    (event,) = take(found, 1)
    assert isinstance(event, Crashed)
    assert isinstance(event.error, ZeroDivisionError)


def test_errors_of_images_are_no_crashes(folder, begun, tools):
    def refuse(*args: object) -> object:
        raise ImageError("corrupt", "not today")

    tools["decode"] = refuse
    events = take(begun(folder(many(12)), unknown(12)), 12)

    assert [event.undecodable.code for event in events] == ["corrupt"] * 12


def test_threads_end_when_there_is_no_more_to_do(folder, begun):
    found = begun(folder(many(6)), unknown(6))
    take(found, 6)
    found.compute(TinyEngine(4))
    take(found, 2)

    assert soon(lambda: not running())


def test_no_more_files_are_read_by_more_threads_than_there_are_files(folder, begun, gate, tools):
    tools["read_file"] = lambda path, *_: gate.wait(20)
    begun(folder(many(3)), unknown(3))

    assert sum("read" in name for name in running()) == 3


def test_stopped_threads_that_wait_for_one_another_end(folder, begun, reads, limited):
    found = begun(folder(many(30)), unknown(30), memory=limited(files=ONE_FILE, pixels=PIXELS))
    assert 0 < steady(lambda: sum(reads.values())) < 30
    found.stop(5)

    assert not running()
    with pytest.raises(Cancelled):
        found.events.get()


def test_a_thread_that_cannot_end_is_waited_for_so_long_and_no_longer(folder, begun, tools, gate):
    tools["read_file"] = lambda path, *_: gate.wait(20)
    found = begun(folder(many(3)), unknown(3))
    started = time.monotonic()
    found.stop(0.2)

    assert 0.2 <= time.monotonic() - started < 0.6
    assert len(running()) == 3
    assert all(thread.daemon for thread in threading.enumerate() if thread.name in running())


@pytest.mark.parametrize(("sizes", "together"), [((60, 60), 2), ((100, 60), 1), ((60, 100), 1)])
def test_large_images_are_decoded_one_at_a_time(folder, begun, tools, limited, gate, sizes, together):
    inside: list[int] = []

    def spy(data: bytes, preprocessing: object, max_pixels: int, room: object) -> object:
        with room(max(sizes) * 1000 if len(data) == max(map(len, contents)) else min(sizes) * 1000):
            inside.append(1)
            gate.wait(20)
        return decode(data, preprocessing, max_pixels)

    contents = [photo(1), photo(2) + b"longer"]
    tools["decode"] = spy
    memory = limited(decoding=120_000 + sum(map(len, contents)))
    found = begun(folder({"a.jpg": contents[0], "b.jpg": contents[1]}), unknown(2), memory=memory)

    assert steady(lambda: len(inside)) == together
    gate.set()
    assert len(take(found, 2)) == 2


def test_features_belong_to_their_image_in_any_batch(folder, begun):
    found = begun(folder(many(5)), unknown(5), threads=3)
    take(found, 5)
    engine = TinyEngine(2)
    engine.parallel = 3
    found.compute(engine)

    batches = take(found, 3)
    for batch in batches:
        for key, row in zip(batch.digests, batch.features, strict=True):
            seed = next(seed for seed in range(5) if digest(seed) == key)
            assert np.array_equal(row, tiny.features(photo(seed))[0])


def test_store_is_only_read(folder, begun, store: Store):
    found = begun(folder(many(4)), unknown(4))
    take(found, 4)
    found.compute(TinyEngine(4))
    take(found, 1)

    assert store.shards() == []

"""The way of an image into the cache: read, decoded and computed once, and by one process where several work."""

import gc
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.extraction.collaborators import Collaborators
from bottleneck.extraction.commits import CommitPace
from bottleneck.extraction.job import Outcomes
from bottleneck.extraction.memory import size_waiting
from bottleneck.extraction.sample import SAMPLE, spread_rows
from bottleneck.extraction.stages import THREADS
from bottleneck.images.dataset import Dataset
from bottleneck.images.decode import decode
from bottleneck.images.digest import read_file
from bottleneck.images.file_index import FileIndex
from bottleneck.images.scan import scan
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.images.view import View
from tests import tiny
from tests.conftest import photo, write
from tests.extraction.conftest import (
    ONE_FILE,
    PIXELS,
    WHOLE,
    Tools,
    broken,
    by_digest,
    ends,
    expected,
    found_in,
    in_a_thread,
    many,
    soon,
    steady,
)
from tests.tiny import TinyEngine
from tests.variants import each


def forbidden(sample: object) -> TinyEngine:
    raise AssertionError("the engine was asked for")


# --- once -------------------------------------------------------------------------------------------------------


@each("threads", [1, 4])
@each("batch_size", [1, 4, 100])
def test_every_image_gets_its_own_features(folder, store, threads, batch_size, go):
    outcomes = go(folder(many(21)), store, TinyEngine(batch_size), threads=threads)

    assert (len(outcomes.computed), outcomes.undecodable, outcomes.unread) == (21, {}, {})
    assert by_digest(store) == expected(*range(21))


def test_views_have_their_own_store_and_depend_on_the_image_alone(folder, store, go):
    view = View(augmentation="strong", seed=0, number=1)
    preprocessing = replace(tiny.PREPROCESSING, view=view)
    spec = replace(tiny.SPEC, preprocessing=preprocessing)
    found = []
    for threads, files in ((1, many(21)), (4, {f"{99 - seed}.jpg": seed for seed in range(21)})):
        views = FeatureCache(f"cache-{threads}").store(spec)
        go(folder(files, str(threads)), views, threads=threads)
        found.append(by_digest(views))

    pixels = {seed: decode(photo(seed), preprocessing).pixels[None] for seed in range(21)}
    assert found[0] == {tiny.digest(photo(seed)).tobytes(): TinyEngine()(pixels[seed]).tobytes() for seed in pixels}
    assert found[1] == found[0]
    assert [one.spec for one in FeatureCache("cache-1").stores()] == [spec]
    assert views.folder.name != store.folder.name


def test_every_file_is_read_exactly_once(folder, store, reads, wrap, go):
    images = folder({**many(21), "page.jpg": b"<html>", "copy.jpg": 3})
    opened: Counter[str] = Counter()

    def spy(call: Callable[..., int], path: str, *args: object, **options: object) -> int:
        opened[Path(path).name] += str(path).endswith(".jpg")
        return call(path, *args, **options)

    wrap(os, "open", spy)
    go(images, store)

    names = {path.name: 1 for path in images.iterdir()}
    assert dict(reads) == names
    assert dict(+opened) == names


def test_digest_and_pixels_come_from_the_same_bytes(folder, store, tools, go):
    images = folder({"a.jpg": 1})
    contents = iter([photo(10), photo(11), photo(12)])  # a file that changes whenever it is looked at
    tools["read_file"] = lambda path, *_: (next(contents), read_file(path)[1])
    found = found_in(images)
    go(found, store)

    assert found.digests == [tiny.digest(photo(10)).tobytes()]
    assert by_digest(store) == expected(10)


def test_copies_are_decoded_and_computed_once(folder, store, decodes, go):
    engine = TinyEngine()
    images = folder({**many(5), **{f"copy-{number}.jpg": 2 for number in range(9)}})
    outcomes = go(images, store, engine)

    assert (len(outcomes.computed), sum(engine.batches)) == (5, 5)
    assert set(decodes.values()) == {1}
    assert len(decodes) == 5


def test_copies_whose_digests_are_known_are_read_once(folder, store, reads, go):
    images = folder({"a.jpg": 1, "b.jpg": 1, "c.jpg": 1, "d.jpg": 2})
    go(FileIndex.of(scan(images, labels=False)), store)

    assert sum(reads.values()) == 2
    assert by_digest(store) == expected(1, 2)


def test_images_with_features_are_neither_read_nor_decoded_again(folder, store, reads, decodes, go):
    images = folder(many(6))
    go(images, store)
    reads.clear(), decodes.clear()
    outcomes = go(images, store, start=forbidden)

    assert len(outcomes.computed) == 0
    assert not reads
    assert not decodes


def test_unknown_files_whose_images_have_features_are_read_and_not_decoded(folder, store, reads, decodes, go):
    go(folder(many(6)), store)
    reads.clear(), decodes.clear()
    outcomes = go(folder(many(6), name="moved"), store, start=forbidden)

    assert len(outcomes.computed) == 0
    assert sum(reads.values()) == 6
    assert not decodes


def test_the_engine_is_not_started_when_nothing_is_to_be_computed(folder, store, go):
    outcomes = go(folder({"a.jpg": b"<html>", "b.jpg": b""}), store, start=forbidden)

    assert [error.code for error in outcomes.undecodable.values()] == ["not-an-image"]


# --- the choice of an engine ------------------------------------------------------------------------------------


@each("count, sampled", [(1, 1), (3, 3), (8, 8), (30, 8)])
def test_the_engine_is_started_with_images_that_are_computed_too(folder, store, count, sampled, go):
    samples: list[np.ndarray] = []
    engine = TinyEngine()
    images = folder({**many(count), "page.jpg": b"<html>"}, f"images-{count}")
    go(images, store, start=lambda sample: samples.append(sample()) or engine)

    (sample,) = samples
    assert (sample.dtype, sample.shape) == (np.uint8, (sampled, 12, 12, 3))
    known = {decode(photo(seed), tiny.PREPROCESSING).pixels.tobytes() for seed in range(count)}
    assert len({pixels.tobytes() for pixels in sample} & known) == sampled
    assert sum(engine.batches) == count
    assert by_digest(store) == expected(*range(count))


def test_the_sample_is_what_has_come_where_hardly_a_file_is_an_image(folder, store, go):
    samples: list[np.ndarray] = []
    files = {f"{number:03}.jpg": b"<html>" for number in range(300)}
    rows = sorted(set(range(300)) - set(spread_rows(300, 64)))
    files.update({f"{row:03}.jpg": row for row in rows})
    found = found_in(folder(files))
    waits = threading.Event()

    def start(sample: Callable[[], np.ndarray]) -> TinyEngine:
        waits.wait(0.5)  # until many have come
        samples.append(sample())
        return TinyEngine()

    go(found, store, start=start)

    assert 1 <= len(samples[0]) <= SAMPLE
    assert by_digest(store) == expected(*rows)


def test_images_are_not_decoded_for_an_unused_sample(folder, store, decodes, go):
    go(folder(many(3)), store)

    assert sorted(decodes.values()) == [1, 1, 1]
    assert by_digest(store) == expected(0, 1, 2)


def test_without_an_engine_the_pass_ends_and_the_digests_are_remembered(folder, store, reads, go):
    def nothing(sample: object) -> TinyEngine:
        raise LookupError("no engine")

    found = found_in(folder({"a.jpg": b"<html>", **many(20)}))
    with pytest.raises(LookupError, match="no engine"):
        go(found, store, start=nothing)

    assert store.shards() == []
    assert not running()
    again = found_in(found.source)
    assert [digest for digest in again.digests if digest] == [digest for digest in found.digests if digest]


class Closing(TinyEngine):
    """An engine that counts how often it was closed, and fails at one of its batches."""

    def __init__(self, fails_at: int) -> None:
        super().__init__(before=self._maybe)
        self.closed = 0
        self._fails_at = fails_at

    def _maybe(self) -> None:
        assert not self.closed
        if len(self.batches) == self._fails_at:
            raise RuntimeError("out of order")

    def close(self) -> None:
        self.closed += 1


def test_the_engine_is_closed_in_the_end(folder, store, go):
    engine = Closing(fails_at=-1)
    go(folder(many(10)), store, engine)

    assert engine.closed == 1


def test_an_engine_that_fails_is_closed_too(folder, store, go):
    engine = Closing(fails_at=2)
    with pytest.raises(RuntimeError, match="out of order"):
        go(folder(many(20)), store, engine)

    assert engine.closed == 1


@each("parallel", [1, 2, 3])
@each("count", [1, 4, 21, 24])
def test_at_most_one_batch_is_partial_however_many_are_computed_at_once(folder, store, parallel, count, go):
    engine = TinyEngine()
    engine.parallel = parallel
    go(folder(many(count), f"images-{count}"), store, engine, threads=2)

    left = [count % 4] if count % 4 else []
    assert sorted(engine.batches) == left + [4] * (count // 4)
    assert by_digest(store) == expected(*range(count))


@each("parallel", [1, 2, 3])
def test_the_engine_is_called_from_as_many_threads_as_it_requests(folder, store, parallel, go):
    barrier = threading.Barrier(parallel, timeout=10)  # passed when so many wait at it
    names: set[str] = set()
    engine = TinyEngine(before=lambda: names.add(threading.current_thread().name) or barrier.wait())
    engine.parallel = parallel
    go(folder(many(24)), store, engine)

    assert len(names) == parallel
    assert not running()


# --- images that cannot be used ---------------------------------------------------------------------------------


def test_undecodable_images_are_reported_by_digest_and_unreadable_files_by_path(folder, store, go):
    cut = photo(1, size=(300, 200))[:2000]
    images = folder({"a.jpg": 1, "cut.jpg": cut, "copy.jpg": cut, "empty.jpg": b""})
    found = found_in(images)
    outcomes = go(found, store)

    assert {key: error.code for key, error in outcomes.undecodable.items()} == {tiny.digest(cut).tobytes(): "truncated"}
    assert [(Path(failure.path).name, failure.code) for failure in found.dataset().failures] == [("empty.jpg", "empty")]
    assert by_digest(store) == expected(1)


@each("forget", ["nothing", "the table", "the memo"])
def test_what_is_known_to_be_undecodable_is_not_read_again_until_it_is_forgotten(folder, store, reads, forget, go):
    memo = UndecodableMemo("cache/digests.sqlite")
    images = folder({"a.jpg": 1, "page.jpg": b"<html>", "cut.jpg": photo(1, size=(300, 200))[:2000]})
    memo.remember(go(images, store, known=memo.load()).undecodable)
    reads.clear()
    if forget == "the table":
        with sqlite3.connect("cache/digests.sqlite") as connection:
            connection.execute("drop table undecodable_3")
        connection.close()
    elif forget == "the memo":
        Path("cache/digests.sqlite").unlink()
    outcomes = go(images, store, known=memo.load())

    again = {"nothing": [], "the table": ["cut.jpg", "page.jpg"], "the memo": ["a.jpg", "cut.jpg", "page.jpg"]}
    assert sorted(reads) == again[forget]
    assert len(outcomes.undecodable) == (0 if forget == "nothing" else 2)


def test_what_is_known_to_be_undecodable_is_not_decoded_under_another_name_either(folder, store, reads, decodes, go):
    known = go(folder({"page.jpg": b"<html>"}), store).undecodable
    reads.clear(), decodes.clear()
    outcomes = go(folder({"renamed.jpg": b"<html>"}, name="others"), store, known=known, start=forbidden)

    assert reads == {"renamed.jpg": 1}
    assert not decodes
    assert outcomes.undecodable == {}


def test_an_image_that_is_too_large_is_tried_again_with_a_larger_limit(folder, store, go):
    memo = UndecodableMemo("cache/digests.sqlite")
    images = folder({"small.jpg": 1, "large.jpg": photo(2, size=(200, 200))})
    refused = go(images, store, known=memo.load(), max_pixels=10_000)
    memo.remember(refused.undecodable)
    accepted = go(images, store, known=memo.load(), max_pixels=40_000)

    assert (len(refused.computed), [error.code for error in refused.undecodable.values()]) == (1, ["too-large"])
    assert (len(accepted.computed), accepted.undecodable) == (1, {})


def pictures() -> int:
    """Return how many pictures of Pillow's are in memory."""
    gc.collect()
    return sum(issubclass(type(found), Image.Image) for found in gc.get_objects())


def test_nothing_of_an_image_that_cannot_be_decoded_stays_in_memory_but_the_reason(folder, store, go):
    Image.init()  # one of Pillow's own modules holds a picture
    before = pictures()
    outcomes = go(folder({f"{number}.jpg": photo(number, size=(300, 200))[:2000] for number in range(9)}), store)

    assert len(outcomes.undecodable) == 9
    assert pictures() == before


class NaNs(TinyEngine):
    """An engine that gives one value that is not finite in each of these batches."""

    def __init__(self, batches: set[int], value: float) -> None:
        super().__init__()
        self._wrong, self._value = batches, value

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        features = super().__call__(pixels)
        if len(self.batches) - 1 in self._wrong:
            features[len(pixels) // 2, 3] = self._value
        return features


@each("value", [np.nan, np.inf, -np.inf])
@each("batches", [{0}, {1}, {0, 1, 2}])
def test_rows_that_are_not_finite_are_reported_and_the_rest_of_their_batch_is_kept(folder, store, batches, value, go):
    outcomes = go(folder(many(12)), store, NaNs(batches, value))

    assert len(outcomes.computed) == 12 - len(batches)
    assert [error.code for error in outcomes.undecodable.values()] == ["not-finite"] * len(batches)
    kept = by_digest(store)
    assert not kept.keys() & outcomes.undecodable.keys()
    assert kept == {key: row for key, row in expected(*range(12)).items() if key not in outcomes.undecodable}


def test_a_batch_without_one_finite_row_is_no_error(folder, store, go):
    engine = NaNs({0}, np.nan)
    engine.batch_size = 1
    outcomes = go(folder(many(1)), store, engine)

    assert (len(outcomes.computed), len(outcomes.undecodable)) == (0, 1)
    assert store.shards() == []


def test_a_known_image_that_is_gone_or_has_changed_is_a_failure_with_its_digest(folder, store, go):
    images = folder({"a.jpg": 1, "b.jpg": 2, "c.jpg": 3})
    dataset = scan(images, labels=False)
    (images / "a.jpg").unlink()
    write(images / "b.jpg", photo(9))
    outcomes = go(FileIndex.of(dataset), store)

    assert {digest: error.code for digest, error in outcomes.unread.items()} == {
        tiny.digest(photo(1)).tobytes(): "unreadable",
        tiny.digest(photo(2)).tobytes(): "changed",
    }
    assert by_digest(store) == expected(3)


def test_a_known_image_is_read_from_whichever_of_its_paths_still_holds_it(folder, store, go):
    images = folder({"a.jpg": 1, "b.jpg": 1, "c.jpg": 1})
    dataset = scan(images, labels=False)
    (images / "a.jpg").unlink()
    write(images / "b.jpg", photo(9))
    outcomes = go(FileIndex.of(dataset), store)

    assert (len(outcomes.computed), outcomes.unread) == (1, {})
    assert by_digest(store) == expected(1)


def test_several_frames_are_noted(folder, store, go):
    frames = [np.full((20, 20, 3), level, np.uint8) for level in (0, 255)]
    buffer = BytesIO()
    first, second = map(Image.fromarray, frames)
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    outcomes = go(folder({"a.jpg": 1, "b.jpg": buffer.getvalue()}), store)

    assert len(outcomes.computed) == 2
    assert list(outcomes.notes) == [tiny.digest(buffer.getvalue()).tobytes()]


# --- beside other processes -------------------------------------------------------------------------------------


def commit(store: Store, *seeds: int) -> None:
    """Do what another process does."""
    rows = [(tiny.digest(photo(seed)), tiny.features(photo(seed))) for seed in seeds]
    FeatureCache("cache").store(store.spec).append(*map(np.concatenate, zip(*rows, strict=True)))


@pytest.fixture
def others_commit(store, tools) -> TinyEngine:
    """Return an engine before whose first batch another process commits 60 images; what is new is looked at always."""
    tools["refresh_seconds"] = 0.0
    once = [lambda: commit(store, *range(60))]
    return TinyEngine(before=lambda: once.pop()() if once else None)


@pytest.fixture
def tight(tools, limited) -> None:
    """Let one file and one image wait between two stages."""
    tools["readers"] = 1
    limited(files=ONE_FILE, pixels=PIXELS)


# In the first batch of the engine 4, at most as many on the way: a file and an image wait, and each thread holds one.
AHEAD = 4 + 4


@pytest.mark.usefixtures("tight")
def test_images_that_another_process_commits_are_not_computed_again(folder, store, others_commit, go):
    outcomes = go(folder(many(60)), store, others_commit, threads=1)

    assert others_commit.batches[0] == 4
    assert sum(others_commit.batches) == len(outcomes.computed) <= AHEAD
    assert by_digest(store) == expected(*range(60))


@pytest.mark.usefixtures("tight")
def test_known_images_that_another_process_commits_are_not_read(folder, store, others_commit, reads, go):
    dataset = scan(folder(many(60)), labels=False)
    seen: list[tuple[str, int, int]] = []
    go(FileIndex.of(dataset), store, others_commit, threads=1, progress=lambda *event: seen.append(event))

    assert sum(reads.values()) <= AHEAD
    assert seen[-1] == ("extract", 60, 60)
    assert by_digest(store) == expected(*range(60))


def test_images_that_another_process_commits_after_all_files_were_read_are_not_computed_again(
    folder, store, others_commit, reads, go
):
    first = others_commit._before
    others_commit._before = lambda: soon(lambda: len(reads) == 60) and first()
    outcomes = go(folder(many(60)), store, others_commit, threads=1)

    assert len(outcomes.computed) <= 8


@pytest.mark.usefixtures("tight")
def test_without_a_look_at_other_processes_all_images_are_computed(folder, store, others_commit, tools, go):
    tools["refresh_seconds"] = 1000.0
    outcomes = go(folder(many(60)), store, others_commit, threads=1)

    assert len(outcomes.computed) == 60


# --- side by side -----------------------------------------------------------------------------------------------


def running() -> list[str]:
    """Return the threads of a pipeline that have not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(THREADS)]


def blocks(tools: Tools, what: str, seed: int, gate: threading.Event) -> threading.Event:
    """Let the reading or the decoding of the photo of a seed wait at the gate; return an event that says it does."""
    waits = threading.Event()
    whole, slow = WHOLE[what], {"read_file": f"{seed:03}.jpg", "decode": photo(seed)}[what]

    def blocked(given: object, *args: object) -> object:
        if (Path(given).name if isinstance(given, str) else given) == slow:
            waits.set()
            gate.wait(20)
        return whole(given, *args)

    tools[what] = blocked
    return waits


@pytest.mark.parametrize("what", ["read_file", "decode"])
@pytest.mark.parametrize("slow", [0, 13, 20])
def test_one_slow_image_does_not_keep_others_from_being_computed(folder, store, tools, gate, what, slow, go):
    waits = blocks(tools, what, slow, gate)
    engine, images = TinyEngine(), folder(many(21))
    thread = in_a_thread(lambda: go(images, store, engine, threads=2))

    assert waits.wait(10)
    assert soon(lambda: sum(engine.batches) == 20)
    assert thread.is_alive()
    gate.set()
    assert ends(thread)
    assert by_digest(store) == expected(*range(21))


def test_a_slow_engine_does_not_keep_files_from_being_read_and_decoded(folder, store, reads, decodes, gate, go):
    engine, images = TinyEngine(before=lambda: gate.wait(20)), folder(many(21))
    thread = in_a_thread(lambda: go(images, store, engine))

    assert soon(lambda: sum(reads.values()) == sum(decodes.values()) == 21)
    assert engine.batches == []
    gate.set()
    assert ends(thread)
    assert by_digest(store) == expected(*range(21))


@each("threads", [1, 3])
def test_the_requested_number_of_threads_decode(folder, store, tools, threads, go):
    barrier = threading.Barrier(threads, timeout=10)  # passed when so many wait at it
    names: set[str] = set()

    def spy(*args: object) -> object:
        names.add(threading.current_thread().name)
        barrier.wait()
        return decode(*args)

    tools["decode"] = spy
    go(folder(many(12)), store, threads=threads)

    assert len(names) == threads
    assert not running()


# --- how far ahead ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threads", "waiting"), [(1, 1), (1, 6), (3, 6)])
def test_no_more_is_read_and_decoded_ahead_of_the_engine_than_memory_was_given(
    folder, store, reads, decodes, limited, gate, threads, waiting, go
):
    limited(files=ONE_FILE, pixels=waiting * PIXELS + 5)
    engine, images = TinyEngine(before=lambda: gate.wait(20)), folder(many(60))
    thread = in_a_thread(lambda: go(images, store, engine, threads=threads))

    pixels = 4 + waiting + threads  # in the engine; waiting for it; in the hands of those that decode
    files = pixels + 1 + Collaborators().readers  # one has been read; all readers wait for room
    assert soon(lambda: sum(decodes.values()) == pixels)
    assert steady(lambda: sum(reads.values())) == files
    assert sum(decodes.values()) == pixels
    gate.set()
    assert ends(thread)
    assert by_digest(store) == expected(*range(60))


def test_the_pixels_that_wait_never_exceed_the_memory_given_to_them(folder, store, decodes, limited, go):
    limited(pixels=6 * PIXELS)
    ahead: list[int] = []
    engine = TinyEngine(before=lambda: ahead.append(sum(decodes.values()) - sum(engine.batches)))
    go(folder(many(120)), store, engine, threads=2)

    assert 4 <= max(ahead) <= 4 + 6 + 2
    assert len(ahead) == 30


def test_files_are_counted_by_their_bytes_until_they_are_decoded(folder, store, reads, tools, limited, gate, go):
    whole = photo(5)
    limited(files=10 * size_waiting(len(whole)) + 9)  # of the ten first ones each but one is a byte longer
    tools.update(readers=1, decode=lambda *args: gate.wait(20) and decode(*args))
    images = folder({f"{number:03}.jpg": whole + bytes([number]) for number in range(60)})
    thread = in_a_thread(lambda: go(images, store, threads=1))

    # 8 wait; one is being decoded; one waits for room before it is read.
    assert steady(lambda: sum(reads.values())) == 8 + 1 + 1
    gate.set()
    assert ends(thread)
    assert len(store.digests()) == 60


# --- progress ---------------------------------------------------------------------------------------------------


@each("parallel", [1, 3])
def test_progress_never_falls_and_ends_with_every_file(folder, store, parallel, go):
    seen: list[tuple[str, int, int]] = []
    engine = TinyEngine()
    engine.parallel = parallel
    images = folder({**many(41), "page.jpg": b"<html>", "empty.jpg": b"", "copy.jpg": 3})
    go(images, store, engine, progress=lambda *event: seen.append(event))

    done = [count for _, count, _ in seen]
    assert {(stage, total) for stage, _, total in seen} == {("extract", 44)}
    assert done == sorted(done)
    assert (min(done) >= 0, done[-1]) == (True, 44)


def test_images_count_as_done_when_they_have_been_computed_and_others_at_once(folder, store, gate, go):
    seen: list[int] = []
    images = folder({**many(10), "page.jpg": b"<html>", "empty.jpg": b"", "copy.jpg": 3})
    engine = TinyEngine(before=lambda: gate.wait(20))
    thread = in_a_thread(lambda: go(images, store, engine, progress=lambda _, done, __: seen.append(done)))

    assert soon(lambda: len(seen) >= 13)
    assert steady(lambda: max(seen)) == 3
    gate.set()
    assert ends(thread)
    assert seen[-1] == 13


# --- how it ends ------------------------------------------------------------------------------------------------


@each("error", [KeyboardInterrupt, RuntimeError])
def test_an_engine_that_raises_ends_the_work_and_what_was_computed_before_is_kept(folder, store, reads, error, go):
    images = folder(many(40))

    def stop() -> None:
        if len(engine.batches) == 3:
            raise error

    engine, found = TinyEngine(before=stop), found_in(images)
    with pytest.raises(error):
        go(found, store, engine)
    kept = set(by_digest(store))
    assert len(kept) == 12
    assert not running()
    learnt = {Path(path).name for path, digest in zip(found.paths, found.digests, strict=True) if digest in kept}
    reads.clear()
    outcomes = go(images, store)

    assert len(outcomes.computed) == 40 - 12
    assert reads.keys() == {path.name for path in images.iterdir()} - learnt
    assert by_digest(store) == expected(*range(40))


@pytest.mark.parametrize("what", ["read_file", "decode"])
def test_an_error_that_is_not_the_images_own_ends_the_work(folder, store, tools, limited, what, go):
    calls = Counter()

    def broken(*args: object) -> object:
        calls[what] += 1
        if calls[what] == 30:
            raise ZeroDivisionError("a mistake of ours")
        return WHOLE[what](*args)

    tools[what] = broken
    limited(pixels=4 * PIXELS)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        go(folder(many(40)), store)

    assert not running()
    assert by_digest(store).items() <= expected(*range(40)).items()


@pytest.mark.parametrize("what", ["read_file", "decode"])
def test_an_error_before_the_first_image_is_decoded_ends_the_work_too(folder, store, tools, what, go):
    def broken(*args: object) -> object:
        raise ZeroDivisionError("a mistake of ours")

    tools[what] = broken
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        go(folder(many(40)), store, start=forbidden)

    assert not running()


class Interruption:
    """Ctrl-C, sent to the main thread as soon as something is true."""

    def __init__(self, when: Callable[[], object]) -> None:
        self.at = 0.0
        self._when = when
        in_a_thread(self._send)

    def _send(self) -> None:
        if soon(self._when):
            self.at = time.monotonic()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.mark.parametrize("what", ["read_file", "decode"])
def test_ctrl_c_during_a_slow_image_ends_at_once_and_keeps_what_was_computed(folder, store, tools, gate, what, go):
    waits = blocks(tools, what, 7, gate)
    images, seen = folder(many(21)), [0]
    ctrl_c = Interruption(lambda: waits.is_set() and seen[-1] == 20)
    with pytest.raises(KeyboardInterrupt):
        go(images, store, threads=2, progress=lambda _, done, __: seen.append(done))

    assert time.monotonic() - ctrl_c.at < 1
    assert by_digest(store) == expected(*(set(range(21)) - {7}))


def test_ctrl_c_during_a_slow_batch_ends_at_once_and_keeps_what_was_computed(folder, store, gate, go):
    images, seen = folder(many(40)), [0]
    engine = TinyEngine(before=lambda: len(engine.batches) < 3 or gate.wait(20))
    ctrl_c = Interruption(lambda: seen[-1] == 12)
    with pytest.raises(KeyboardInterrupt):
        go(images, store, engine, progress=lambda _, done, __: seen.append(done))

    assert time.monotonic() - ctrl_c.at < 1
    assert len(store.digests()) == 12
    assert by_digest(store).items() <= expected(*range(40)).items()


def test_ctrl_c_while_the_first_images_are_waited_for_ends_at_once(folder, store, tools, gate, go):
    waits = blocks(tools, "read_file", 1, gate)
    images = folder(many(3))
    ctrl_c = Interruption(waits.is_set)
    with pytest.raises(KeyboardInterrupt):
        go(images, store)

    assert time.monotonic() - ctrl_c.at < 1


def test_ctrl_c_while_an_engine_is_started_ends_at_once(folder, store, gate, go):
    images, starts = folder(many(20)), threading.Event()
    ctrl_c = Interruption(starts.is_set)
    with pytest.raises(KeyboardInterrupt):
        go(images, store, start=lambda sample: starts.set() or gate.wait(20) or TinyEngine())

    assert time.monotonic() - ctrl_c.at < 1
    assert store.shards() == []


def test_files_are_read_and_progress_is_shown_while_an_engine_starts(folder, store, reads, decodes, gate, go):
    seen: list[int] = []
    images = folder({**many(20), "page.jpg": b"<html>", "empty.jpg": b""})
    engine = TinyEngine()
    thread = in_a_thread(
        lambda: go(
            images, store, start=lambda sample: gate.wait(20) and engine, progress=lambda _, done, __: seen.append(done)
        )
    )

    assert soon(lambda: len(reads) == 22)
    assert soon(lambda: seen and seen[-1] == 2)
    assert soon(lambda: len(decodes) == 21)
    gate.set()
    assert ends(thread)
    assert by_digest(store) == expected(*range(20))


def test_what_is_stopped_computes_no_further(folder, store, gate, go):
    images, seen, begun = folder(many(40)), [0], []
    engine = TinyEngine(before=lambda: begun.append(1) or len(begun) < 4 or gate.wait(20))
    Interruption(lambda: seen[-1] == 12 and len(begun) == 4)
    with pytest.raises(KeyboardInterrupt):
        go(images, store, engine, progress=lambda _, done, __: seen.append(done))
    gate.set()

    assert soon(lambda: not running())
    assert len(engine.batches) == 4  # the one that was in it


def test_a_commit_that_fails_ends_the_work_and_leaves_what_was_committed(folder, store, tools, go):
    tools["pace"] = CommitPace(rows=4)
    with pytest.raises(CacheError, match="the disk is full"):
        go(folder(many(40)), broken(store, None, None, CacheError("the disk is full")))

    assert len(store.digests()) == 8


def test_no_file_at_all_is_no_work(store, tmp_path, go):
    empty = Dataset(
        source=tmp_path, paths=(), digests=np.empty((0, 32), np.uint8), labels=(), given_splits=(), groups=()
    )

    assert go(FileIndex.of(empty), store) == Outcomes()
    assert not Path("cache").exists()

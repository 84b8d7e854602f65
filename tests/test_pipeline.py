"""The way of an image into the cache: read once, decoded once, computed once, and by one process where several work."""

import hashlib
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bottleneck.pipeline
from bottleneck.cache.store import FeatureCache, Store
from bottleneck.errors import CacheError, ImageError
from bottleneck.images.dataset import Dataset
from bottleneck.images.digest import read_file
from bottleneck.images.scan import scan
from bottleneck.images.splits import Shares
from bottleneck.images.survey import Survey, survey
from bottleneck.images.undecodable import UndecodableMemo
from bottleneck.pipeline import Settings, Work, run
from tests import tiny
from tests.conftest import photo, write
from tests.tiny import TinyEngine


@pytest.fixture
def store() -> Store:
    return FeatureCache("cache").store(tiny.SPEC)


@pytest.fixture(autouse=True)
def settled(monkeypatch) -> None:
    """Let files that were written just now be remembered."""
    monkeypatch.setattr("bottleneck.images.digest.FRESH_SECONDS", 0.0)


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """Return how often each file has been read, by name, from now on."""
    found: Counter[str] = Counter()

    def spy(path: str, *args: object) -> object:
        found[Path(path).name] += 1
        return read_file(path, *args)

    monkeypatch.setattr(bottleneck.pipeline, "read_file", spy)
    return found


@pytest.fixture
def decodes(monkeypatch) -> Counter[str]:
    """Return how often each image has been decoded, by digest, from now on."""
    found: Counter[str] = Counter()
    decode = bottleneck.pipeline.decode

    def spy(data: bytes, *args: object) -> object:
        found[hashlib.sha256(data).hexdigest()] += 1
        return decode(data, *args)

    monkeypatch.setattr(bottleneck.pipeline, "decode", spy)
    return found


def found_in(source: Path) -> Survey:
    return survey(source, labels=False, shares=Shares(), cache="cache", exclude=())


def go(
    source: Path | Survey,
    store: Store,
    engine: TinyEngine | None = None,
    known: dict[bytes, ImageError] | None = None,
    progress: Callable[[str, int, int], object] | None = None,
    **settings: int,
) -> Work:
    found = source if isinstance(source, Survey) else found_in(source)
    engine, work = engine or TinyEngine(), Work()
    run(found, store, lambda: engine, known or {}, Settings(**settings), work, progress)
    return work


def many(count: int) -> dict[str, int]:
    return {f"{number:03}.jpg": number for number in range(count)}


def by_digest(store: Store) -> dict[bytes, bytes]:
    digests = store.digests()
    return {row.tobytes(): x.tobytes() for row, x in zip(digests, store.read(digests), strict=True)}


def expected(*seeds: int) -> dict[bytes, bytes]:
    return {tiny.digest(photo(seed)).tobytes(): tiny.features(photo(seed)).tobytes() for seed in seeds}


# --- once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_image_gets_its_own_features(folder, store, threads, batch_size):
    work = go(folder(many(21)), store, TinyEngine(batch_size), threads=threads)

    assert (len(work.computed), work.engine, work.undecodable, work.unread) == (21, "tiny", {}, {})
    assert by_digest(store) == expected(*range(21))


def test_every_file_is_read_exactly_once(folder, store, reads, monkeypatch):
    images = folder({**many(21), "page.jpg": b"<html>", "copy.jpg": 3})
    opened: Counter[str] = Counter()
    open_ = os.open

    def spy(path: str, *args: object, **options: object) -> int:
        opened[Path(path).name] += str(path).endswith(".jpg")
        return open_(path, *args, **options)

    monkeypatch.setattr(os, "open", spy)
    go(images, store)

    names = {path.name: 1 for path in images.iterdir()}
    assert dict(reads) == names
    assert dict(+opened) == names


def test_digest_and_pixels_come_from_the_same_bytes(folder, store, monkeypatch):
    images = folder({"a.jpg": 1})
    contents = iter([photo(10), photo(11), photo(12)])  # a file that changes whenever it is looked at
    monkeypatch.setattr(bottleneck.pipeline, "read_file", lambda path: (next(contents), read_file(path)[1]))
    found = found_in(images)
    go(found, store)

    assert found.digests == [tiny.digest(photo(10)).tobytes()]
    assert by_digest(store) == expected(10)


def test_copies_are_decoded_and_computed_once(folder, store, decodes):
    engine = TinyEngine()
    images = folder({**many(5), **{f"copy-{number}.jpg": 2 for number in range(9)}})
    work = go(images, store, engine)

    assert (len(work.computed), sum(engine.batches)) == (5, 5)
    assert set(decodes.values()) == {1}
    assert len(decodes) == 5


def test_copies_whose_digests_are_known_are_read_once(folder, store, reads):
    images = folder({"a.jpg": 1, "b.jpg": 1, "c.jpg": 1, "d.jpg": 2})
    go(Survey.of(scan(images, labels=False)), store)

    assert sum(reads.values()) == 2
    assert by_digest(store) == expected(1, 2)


def test_images_with_features_are_neither_read_nor_decoded_again(folder, store, reads, decodes):
    images = folder(many(6))
    go(images, store)
    reads.clear(), decodes.clear()
    work = go(images, store)

    assert (len(work.computed), work.engine) == (0, None)
    assert not reads
    assert not decodes


def test_unknown_files_whose_images_have_features_are_read_and_not_decoded(folder, store, reads, decodes):
    go(folder(many(6)), store)
    reads.clear(), decodes.clear()
    work = go(folder(many(6), name="moved"), store)

    assert len(work.computed) == 0
    assert sum(reads.values()) == 6
    assert not decodes


def test_the_engine_is_not_asked_for_when_nothing_is_to_be_computed(folder, store):
    images = folder({"a.jpg": b"<html>", "b.jpg": b""})

    def engine() -> TinyEngine:
        raise AssertionError("it was asked for")

    work = Work()
    run(found_in(images), store, engine, {}, Settings(), work, None)

    assert [error.code for error in work.undecodable.values()] == ["not-an-image"]


# --- images that cannot be used ---------------------------------------------------------------------------------


def test_what_cannot_be_decoded_is_told_by_digest_and_what_cannot_be_read_by_path(folder, store):
    cut = photo(1, size=(300, 200))[:2000]
    images = folder({"a.jpg": 1, "cut.jpg": cut, "copy.jpg": cut, "empty.jpg": b""})
    found = found_in(images)
    work = go(found, store)

    assert {key: error.code for key, error in work.undecodable.items()} == {tiny.digest(cut).tobytes(): "truncated"}
    assert [(Path(failure.path).name, failure.code) for failure in found.dataset().failures] == [("empty.jpg", "empty")]
    assert by_digest(store) == expected(1)


@pytest.mark.parametrize("forget", ["nothing", "the table", "the memo"])
def test_what_is_known_to_be_undecodable_is_not_read_again_until_it_is_forgotten(folder, store, reads, forget):
    memo = UndecodableMemo("cache/digests.sqlite")
    images = folder({"a.jpg": 1, "page.jpg": b"<html>", "cut.jpg": photo(1, size=(300, 200))[:2000]})
    memo.remember(go(images, store, known=memo.load()).undecodable)
    reads.clear()
    if forget == "the table":
        with sqlite3.connect("cache/digests.sqlite") as connection:
            connection.execute("drop table undecodable_1")
        connection.close()
    elif forget == "the memo":
        Path("cache/digests.sqlite").unlink()
    work = go(images, store, known=memo.load())

    again = {"nothing": [], "the table": ["cut.jpg", "page.jpg"], "the memo": ["a.jpg", "cut.jpg", "page.jpg"]}
    assert sorted(reads) == again[forget]
    assert len(work.undecodable) == (0 if forget == "nothing" else 2)


def test_what_is_known_to_be_undecodable_is_not_decoded_under_another_name_either(folder, store, reads, decodes):
    known = go(folder({"page.jpg": b"<html>"}), store).undecodable
    reads.clear(), decodes.clear()
    work = go(folder({"renamed.jpg": b"<html>"}, name="others"), store, known=known)

    assert reads == {"renamed.jpg": 1}
    assert not decodes
    assert work.undecodable == {}


def test_an_image_that_is_too_large_is_tried_again_with_a_larger_limit(folder, store):
    memo = UndecodableMemo("cache/digests.sqlite")
    images = folder({"small.jpg": 1, "large.jpg": photo(2, size=(200, 200))})
    refused = go(images, store, known=memo.load(), max_pixels=10_000)
    memo.remember(refused.undecodable)
    accepted = go(images, store, known=memo.load(), max_pixels=40_000)

    assert (len(refused.computed), [error.code for error in refused.undecodable.values()]) == (1, ["too-large"])
    assert (len(accepted.computed), accepted.undecodable) == (1, {})


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batches", [{0}, {1}, {0, 1, 2}])
def test_rows_that_are_not_finite_are_told_and_the_rest_of_their_batch_is_kept(folder, store, batches, value):
    work = go(folder(many(12)), store, NaNs(batches, value))

    assert len(work.computed) == 12 - len(batches)
    assert [error.code for error in work.undecodable.values()] == ["not-finite"] * len(batches)
    kept = by_digest(store)
    assert not kept.keys() & work.undecodable.keys()
    assert kept == {key: row for key, row in expected(*range(12)).items() if key not in work.undecodable}


def test_a_batch_without_one_finite_row_is_no_error(folder, store):
    engine = NaNs({0}, np.nan)
    engine.batch_size = 1
    work = go(folder(many(1)), store, engine)

    assert (len(work.computed), work.engine, len(work.undecodable)) == (0, None, 1)
    assert store.shards() == []


def test_a_known_image_that_is_gone_or_has_changed_is_a_failure_with_its_digest(folder, store):
    images = folder({"a.jpg": 1, "b.jpg": 2, "c.jpg": 3})
    dataset = scan(images, labels=False)
    (images / "a.jpg").unlink()
    write(images / "b.jpg", photo(9))
    work = go(Survey.of(dataset), store)

    assert {digest: error.code for digest, error in work.unread.items()} == {
        tiny.digest(photo(1)).tobytes(): "unreadable",
        tiny.digest(photo(2)).tobytes(): "changed",
    }
    assert by_digest(store) == expected(3)


def test_a_known_image_is_read_from_whichever_of_its_paths_still_holds_it(folder, store):
    images = folder({"a.jpg": 1, "b.jpg": 1, "c.jpg": 1})
    dataset = scan(images, labels=False)
    (images / "a.jpg").unlink()
    write(images / "b.jpg", photo(9))
    work = go(Survey.of(dataset), store)

    assert (len(work.computed), work.unread) == (1, {})
    assert by_digest(store) == expected(1)


def test_several_frames_are_noted(folder, store):
    frames = [np.full((20, 20, 3), level, np.uint8) for level in (0, 255)]
    buffer = BytesIO()
    first, second = map(Image.fromarray, frames)
    first.save(buffer, "GIF", save_all=True, append_images=[second])
    work = go(folder({"a.jpg": 1, "b.jpg": buffer.getvalue()}), store)

    assert len(work.computed) == 2
    assert list(work.notes) == [tiny.digest(buffer.getvalue()).tobytes()]


# --- beside other processes -------------------------------------------------------------------------------------


def commit(store: Store, *seeds: int) -> None:
    """Do what another process does."""
    for seed in seeds:
        FeatureCache("cache").store(store.spec).append(tiny.digest(photo(seed)), tiny.features(photo(seed)))


@pytest.fixture
def others_commit(store, monkeypatch) -> TinyEngine:
    """Return an engine before whose first batch another process commits 60 images; what is new is looked at always."""
    monkeypatch.setattr(bottleneck.pipeline, "_LOOK_SECONDS", 0.0)
    once = [lambda: commit(store, *range(60))]
    return TinyEngine(before=lambda: once.pop()() if once else None)


def test_what_another_process_has_committed_meanwhile_is_not_computed_again(folder, store, others_commit):
    work = go(folder(many(60)), store, others_commit, threads=1)

    assert (others_commit.batches, len(work.computed)) == ([4], 4)
    assert by_digest(store) == expected(*range(60))


def test_known_images_that_another_process_has_committed_meanwhile_are_not_even_read(
    folder, store, others_commit, reads
):
    dataset = scan(folder(many(60)), labels=False)
    seen: list[tuple[str, int, int]] = []
    go(Survey.of(dataset), store, others_commit, threads=1, progress=lambda *event: seen.append(event))

    assert sum(reads.values()) <= 4 + 16
    assert seen == [("extract", done, 60) for done in range(1, 61)]
    assert by_digest(store) == expected(*range(60))


def test_where_nobody_looks_all_is_computed(folder, store, others_commit, monkeypatch):
    monkeypatch.setattr(bottleneck.pipeline, "_LOOK_SECONDS", 1000.0)
    work = go(folder(many(60)), store, others_commit, threads=1)

    assert len(work.computed) == 60


def test_processes_begin_in_different_places_and_go_on_through_neighbours(folder, monkeypatch):
    images = folder({f"{number:03}.jpg": b"x" for number in range(64)})
    orders = []
    for cache in ("one", "two"):
        names: list[str] = []
        monkeypatch.setattr(
            bottleneck.pipeline, "read_file", lambda path, names=names: names.append(Path(path).name) or read_file(path)
        )
        found = survey(images, labels=False, shares=Shares(), cache=cache, exclude=())
        go(found, FeatureCache(cache).store(tiny.SPEC), threads=1)
        orders.append([int(name[:3]) for name in names])

    assert sorted(orders[0]) == sorted(orders[1]) == list(range(64))
    assert orders[0] != orders[1]
    for order in orders:
        assert sum(later == earlier + 1 for earlier, later in pairwise(order)) >= 64 - 16


# --- how far ahead, and how often to commit ---------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_files_are_read_a_bounded_way_ahead(folder, store, reads, threads):
    counts: list[int] = []
    engine = TinyEngine(1, before=lambda: counts.append(sum(reads.values())))
    go(folder(many(120)), store, engine, threads=threads)

    assert all(count <= place + 1 + 16 * threads for place, count in enumerate(counts))


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_threads_decode_as_were_asked_for(folder, store, monkeypatch, threads):
    barrier = threading.Barrier(threads, timeout=10)  # passed when so many wait at it
    names: set[str] = set()
    decode = bottleneck.pipeline.decode

    def spy(*args: object) -> object:
        names.add(threading.current_thread().name)
        barrier.wait()
        return decode(*args)

    monkeypatch.setattr(bottleneck.pipeline, "decode", spy)
    go(folder(many(12)), store, threads=threads)

    assert len(names) == threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(
    ("setting", "value", "shards"),
    [("_FIRST_COMMIT_SECONDS", 0.0, 6), ("_COMMIT_ROWS", 8, 3), ("_COMMIT_ROWS", 9, 2), ("_COMMIT_ROWS", 100, 1)],
)
def test_commits_are_made_after_some_time_and_some_rows(folder, store, monkeypatch, setting, value, shards):
    monkeypatch.setattr(bottleneck.pipeline, setting, value)
    if setting == "_FIRST_COMMIT_SECONDS":
        monkeypatch.setattr(bottleneck.pipeline, "_COMMIT_SHARE", 0.0)
    go(folder(many(24)), store)

    assert len(store.shards()) == shards
    assert by_digest(store) == expected(*range(24))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_computed_before_an_interruption_is_kept_and_what_was_read_remembered(folder, store, reads, error):
    images = folder(many(40))

    def stop() -> None:
        if len(engine.batches) == 3:
            raise error

    engine = TinyEngine(before=stop)
    with pytest.raises(error):
        go(images, store, engine, threads=1)
    kept = len(store.digests())
    assert kept == 12
    left = 40 - 16  # the last batch had been read
    reads.clear()
    work = go(images, store)

    assert len(work.computed) == 40 - kept
    assert sum(reads.values()) == left + 4
    assert by_digest(store) == expected(*range(40))


def test_a_commit_that_fails_ends_the_work_and_leaves_what_was_committed(folder, store, monkeypatch):
    monkeypatch.setattr(bottleneck.pipeline, "_COMMIT_ROWS", 4)
    append, calls = Store.append, []

    def fail_the_third(self: Store, *args: object) -> list[str]:
        calls.append(args)
        if len(calls) == 3:
            raise CacheError("the disk is full")
        return append(self, *args)

    monkeypatch.setattr(Store, "append", fail_the_third)
    with pytest.raises(CacheError, match="the disk is full"):
        go(folder(many(40)), store)

    assert len(calls) == 3
    assert len(store.digests()) == 8


def test_no_file_at_all_is_no_work(store, tmp_path):
    empty = Dataset(
        source=tmp_path, paths=(), digests=np.empty((0, 32), np.uint8), labels=(), given_splits=(), groups=()
    )

    assert go(Survey.of(empty), store) == Work()
    assert not Path("cache").exists()

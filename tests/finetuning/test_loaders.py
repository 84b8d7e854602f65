from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import TuningError
from bottleneck.extraction.memory import LEAST_MEMORY, ByteBudget, MemoryBudget
from bottleneck.finetuning.loaders import ALL, Activations, Images
from tests.extraction.conftest import steady
from tests.finetuning.small import dataset, prepared
from tests.tiny import SPEC

SHAPE = (2, 3, 3)


@pytest.fixture
def images(tmp_path):
    return dataset(tmp_path / "images", 11)


@pytest.fixture
def stores(tmp_path, images):
    """Return three stores of activations: those of image i in store s are ``100 s + i``, and a little more each."""
    found = []
    for number in range(3):
        store = FeatureCache(tmp_path / "cache").activations().store(replace(SPEC, layer=f"view{number}"))
        values = 100 * number + np.arange(11)[:, None] + np.arange(18)[None] / 64
        for rows in (slice(0, 4), slice(4, 11)):
            store.append(images.digests[rows], values[rows].astype(np.float16))
        found.append(store)
    return found


def rows_of(batches):
    return [rows.tolist() for rows, _ in batches]


def values_of(batches):
    """Return the first number of each row, by row."""
    return {int(row): value for rows, values in batches for row, value in zip(rows, values, strict=True)}


@pytest.mark.parametrize("memory", [1e9, 0])
def test_each_image_comes_once_with_its_own_activations(stores, images, memory):
    feed = Activations(stores[:1], images, SHAPE, memory)
    for random in (None, np.random.default_rng(1)):
        batches = list(feed.batches(1, 4, random, ALL))
        assert sorted(row for rows in rows_of(batches) for row in rows) == list(range(11))
        for rows, values in batches:
            assert values.dtype == torch.float32
            assert values.shape == (len(rows), *SHAPE)
            assert values[:, 0, 0, 0].tolist() == rows.tolist()
            assert values[:, 1, 2, 2].tolist() == [row + 17 / 64 for row in rows]
    assert rows_of(feed.batches(0, 100, None, ALL)) == [list(range(11))] or memory == 0


def test_streamed_and_held_give_the_same_rows(stores, images):
    held, streamed = (Activations(stores, images, SHAPE, memory) for memory in (1e9, 0))
    one, other = (values_of(feed.batches(2, 3, None, ALL)) for feed in (held, streamed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[row], other[row]) for row in one)


@pytest.mark.parametrize("memory", [1e9, 0])
def test_batches_have_the_size_that_was_asked_for(stores, images, memory):
    feed = Activations(stores, images, SHAPE, memory)
    sizes = [len(rows) for rows, _ in feed.batches(1, 4, np.random.default_rng(0), ALL)]
    assert sizes == [4, 4, 3]


@pytest.mark.parametrize("memory", [1e9, 500, 0])
def test_views_come_by_turns(stores, images, memory):
    feed = Activations(stores, images, SHAPE, memory)
    seen = [values_of(feed.batches(epoch, 4, np.random.default_rng(epoch), ALL))[5] for epoch in (1, 2, 3, 4, 2)]
    assert [int(value[0, 0, 0]) for value in seen] == [5, 105, 205, 5, 105]


def test_no_more_views_are_held_than_fit(stores, images):
    one = 2 * 11 * 18
    for memory, held in ((one, 1), (2 * one, 2), (100 * one, 3)):
        feed = Activations(stores, images, SHAPE, memory)
        for epoch in range(1, 7):
            list(feed.batches(epoch, 4, None, ALL))
            assert len(feed._held) <= held
    assert len(feed._held) == 3


def test_numbers_in_float32_take_twice_the_memory(tmp_path, images):
    store = FeatureCache(tmp_path / "cache").activations().store(replace(SPEC, layer="wide"))
    values = np.arange(11)[:, None] * 1e-12 + np.zeros(18)[None]
    store.append(images.digests[:6], values[:6].astype(np.float32))
    store.append(images.digests[6:], values[6:].astype(np.float16))
    for memory, streams in ((4 * 11 * 18, False), (2 * 11 * 18, True)):
        feed = Activations([store], images, SHAPE, memory)
        found = values_of(feed.batches(1, 4, None, ALL))
        assert bool(feed._held) is not streams
        assert [float(found[row][0, 0, 0]) for row in range(6)] == [float(np.float32(row * 1e-12)) for row in range(6)]


def batches_of(kind, stores, images):
    if kind == "images":
        return Images(images, prepared(8))
    return Activations(stores, images, SHAPE, {"held": 1e9, "streamed": 0}[kind])


@pytest.mark.parametrize("kind", ["held", "streamed", "images"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_are_a_partition_of_each_batch(stores, images, kind, count):
    def batches(share):
        return list(batches_of(kind, stores, images).batches(1, 4, np.random.default_rng(7), share))

    whole = batches(ALL)
    shares = [batches(slice(rank, None, count)) for rank in range(count)]
    for number, (rows, values) in enumerate(whole):
        parts = [share[number] for share in shares]
        for rank, (own, own_values) in enumerate(parts):
            assert own.tolist() == rows[rank::count].tolist()
            assert own_values.shape[1:] == values.shape[1:]  # of none, too
            assert torch.equal(own_values, values[rank::count])
        assert sum(len(own) for own, _ in parts) == len(rows)


@pytest.mark.parametrize("kind", ["held", "streamed", "images"])
def test_equal_random_states_give_equal_orders_and_others_do_not(stores, images, kind):
    feed = batches_of(kind, stores, images)
    one, same, other = (rows_of(feed.batches(1, 4, np.random.default_rng(seed), ALL)) for seed in (3, 3, 4))
    assert one == same != other


# --- images -----------------------------------------------------------------------------------------------------


def test_images_are_normalised_pixels(images):
    preprocessing = prepared(8)
    feed = Images(images, preprocessing)
    ((rows, pixels),) = feed.pixels(0, 100)
    ((_, values),) = feed.batches(0, 100, None, ALL)
    assert rows.tolist() == list(range(11))
    assert pixels.shape == (11, 8, 8, 3)
    assert values.shape == (11, 3, 8, 8)
    wanted = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(values.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)
    assert len({pixels[row].tobytes() for row in range(11)}) == 11


def seen(images, epoch, augment="standard", seed=0):
    ((_, pixels),) = Images(images, prepared(8), augment, seed).pixels(epoch, 100)
    return pixels


def test_views_differ_by_epoch_and_by_seed_and_are_else_the_same(images):
    first = seen(images, 1)
    assert (first == seen(images, 1)).all()
    assert (first != seen(images, 2)).any(axis=(1, 2, 3)).all()
    assert (first != seen(images, 1, seed=1)).any(axis=(1, 2, 3)).all()
    assert (first != seen(images, 1, augment="strong")).any()


def test_a_view_is_that_of_the_image_wherever_it_stands(images):
    back = images.subset(range(10, -1, -1))
    np.testing.assert_array_equal(seen(images, 1), seen(back, 1)[::-1])


def test_without_augmentation_and_to_validate_images_are_as_they_are(images):
    plain = seen(images, 0)
    np.testing.assert_array_equal(plain, seen(images, 3, "none"))
    np.testing.assert_array_equal(plain, seen(images, 0, "strong", 5))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda file: file.unlink(), "expected to read .*05.png: .*Put it back, or extract and fit without it"),
        (lambda file: file.write_bytes(file.read_bytes()[:40]), "05.png has changed since it was extracted"),
        (lambda file: file.write_bytes(Path(file.parent / "04.png").read_bytes()), "05.png has changed"),
    ],
)
def test_files_that_changed_or_are_gone_are_told(images, harm, message):
    harm(Path(images.paths[5]))
    feed = Images(images, prepared(8))
    with pytest.raises(TuningError, match=message):
        list(feed.batches(1, 2, None, ALL))


def test_an_image_that_there_is_no_memory_for_is_told(images):
    memory = MemoryBudget(LEAST_MEMORY)
    memory.decoding = ByteBudget(1000)
    feed = Images(images, prepared(8), memory=memory)
    with pytest.raises(TuningError, match="--memory sets the limit"):
        list(feed.batches(1, 2, None, ALL))


@pytest.mark.parametrize(("room", "ahead"), [(0, 0), (2 * 3 * 8 * 8 * 3, 2), (1 << 30, 3)])
def test_no_more_batches_are_decoded_ahead_than_there_is_memory_for(images, monkeypatch, room, ahead):
    memory = MemoryBudget(LEAST_MEMORY)
    memory.waiting_pixels = room
    feed, rows = Images(images, prepared(8), memory=memory), []
    pixels = feed._pixels
    monkeypatch.setattr(feed, "_pixels", lambda row, loader: rows.append(row) or pixels(row, loader))
    batches = feed.batches(1, 3, None, ALL)
    next(batches)

    assert steady(lambda: len(rows)) == min(3 * (ahead + 1), 11)
    batches.close()
    assert sorted(row for rows, _ in feed.batches(1, 3, None, ALL) for row in rows) == list(range(11))


def test_a_file_that_is_no_image_is_told(tmp_path):
    images = dataset(tmp_path, 2)
    data = b"no image"
    Path(images.paths[1]).write_bytes(data)
    import hashlib

    digests = images.digests.copy()
    digests[1] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    with pytest.raises(TuningError, match=r"expected to read .*01\.png"):
        list(Images(replace(images, digests=digests), prepared(8)).batches(1, 2, None, ALL))


def test_an_epoch_that_is_left_early_leaves_no_threads(images):
    import threading

    before = threading.active_count()
    for _ in range(3):
        batches = Images(images, prepared(8)).batches(1, 2, None, ALL)
        next(batches)
        batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("bottleneck-decode"):
            thread.join(5)
    assert threading.active_count() <= before

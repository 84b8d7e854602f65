from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.errors import TuningError
from bottleneck.extraction.memory import LEAST_MEMORY, ByteBudget, MemoryBudget
from bottleneck.finetuning.loaders import ALL, ActivationLoader, ImageLoader
from tests.extraction.conftest import steady
from tests.finetuning.small import dataset, prepared
from tests.tiny import SPEC
from tests.variants import each

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


@each("memory", [1e9, 0])
def test_each_image_is_loaded_once_with_its_activations(stores, images, memory):
    loader = ActivationLoader(stores[:1], images, SHAPE, memory)
    for random in (None, np.random.default_rng(1)):
        batches = list(loader.batches(1, 4, random, ALL))
        assert sorted(row for rows in rows_of(batches) for row in rows) == list(range(11))
        for rows, values in batches:
            assert values.dtype == torch.float32
            assert values.shape == (len(rows), *SHAPE)
            assert values[:, 0, 0, 0].tolist() == rows.tolist()
            assert values[:, 1, 2, 2].tolist() == [row + 17 / 64 for row in rows]
    assert rows_of(loader.batches(0, 100, None, ALL)) == [list(range(11))] or memory == 0


def test_streaming_and_memory_give_the_same_rows(stores, images):
    held, streamed = (ActivationLoader(stores, images, SHAPE, memory) for memory in (1e9, 0))
    one, other = (values_of(loader.batches(2, 3, None, ALL)) for loader in (held, streamed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[row], other[row]) for row in one)


@each("memory", [1e9, 0])
def test_batches_have_the_requested_size(stores, images, memory):
    loader = ActivationLoader(stores, images, SHAPE, memory)
    sizes = [len(rows) for rows, _ in loader.batches(1, 4, np.random.default_rng(0), ALL)]
    assert sizes == [4, 4, 3]


@each("memory", [1e9, 500, 0])
def test_views_alternate_by_epoch(stores, images, memory):
    loader = ActivationLoader(stores, images, SHAPE, memory)
    seen = [values_of(loader.batches(epoch, 4, np.random.default_rng(epoch), ALL))[5] for epoch in (1, 2, 3, 4, 2)]
    assert [int(value[0, 0, 0]) for value in seen] == [5, 105, 205, 5, 105]


def test_no_more_views_are_kept_than_fit_in_memory(stores, images):
    one = 2 * 11 * 18
    for memory, held in ((one, 1), (2 * one, 2), (100 * one, 3)):
        loader = ActivationLoader(stores, images, SHAPE, memory)
        for epoch in range(1, 7):
            list(loader.batches(epoch, 4, None, ALL))
            assert len(loader._in_memory) <= held
    assert len(loader._in_memory) == 3


def test_float32_takes_twice_the_memory(tmp_path, images):
    store = FeatureCache(tmp_path / "cache").activations().store(replace(SPEC, layer="wide"))
    values = np.arange(11)[:, None] * 1e-12 + np.zeros(18)[None]
    store.append(images.digests[:6], values[:6].astype(np.float32))
    store.append(images.digests[6:], values[6:].astype(np.float16))
    for memory, streams in ((4 * 11 * 18, False), (2 * 11 * 18, True)):
        loader = ActivationLoader([store], images, SHAPE, memory)
        found = values_of(loader.batches(1, 4, None, ALL))
        assert bool(loader._in_memory) is not streams
        assert [float(found[row][0, 0, 0]) for row in range(6)] == [float(np.float32(row * 1e-12)) for row in range(6)]


def batches_of(kind, stores, images):
    if kind == "images":
        return ImageLoader(images, prepared(8))
    return ActivationLoader(stores, images, SHAPE, {"held": 1e9, "streamed": 0}[kind])


@each("kind", ["held", "streamed", "images"])
@each("count", [2, 3, 5])
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


@each("kind", ["held", "streamed", "images"])
def test_equal_random_states_give_equal_orders_and_others_do_not(stores, images, kind):
    loader = batches_of(kind, stores, images)
    one, same, other = (rows_of(loader.batches(1, 4, np.random.default_rng(seed), ALL)) for seed in (3, 3, 4))
    assert one == same != other


# --- images -----------------------------------------------------------------------------------------------------


def test_images_are_loaded_as_normalised_pixels(images):
    preprocessing = prepared(8)
    loader = ImageLoader(images, preprocessing)
    ((rows, pixels),) = loader.pixels(0, 100)
    ((_, values),) = loader.batches(0, 100, None, ALL)
    assert rows.tolist() == list(range(11))
    assert pixels.shape == (11, 8, 8, 3)
    assert values.shape == (11, 3, 8, 8)
    wanted = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(values.permute(0, 2, 3, 1).numpy(), wanted, atol=1e-5)
    assert len({pixels[row].tobytes() for row in range(11)}) == 11


def seen(images, epoch, augment="standard", seed=0):
    ((_, pixels),) = ImageLoader(images, prepared(8), augment, seed).pixels(epoch, 100)
    return pixels


def test_views_depend_on_epoch_and_seed_only(images):
    first = seen(images, 1)
    assert (first == seen(images, 1)).all()
    assert (first != seen(images, 2)).any(axis=(1, 2, 3)).all()
    assert (first != seen(images, 1, seed=1)).any(axis=(1, 2, 3)).all()
    assert (first != seen(images, 1, augment="strong")).any()


def test_a_view_does_not_depend_on_the_position(images):
    back = images.subset(range(10, -1, -1))
    np.testing.assert_array_equal(seen(images, 1), seen(back, 1)[::-1])


def test_validation_and_no_augmentation_give_the_plain_images(images):
    plain = seen(images, 0)
    np.testing.assert_array_equal(plain, seen(images, 3, "none"))
    np.testing.assert_array_equal(plain, seen(images, 0, "strong", 5))


@each(
    "harm, message",
    [
        (lambda file: file.unlink(), "expected to read .*05.png: .*Put it back, or extract and fit without it"),
        (lambda file: file.write_bytes(file.read_bytes()[:40]), "05.png has changed since its features were extracted"),
        (lambda file: file.write_bytes(Path(file.parent / "04.png").read_bytes()), "05.png has changed"),
    ],
)
def test_changed_or_missing_files_are_an_error(tmp_path, harm, message):
    images = dataset(tmp_path / "images", 11)
    harm(Path(images.paths[5]))
    loader = ImageLoader(images, prepared(8))
    with pytest.raises(TuningError, match=message):
        list(loader.batches(1, 2, None, ALL))


def test_an_image_that_does_not_fit_in_memory_is_an_error(images):
    memory = MemoryBudget(LEAST_MEMORY)
    memory.decoding = ByteBudget(1000)
    loader = ImageLoader(images, prepared(8), memory=memory)
    with pytest.raises(TuningError, match="--memory sets the limit"):
        list(loader.batches(1, 2, None, ALL))


@each("room, ahead", [(0, 0), (2 * 3 * 8 * 8 * 3, 2), (1 << 30, 3)])
def test_decoding_ahead_is_limited_by_memory(images, monkeypatch, room, ahead):
    memory = MemoryBudget(LEAST_MEMORY)
    memory.waiting_pixels = room
    loader, rows = ImageLoader(images, prepared(8), memory=memory), []
    pixels = loader._pixels
    monkeypatch.setattr(loader, "_pixels", lambda row, loader: rows.append(row) or pixels(row, loader))
    batches = loader.batches(1, 3, None, ALL)
    next(batches)

    assert steady(lambda: len(rows)) == min(3 * (ahead + 1), 11)
    batches.close()
    assert sorted(row for rows, _ in loader.batches(1, 3, None, ALL) for row in rows) == list(range(11))


def test_a_file_that_is_not_an_image_is_an_error(tmp_path):
    images = dataset(tmp_path, 2)
    data = b"no image"
    Path(images.paths[1]).write_bytes(data)
    import hashlib

    digests = images.digests.copy()
    digests[1] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    with pytest.raises(TuningError, match=r"expected to read .*01\.png"):
        list(ImageLoader(replace(images, digests=digests), prepared(8)).batches(1, 2, None, ALL))


def test_an_interrupted_epoch_leaves_no_threads(images):
    import threading

    before = threading.active_count()
    for _ in range(3):
        batches = ImageLoader(images, prepared(8)).batches(1, 2, None, ALL)
        next(batches)
        batches.close()
    for thread in threading.enumerate():
        if thread.name.startswith("bottleneck-decode"):
            thread.join(5)
    assert threading.active_count() <= before

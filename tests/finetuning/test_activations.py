from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import TuningError
from bottleneck.finetuning import activations as views
from bottleneck.finetuning.activations import Wanted, all_bytes, check_room, clean, fill, missing_bytes, stores
from bottleneck.finetuning.boundary import find
from bottleneck.finetuning.freeze import plan
from bottleneck.finetuning.loaders import ALL, Images
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import Small, dataset, made

COUNT = 40


class Told:
    def __init__(self):
        self.calls = []

    def __call__(self, *words):
        self.calls.append(words)


@pytest.fixture
def place(tmp_path):
    """Return a network, a boundary in it, a cache and images."""
    torch.manual_seed(0)
    network = made(Small(), 6)
    calls = network.trace()
    boundary = find(network, plan(network, Recipe(unfreeze=("last",)), calls), calls)
    assert boundary.module == "middle"
    return network, boundary, FeatureCache(tmp_path / "cache"), dataset(tmp_path / "images", COUNT)


def activations(network, images, augment="none", number=0, seed=0):
    feed = Images(images, network.backbone.spec.preprocessing, augment, seed)
    ((_, values),) = feed.batches(number, 100, None, ALL)
    with torch.no_grad():
        return network.trunk.middle(network.trunk.stem(values) + network.trunk.bias).flatten(1).numpy()


def test_what_is_cached_is_what_stands_at_the_boundary(place):
    network, boundary, cache, images = place
    store = clean(cache, network, boundary)
    fill([Wanted(store, images)], network, boundary, device="cpu")
    found = store.read(images.digests, as_stored=True)
    assert found.dtype == np.float16
    assert found.shape == (COUNT, boundary.size)
    np.testing.assert_allclose(found, activations(network, images), atol=2e-3)
    assert not any(module._forward_hooks for module in network.modules())


def test_each_view_is_its_own(place):
    network, boundary, cache, images = place
    found = stores(cache, network, boundary, "standard", 2, 3)
    assert len({store.name for store in found}) == 2
    fill([Wanted(store, images) for store in found], network, boundary, device="cpu")
    for number, store in enumerate(found):
        wanted = activations(network, images, "standard", number, 3) if number else None
        if wanted is not None:
            np.testing.assert_allclose(store.read(images.digests), wanted, atol=2e-3)
    one, other = (store.read(images.digests) for store in found)
    assert (np.abs(one - other).max(axis=1) > 0.01).all()


def test_which_stores(place):
    network, boundary, cache, _ = place
    plain = clean(cache, network, boundary)
    assert stores(cache, network, boundary, "none", 4, 0) == (plain,)
    names = {store.name for store in stores(cache, network, boundary, "light", 3, 0)}
    assert len(names) == 3
    assert plain.name not in names
    assert names & {store.name for store in stores(cache, network, boundary, "light", 2, 0)}
    assert not names & {store.name for store in stores(cache, network, boundary, "light", 3, 1)}
    assert not names & {store.name for store in stores(cache, network, boundary, "strong", 3, 0)}
    assert plain.folder.parent == cache.activations().folder
    assert not FeatureCache(cache.root).stores()


def test_bytes(place):
    network, boundary, cache, images = place
    store = clean(cache, network, boundary)
    wanted = [Wanted(store, images)]
    row = 2 * boundary.size + 32
    assert all_bytes(wanted, boundary) == missing_bytes(wanted, boundary) == COUNT * row
    fill([Wanted(store, images.subset(range(10)))], network, boundary, device="cpu")
    assert missing_bytes(wanted, boundary) == (COUNT - 10) * row
    assert all_bytes(wanted, boundary) == COUNT * row


def test_room(place, monkeypatch):
    network, boundary, cache, images = place
    wanted = [Wanted(clean(cache, network, boundary), images)]
    needed = all_bytes(wanted, boundary)
    check_room(wanted, boundary, needed)
    with pytest.raises(TuningError, match=r"those at middle take .*--views 0.*, or raise --views-limit"):
        check_room(wanted, boundary, needed - 1)
    free = shutil_usage(needed - 1)
    monkeypatch.setattr(views.shutil, "disk_usage", free)
    with pytest.raises(TuningError, match="those at middle take"):
        check_room(wanted, boundary, needed, width=4)
    with pytest.raises(TuningError, match=r"GB of free disk for the activations at middle, found .*--views 0"):
        check_room(wanted, boundary, needed)
    assert Path(free.asked).exists()
    fill([Wanted(wanted[0].store, images.subset([0]))], network, boundary, device="cpu")
    check_room(wanted, boundary, needed)  # what is there needs no room


def shutil_usage(free):
    def usage(path):
        usage.asked = path
        return type("Usage", (), {"free": free})

    return usage


def test_only_what_is_missing_is_computed_after_a_kill(place, monkeypatch):
    network, boundary, cache, images = place
    store = clean(cache, network, boundary)
    first = images.subset(range(15))
    fill([Wanted(store, first)], network, boundary, device="cpu")
    before = {path.name for path in store.shards()}
    appended = []
    append = Store.append

    def counted(self, digests, features):
        appended.extend(row.tobytes() for row in digests)
        return append(self, digests, features)

    monkeypatch.setattr(Store, "append", counted)
    fill([Wanted(store, images)], network, boundary, device="cpu")
    assert sorted(appended) == sorted(row.tobytes() for row in images.digests[15:])
    assert before < {path.name for path in store.shards()}
    appended.clear()
    fill([Wanted(store, images)], network, boundary, device="cpu")
    assert not appended


def test_what_was_committed_before_an_exception_stays(place):
    network, boundary, cache, images = place
    Path(images.paths[7]).unlink()
    store = clean(cache, network, boundary)
    with pytest.raises(TuningError, match=r"expected to read 40 images, 1 cannot be read \(.*07\.png: .*put them back"):
        fill([Wanted(store, images)], network, boundary, device="cpu")
    assert store.missing(images.digests).tolist() == [7]
    assert not any(module._forward_hooks for module in network.modules())


def change(network, how):
    """Change the norm before the boundary so that float16 does not hold what it gives."""
    norm = network.trunk.middle[1]
    with torch.no_grad():
        if how == "all are tiny":
            norm.weight.mul_(1e-9)
            norm.bias.mul_(1e-9)
        elif how == "one channel is tiny":
            norm.weight[2].mul_(1e-9)
            norm.bias[2].mul_(1e-9)
        elif how == "all are subnormal":
            norm.weight.mul_(1e-7)
            norm.bias.mul_(1e-7)
        elif how == "one channel is huge":
            norm.weight[1].fill_(1e7)
        elif how == "one channel hardly varies":
            norm.weight[0].fill_(1e-4)
            norm.bias[0].fill_(3.0)


HARD = ["all are tiny", "one channel is tiny", "all are subnormal", "one channel is huge", "one channel hardly varies"]


@pytest.mark.parametrize("how", HARD)
def test_what_float16_does_not_hold_is_stored_as_float32(place, how):
    network, boundary, cache, images = place
    change(network, how)
    store = clean(cache, network, boundary)
    fill([Wanted(store, images)], network, boundary, device="cpu")

    found = store.read(images.digests, as_stored=True)

    assert found.dtype == np.float32
    wanted = activations(network, images).reshape(COUNT, *boundary.shape)
    error = found.reshape(wanted.shape) - wanted
    for channel in range(4):
        assert error[:, channel].std() <= 1e-2 * wanted[:, channel].std(), channel


def test_a_network_that_float16_suits_is_measured_so(place):
    network, boundary, _, images = place
    found = views.measure(network, boundary, images, "cpu")
    assert (found.wide, found.width, found.shape) == (False, 2, boundary.shape)
    assert not any(module._forward_hooks for module in network.modules())


def test_images_unlike_the_sample_are_stored_as_float32(place):
    network, boundary, cache, images = place
    measured = views.measure(network, boundary, images, "cpu")
    change(network, "one channel is huge")
    store = clean(cache, network, boundary)
    fill([Wanted(store, images)], network, boundary, device="cpu", measured=measured)
    assert store.read(images.digests, as_stored=True).dtype == np.float32


def test_images_that_cannot_be_read_are_no_part_of_the_sample(place):
    network, boundary, _, images = place
    for path in images.paths[1:]:
        Path(path).unlink()
    assert views.measure(network, boundary, images, "cpu").means
    Path(images.paths[0]).unlink()
    assert not views.measure(network, boundary, images, "cpu").means


def test_activations_that_are_not_finite_are_told(place):
    network, boundary, cache, images = place
    with torch.no_grad():
        network.trunk.middle[1].weight.fill_(float("inf"))
    with pytest.raises(TuningError, match=r"at middle, found NaN or infinity for \d+ images: --views 0"):
        fill([Wanted(clean(cache, network, boundary), images)], network, boundary, device="cpu")


def test_rows_in_float16_that_lose_something_are_computed_again(place):
    network, boundary, cache, images = place
    change(network, "all are tiny")
    store = clean(cache, network, boundary)
    store.append(images.digests, np.zeros((COUNT, boundary.size), np.float16))  # as an earlier version did
    wanted = [Wanted(store, images)]
    measured = views.measure(network, boundary, images, "cpu")

    assert measured.wide
    assert missing_bytes(wanted, boundary) == 0
    assert missing_bytes(wanted, boundary, measured.width) == all_bytes(wanted, boundary, measured.width)
    views.drop_narrow(wanted, measured)
    fill(wanted, network, boundary, device="cpu", measured=measured)
    assert missing_bytes(wanted, boundary, measured.width) == 0
    assert (store.read(images.digests) != 0).any()


def test_rows_in_float16_that_lose_nothing_stay(place):
    network, boundary, cache, images = place
    wanted = [Wanted(clean(cache, network, boundary), images)]
    fill(wanted, network, boundary, device="cpu")
    before = wanted[0].store.shards()
    views.drop_narrow(wanted, views.measure(network, boundary, images, "cpu"))
    assert wanted[0].store.shards() == before


def test_shares_of_processes_are_a_partition(place):
    network, boundary, cache, images = place
    store = clean(cache, network, boundary)
    seen = []
    for rank in range(3):
        fill([Wanted(store, images)], network, boundary, device="cpu", share=(rank, 3))
        seen.append(COUNT - len(store.missing(images.digests)))
    assert 0 < seen[0] < seen[1] < seen[2] == COUNT


def test_several_stores_share_one_bar(place):
    network, boundary, cache, images = place
    told = Told()
    wanted = [Wanted(store, images) for store in stores(cache, network, boundary, "light", 2, 0)]
    fill(wanted, network, boundary, device="cpu", progress=told)
    assert {words[0] for words in told.calls} == {"views"}
    done = [words[1] for words in told.calls]
    assert done == sorted(done)
    assert told.calls[-1][1:] == (2 * COUNT, 2 * COUNT)


def test_nothing_to_do_builds_nothing(place, monkeypatch):
    network, boundary, cache, images = place
    wanted = [Wanted(clean(cache, network, boundary), images)]
    fill(wanted, network, boundary, device="cpu")
    before = wanted[0].store.shards()
    monkeypatch.setattr(views, "TorchEngine", None)
    fill(wanted, network, boundary, device="cpu")
    assert wanted[0].store.shards() == before != []

from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.store import Store
from bottleneck.errors import TuningError
from bottleneck.finetuning import activations as module
from bottleneck.finetuning.activations import (
    RequiredActivations,
    all_bytes,
    check_disk_space,
    clean_store,
    fill,
    missing_bytes,
    view_stores,
)
from bottleneck.finetuning.boundary import find_boundary
from bottleneck.finetuning.freeze import trainable_plan
from bottleneck.finetuning.loaders import ALL, ImageLoader
from bottleneck.finetuning.recipe import Recipe
from tests.finetuning.small import Small, dataset, made
from tests.variants import each

COUNT = 40


class Recorder:
    def __init__(self):
        self.calls = []

    def __call__(self, *words):
        self.calls.append(words)


@pytest.fixture
def place(tmp_path):
    return made_in(tmp_path)


def made_in(tmp_path):
    """Return a network, a boundary in it, a cache and images."""
    torch.manual_seed(0)
    network = made(Small(), 6)
    calls = network.trace()
    boundary = find_boundary(network, trainable_plan(network, Recipe(unfreeze=("last",)), calls), calls)
    assert boundary.module == "middle"
    return network, boundary, FeatureCache(tmp_path / "cache"), dataset(tmp_path / "images", COUNT)


def activations(network, images, augment="none", number=0, seed=0):
    loader = ImageLoader(images, network.backbone.spec.preprocessing, augment, seed)
    ((_, values),) = loader.batches(number, 100, None, ALL)
    with torch.no_grad():
        return network.trunk.middle(network.trunk.stem(values) + network.trunk.bias).flatten(1).numpy()


def test_cached_activations_are_those_at_the_boundary(place):
    network, boundary, cache, images = place
    store = clean_store(cache, network, boundary)
    fill([RequiredActivations(store, images)], network, boundary, device="cpu")
    found = store.read(images.digests, as_stored=True)
    assert found.dtype == np.float16
    assert found.shape == (COUNT, boundary.size)
    np.testing.assert_allclose(found, activations(network, images), atol=2e-3)
    assert not any(module._forward_hooks for module in network.modules())


def test_each_view_has_its_own_activations(place):
    network, boundary, cache, images = place
    found = view_stores(cache, network, boundary, "standard", 2, 3)
    assert len({store.name for store in found}) == 2
    fill([RequiredActivations(store, images) for store in found], network, boundary, device="cpu")
    for number, store in enumerate(found):
        wanted = activations(network, images, "standard", number, 3) if number else None
        if wanted is not None:
            np.testing.assert_allclose(store.read(images.digests), wanted, atol=2e-3)
    one, other = (store.read(images.digests) for store in found)
    assert (np.abs(one - other).max(axis=1) > 0.01).all()


def test_views_have_stores_by_augmentation_number_and_seed(place):
    network, boundary, cache, _ = place
    plain = clean_store(cache, network, boundary)
    assert view_stores(cache, network, boundary, "none", 4, 0) == (plain,)
    names = {store.name for store in view_stores(cache, network, boundary, "light", 3, 0)}
    assert len(names) == 3
    assert plain.name not in names
    assert names & {store.name for store in view_stores(cache, network, boundary, "light", 2, 0)}
    assert not names & {store.name for store in view_stores(cache, network, boundary, "light", 3, 1)}
    assert not names & {store.name for store in view_stores(cache, network, boundary, "strong", 3, 0)}
    assert plain.folder.parent == cache.activations().folder
    assert not FeatureCache(cache.root).stores()


def test_bytes_are_counted_by_row(place):
    network, boundary, cache, images = place
    store = clean_store(cache, network, boundary)
    required = [RequiredActivations(store, images)]
    row = 2 * boundary.size + 32
    assert all_bytes(required, boundary) == missing_bytes(required, boundary) == COUNT * row
    fill([RequiredActivations(store, images.subset(range(10)))], network, boundary, device="cpu")
    assert missing_bytes(required, boundary) == (COUNT - 10) * row
    assert all_bytes(required, boundary) == COUNT * row


def test_activations_that_do_not_fit_on_the_disk_are_refused(place):
    network, boundary, cache, images = place
    required = [RequiredActivations(clean_store(cache, network, boundary), images)]
    needed = all_bytes(required, boundary)
    check_disk_space(required, boundary, needed)
    with pytest.raises(TuningError, match=r"those at middle take .*--views 0.*, or raise --views-limit"):
        check_disk_space(required, boundary, needed - 1)
    free = shutil_usage(needed - 1)
    with pytest.raises(TuningError, match="those at middle take"):
        check_disk_space(required, boundary, needed, width=4, disk_usage=free)
    with pytest.raises(TuningError, match=r"GB of free disk for the activations at middle, found .*--views 0"):
        check_disk_space(required, boundary, needed, disk_usage=free)
    assert Path(free.asked).exists()
    fill([RequiredActivations(required[0].store, images.subset([0]))], network, boundary, device="cpu")
    check_disk_space(required, boundary, needed, disk_usage=free)  # what is there needs no room


def shutil_usage(free):
    def usage(path):
        usage.asked = path
        return type("Usage", (), {"free": free})

    return usage


def test_after_a_kill_only_missing_activations_are_computed(place, monkeypatch):
    network, boundary, cache, images = place
    store = clean_store(cache, network, boundary)
    first = images.subset(range(15))
    fill([RequiredActivations(store, first)], network, boundary, device="cpu")
    before = {path.name for path in store.shards()}
    appended = []
    append = Store.append

    def counted(self, digests, features):
        appended.extend(row.tobytes() for row in digests)
        return append(self, digests, features)

    monkeypatch.setattr(Store, "append", counted)
    fill([RequiredActivations(store, images)], network, boundary, device="cpu")
    assert sorted(appended) == sorted(row.tobytes() for row in images.digests[15:])
    assert before < {path.name for path in store.shards()}
    appended.clear()
    fill([RequiredActivations(store, images)], network, boundary, device="cpu")
    assert not appended


def test_activations_committed_before_an_exception_are_kept(place):
    network, boundary, cache, images = place
    Path(images.paths[7]).unlink()
    store = clean_store(cache, network, boundary)
    with pytest.raises(TuningError, match=r"expected to read 40 images, 1 cannot be read \(.*07\.png: .*put them back"):
        fill([RequiredActivations(store, images)], network, boundary, device="cpu")
    assert store.missing(images.digests).tolist() == [7]
    assert not any(module._forward_hooks for module in network.modules())


def change(network, how):
    """Change the norm before the boundary so that its output loses information in float16."""
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


@each("how", HARD)
def test_activations_that_lose_information_in_float16_are_stored_as_float32(tmp_path, how):
    network, boundary, cache, images = made_in(tmp_path)
    change(network, how)
    store = clean_store(cache, network, boundary)
    fill([RequiredActivations(store, images)], network, boundary, device="cpu")

    found = store.read(images.digests, as_stored=True)

    assert found.dtype == np.float32
    wanted = activations(network, images).reshape(COUNT, *boundary.shape)
    error = found.reshape(wanted.shape) - wanted
    for channel in range(4):
        assert error[:, channel].std() <= 1e-2 * wanted[:, channel].std(), channel


def test_a_network_with_usual_activations_is_not_wide(place):
    network, boundary, _, images = place
    found = module.measure(network, boundary, images, "cpu")
    assert (found.wide, found.width, found.shape) == (False, 2, boundary.shape)
    assert not any(module._forward_hooks for module in network.modules())


def test_images_unlike_the_sample_are_stored_as_float32(place):
    network, boundary, cache, images = place
    stats = module.measure(network, boundary, images, "cpu")
    change(network, "one channel is huge")
    store = clean_store(cache, network, boundary)
    fill([RequiredActivations(store, images)], network, boundary, device="cpu", stats=stats)
    assert store.read(images.digests, as_stored=True).dtype == np.float32


def test_images_that_cannot_be_read_are_left_out_of_the_sample(place):
    network, boundary, _, images = place
    for path in images.paths[1:]:
        Path(path).unlink()
    assert module.measure(network, boundary, images, "cpu").means
    Path(images.paths[0]).unlink()
    assert not module.measure(network, boundary, images, "cpu").means


def test_activations_that_are_not_finite_are_an_error(place):
    network, boundary, cache, images = place
    with torch.no_grad():
        network.trunk.middle[1].weight.fill_(float("inf"))
    with pytest.raises(TuningError, match=r"at middle, found NaN or infinity for \d+ images: --views 0"):
        fill([RequiredActivations(clean_store(cache, network, boundary), images)], network, boundary, device="cpu")


def test_float16_rows_that_lost_information_are_recomputed(place):
    network, boundary, cache, images = place
    change(network, "all are tiny")
    store = clean_store(cache, network, boundary)
    store.append(images.digests, np.zeros((COUNT, boundary.size), np.float16))  # as an earlier version did
    required = [RequiredActivations(store, images)]
    stats = module.measure(network, boundary, images, "cpu")

    assert stats.wide
    assert missing_bytes(required, boundary) == 0
    assert missing_bytes(required, boundary, stats.width) == all_bytes(required, boundary, stats.width)
    module.drop_narrow(required, stats)
    fill(required, network, boundary, device="cpu", stats=stats)
    assert missing_bytes(required, boundary, stats.width) == 0
    assert (store.read(images.digests) != 0).any()


def test_float16_rows_without_loss_are_kept(place):
    network, boundary, cache, images = place
    required = [RequiredActivations(clean_store(cache, network, boundary), images)]
    fill(required, network, boundary, device="cpu")
    before = required[0].store.shards()
    module.drop_narrow(required, module.measure(network, boundary, images, "cpu"))
    assert required[0].store.shards() == before


def test_the_shares_of_all_processes_are_a_partition(place):
    network, boundary, cache, images = place
    store = clean_store(cache, network, boundary)
    seen = []
    for rank in range(3):
        fill([RequiredActivations(store, images)], network, boundary, device="cpu", share=(rank, 3))
        seen.append(COUNT - len(store.missing(images.digests)))
    assert 0 < seen[0] < seen[1] < seen[2] == COUNT


def test_several_stores_share_one_progress_bar(place):
    network, boundary, cache, images = place
    progress = Recorder()
    required = [RequiredActivations(store, images) for store in view_stores(cache, network, boundary, "light", 2, 0)]
    fill(required, network, boundary, device="cpu", progress=progress)
    assert {words[0] for words in progress.calls} == {"views"}
    done = [words[1] for words in progress.calls]
    assert done == sorted(done)
    assert progress.calls[-1][1:] == (2 * COUNT, 2 * COUNT)


def test_without_missing_activations_nothing_is_computed(place):
    network, boundary, cache, images = place
    required = [RequiredActivations(clean_store(cache, network, boundary), images)]
    fill(required, network, boundary, device="cpu")
    before = required[0].store.shards()
    with torch.no_grad():
        network.trunk.middle[1].weight.fill_(float("inf"))  # an engine would compute infinity, which is an error
    fill(required, network, boundary, device="cpu")
    assert required[0].store.shards() == before != []

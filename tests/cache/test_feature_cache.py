import re
from dataclasses import replace

import numpy as np
import pytest

from bottleneck.backbones.request import Request
from bottleneck.cache.feature_cache import find_anywhere
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures
from tests.cache.numbered import add, case, digests, features, files, flip_a_feature


def test_specs_never_mix(cache, store, spec):
    other = cache.store(replace(spec, preprocessing=replace(spec.preprocessing, crop=27)))
    store.append(digests(1), features(1))
    other.append(digests(1), features(2))
    other.append(digests(3), features(3))

    assert np.array_equal(store.read(digests(1)), features(1))
    assert np.array_equal(other.read(digests(1)), features(2))
    assert not store.has(digests(3)).any()


def test_all_stores_are_listed_by_name(cache, spec):
    specs = [replace(spec, backbone=name) for name in ("c", "a", "b")]
    for one in specs:
        add(cache.store(one), 1)

    assert [found.spec.backbone for found in cache.stores()] == ["a", "b", "c"]
    assert {found.spec for found in cache.stores()} == set(specs)


def test_an_absent_cache_has_no_stores(cache):
    assert cache.stores() == []


def test_a_folder_that_is_not_a_store_is_ignored(cache, store):
    add(store, 1)
    (cache.root / "features" / "notes").mkdir()

    assert cache.stores() == [store]


def test_any_name_of_a_backbone_stays_below_the_cache(cache, spec):
    stores = []
    for backbone in ("timm/x.y", "../../escape", "", "a b", "ä", "x" * 100):
        with case(backbone):
            stores.append(cache.store(replace(spec, backbone=backbone)))
            add(stores[-1], 1)
            assert stores[-1].folder.resolve().parent == (cache.root / "features").resolve()
    assert cache.stores() == sorted(stores, key=lambda store: store.name)


def test_a_store_is_found_by_the_name_of_its_backbone(cache, store):
    add(store, 1)

    assert cache.find("tiny") == store


def test_a_store_is_found_by_a_prefix_of_its_fingerprint(cache, store, spec):
    add(store, 1)
    add(cache.store(replace(spec, decoder=2)), 1)

    assert cache.find(f"tiny-{spec.fingerprint[:4]}") == store
    assert cache.find(store.short_name) == store
    assert cache.find(store.name) == store


def test_the_short_name_has_8_digits_of_the_fingerprint(store, spec):
    assert store.short_name == f"tiny-{spec.fingerprint[:8]}"


def test_a_name_of_several_stores_lists_them(cache, store, spec):
    other = cache.store(replace(spec, decoder=2))
    add(store, 1), add(other, 1)

    with pytest.raises(CacheError, match="found 2 specs; name one of") as caught:
        cache.find("tiny")

    assert store.short_name in str(caught.value)
    assert other.short_name in str(caught.value)


def test_a_prefix_of_several_stores_is_refused(cache, store, spec):
    add(store, 1), add(cache.store(replace(spec, decoder=2)), 1)

    with pytest.raises(CacheError, match="found 2 specs"):
        cache.find("tiny-")


def test_a_backbones_name_does_not_find_a_longer_name(cache, spec):
    add(cache.store(replace(spec, backbone="tiny-large")), 1)

    with pytest.raises(CacheError, match="found 0 specs"):
        cache.find("tiny")
    with pytest.raises(CacheError, match="found 0 specs"):
        cache.find("tin")


def test_a_name_that_is_absent_lists_what_is_cached(cache, store):
    add(store, 1)

    with pytest.raises(CacheError, match=re.escape(f"cached are: {store.short_name}. Run `bottleneck extract` first")):
        cache.find("resnet50")


def test_an_empty_cache_says_so(cache):
    with pytest.raises(CacheError, match="cached are: none"):
        cache.find("resnet50")


def test_a_store_is_opened_by_its_full_name_only(cache, store):
    add(store, 1)

    assert cache.open(store.name) == store
    for name in ("tiny", "tiny-0", "", ".."):
        with case(name), pytest.raises(CacheError, match="expected a spec"):
            cache.open(name)


def test_a_store_whose_spec_cannot_be_read_hides_no_other(cache, store, spec):
    other = cache.store(replace(spec, backbone="other"))
    add(store, 1), add(other, 1)
    (other.folder / "spec.json").write_text("{}")

    with pytest.warns(BottleneckWarning, match=re.escape(str(other.folder))):
        assert cache.stores() == [store]
    with pytest.warns(BottleneckWarning):
        assert cache.find("tiny") == store


def test_features_are_read_without_spec_json_and_the_next_append_restores_it(cache, store):
    add(store, 1)
    (store.folder / "spec.json").unlink()

    assert np.array_equal(store.read(digests(1)), features(1))
    add(store, 2)
    assert cache.stores() == [store]


# --- activations -------------------------------------------------------------------------------------------------


def test_activations_have_the_layout_of_features_in_another_folder(cache, store, activations, spec):
    path, other = add(store, 1), add(activations, 1)

    assert other.parents[2] == cache.root / "activations"
    assert activations.name == f"tiny-{replace(spec, layer='layer3', pooling='none').fingerprint}"
    layout = {name.replace(path.stem, "x") for name in files(store.folder)}
    assert {name.replace(other.stem, "x") for name in files(activations.folder)} == layout


def test_features_and_activations_never_see_each_other(cache, store, activations):
    add(store, 1), add(activations, 2)

    assert cache.stores() == cache.listed()[0] == [store]
    assert cache.activations().stores() == cache.activations().listed()[0] == [activations]
    assert cache.find("tiny") == store
    assert cache.activations().find("tiny") == activations
    for home, name in ((cache, activations.name), (cache.activations(), store.name)):
        with pytest.raises(CacheError, match="found 0 specs"):
            home.find(name)
        with pytest.raises(CacheError, match="expected a spec"):
            home.open(name)
    assert cache.activations().open(activations.name) == activations


def test_one_spec_of_both_kinds_is_two_maps(cache, store, spec):
    other = cache.activations().store(spec)
    store.append(digests(1), features(1))
    other.append(digests(1), features(2))

    assert other.name == store.name
    assert np.array_equal(store.read(digests(1)), features(1))
    assert np.array_equal(other.read(digests(1)), features(2))


def test_activations_of_activations_are_the_same_stores(cache, activations):
    add(activations, 1)

    assert cache.activations().activations().stores() == [activations]
    assert [kind.room for kind in cache.activations().rooms()] == ["features", "activations"]


def test_fine_tuning_recomputes_lost_activations(activations):
    with pytest.raises(MissingFeatures, match=r"expected activations of 1 .* run fine-tuning again"):
        activations.read(digests(1))
    with pytest.raises(MissingFeatures, match="run fine-tuning"):
        activations.dim()
    flip_a_feature(add(activations, 1), 1)
    with pytest.warns(BottleneckWarning, match="moved to .* fine-tuning computes its images again"):
        assert not activations.has(digests(1)).any()


def test_a_name_is_searched_for_in_both_kinds(cache, store, activations, spec):
    add(activations, 1)
    assert find_anywhere(cache, "tiny") == activations

    add(store, 1)
    assert find_anywhere(cache, store.short_name) == store
    assert find_anywhere(cache, activations.short_name) == activations
    with pytest.raises(CacheError, match="found 2 specs") as caught:
        find_anywhere(cache, "tiny")
    for name in (f"features/{store.short_name}", f"activations/{activations.short_name}"):
        assert name in str(caught.value)
    assert find_anywhere(cache, "features/tiny") == store
    assert find_anywhere(cache, "activations/tiny") == activations


def test_one_spec_of_both_kinds_is_distinguished_by_a_prefix(cache, store, spec):
    other = cache.activations().store(spec)
    add(store, 1), add(other, 1)

    with pytest.raises(CacheError, match=f"features/{store.short_name}, activations/{store.short_name}"):
        find_anywhere(cache, store.name)
    assert find_anywhere(cache, f"activations/{store.name}") == other


# --- the request of the backbone --------------------------------------------------------------------------------


def test_a_request_is_saved(store):
    store.remember_request({"model": "tiny", "weights": "w.pth", "seed": 0})

    assert store.request() == {"model": "tiny", "weights": "w.pth", "seed": 0}


def test_deleting_the_request_is_harmless(cache, store):
    add(store, 1)
    store.remember_request({"model": "tiny"})
    (store.folder / "request.json").unlink()

    assert store.request() is None
    assert cache.find("tiny") == store
    assert np.array_equal(store.read(digests(1)), features(1))


def test_a_request_that_is_unchanged_is_not_written_again(store):
    store.remember_request({"model": "tiny"})
    before = (store.folder / "request.json").stat()
    store.remember_request({"model": "tiny"})
    after = (store.folder / "request.json").stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_store_returns_its_request(cache, spec):
    store = cache.store(spec)
    assert store.asked() is None

    request = Request(model="resnet18", weights="none", layer=("layer3",), flip=True)
    store.remember_request(request.to_json())

    assert store.asked() == replace(request, precision="fp32")  # as of the spec
    assert request.unusual() == "--weights none --layer layer3 --flip"


def test_a_store_is_found_by_the_requested_name_with_a_tag(cache, spec):
    stores = [cache.store(replace(spec, backbone="timm/resnet18", weights=digit * 64)) for digit in "12"]
    for store, tag in zip(stores, ("a1_in1k", "tv_in1k"), strict=True):
        add(store, 1)
        store.remember_request(Request(model=f"timm/resnet18.{tag}").to_json())

    assert cache.find("timm/resnet18.tv_in1k").spec == stores[1].spec
    with pytest.raises(CacheError, match="found 2 specs"):
        cache.find("timm/resnet18")

import hashlib
import shutil

import h5py
import numpy as np
import pytest

import bottleneck.cache.merge
from bottleneck.backbones.tuned import Tuned, record_tuned, recorded_tuned
from bottleneck.cache.compact import compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.merge import merge
from bottleneck.cache.scans import load_scan
from bottleneck.errors import CacheError
from bottleneck.extraction.extract import extract
from bottleneck.images.splits import Shares
from tests.cache.numbered import D, add, digests, features, files, flip_a_feature


@pytest.fixture
def theirs(tmp_path, spec):
    return FeatureCache(tmp_path / "theirs").store(spec)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_what_is_missing_is_taken_over_and_what_is_known_is_left(cache, store, theirs):
    add(store, 1, 2)
    add(theirs, 2, 3)
    add(theirs, 4)
    done = merge(cache, theirs.folder.parents[1])

    assert (done.added, done.known, done.problems) == (2, 1, [])
    assert np.array_equal(store.read(digests(1, 2, 3, 4)), features(1, 2, 3, 4))


def test_our_own_row_stays_where_theirs_differs(cache, store, theirs):
    add(store, 1)
    theirs.append(digests(1), features(9))
    merge(cache, theirs.folder.parents[1])

    assert np.array_equal(store.read(digests(1)), features(1))


def test_merging_again_writes_nothing(cache, store, theirs):
    add(theirs, 1, 2)
    merge(cache, theirs.folder.parents[1])
    before = contents(cache.root)
    done = merge(cache, theirs.folder.parents[1])

    assert (done.added, done.known) == (0, 2)
    assert contents(cache.root) == before


def test_nothing_in_the_other_cache_is_changed_not_even_what_is_damaged(cache, store, theirs):
    add(theirs, 1, 2)
    flip_a_feature(add(theirs, 3), 3)
    before = contents(theirs.folder)
    done = merge(cache, theirs.folder.parents[1])

    assert contents(theirs.folder) == before
    assert done.added == 2
    (problem,) = done.problems
    assert "damaged" in problem
    assert store.missing(digests(1, 2, 3)).tolist() == [2]


def test_shards_that_are_joined_while_they_are_merged_are_taken_over_all_the_same(cache, store, theirs, monkeypatch):
    for number in range(6):
        add(theirs, number)
    todo = [compact, lambda other: add(other, 6), compact]

    def meanwhile(path, spec, read=bottleneck.cache.merge.read_shard):
        if todo and path.parents[1] == theirs.folder:
            todo.pop(0)(theirs)
        return read(path, spec)

    monkeypatch.setattr(bottleneck.cache.merge, "read_shard", meanwhile)
    done = merge(cache, theirs.folder.parents[1])

    assert not todo
    assert (done.added, done.problems) == (7, [])
    assert np.array_equal(store.read(digests(*range(7))), features(*range(7)))


def test_a_repeated_row_is_taken_once(cache, store, theirs):
    theirs.append(digests(1, 1, 2), features(1, 1, 2))

    assert merge(cache, theirs.folder.parents[1]).added == 2
    assert len(store.load(store.shards()[0].stem).digests) == 2


def test_specs_that_are_not_here_come_along_with_how_they_were_asked_for(cache, theirs):
    add(theirs, 1)
    theirs.remember_request({"model": "tiny"})
    merge(cache, theirs.folder.parents[1])
    (store,) = cache.stores()

    assert store.name == theirs.name
    assert store.request() == {"model": "tiny"}


def test_features_of_a_fine_tuned_network_stay_known_as_such(cache, theirs):
    add(theirs, 1)
    theirs.remember_request({"model": "tiny"})
    found = Tuned(model="tiny", weights="none", options={}, dataset="0" * 64, score=0.9)
    record_tuned(theirs.folder, found)
    merge(cache, theirs.folder.parents[1])

    assert recorded_tuned(cache.stores()[0].folder) == found


def test_our_own_request_stays(cache, store, theirs):
    add(store, 1)
    store.remember_request({"model": "ours"})
    add(theirs, 2)
    theirs.remember_request({"model": "theirs"})
    merge(cache, theirs.folder.parents[1])

    assert store.request() == {"model": "ours"}


def test_features_of_another_width_are_a_problem_and_the_rest_is_taken(cache, store, theirs):
    add(store, 1)
    theirs.append(digests(5), np.ones((1, D + 1), np.float32))
    add(theirs, 2)
    done = merge(cache, theirs.folder.parents[1])

    assert done.added == 1
    assert [f"{D + 1} features" in problem for problem in done.problems] == [True]


def test_features_that_are_not_finite_are_a_problem(cache, store, theirs):
    path = add(theirs, 1)
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] = np.nan
    path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.h5"))
    done = merge(cache, theirs.folder.parents[1])

    assert done.added == 0
    assert "expected finite features" in done.problems[0]


def test_a_store_whose_spec_cannot_be_read_is_a_problem(cache, store, theirs):
    add(theirs, 1)
    (theirs.folder / "spec.json").write_text("{")
    done = merge(cache, theirs.folder.parents[1])

    assert done.added == 0
    assert "expected a spec" in done.problems[0]


def test_scans_come_along_so_that_heads_can_be_fitted_without_the_images(folder):
    images = folder({f"{name}/{n}.jpg": 100 * place + n for place, name in enumerate("ab") for n in range(4)})
    extract(images, cache="theirs")
    shutil.rmtree(images)
    done = merge(FeatureCache("ours"), "theirs")

    assert done.scans == 1
    assert len(load_scan(FeatureCache("ours").root, images, Shares())) == 8


def test_our_own_scan_of_the_same_images_stays(folder):
    images = folder({f"{name}/{n}.jpg": 100 * place + n for place, name in enumerate("ab") for n in range(4)})
    extract(images, cache="theirs")
    (images / "a/0.jpg").unlink()
    extract(images, cache="ours")
    done = merge(FeatureCache("ours"), "theirs")

    assert (done.added, done.scans) == (1, 0)
    assert len(load_scan(FeatureCache("ours").root, images, Shares())) == 7


def test_a_scan_that_cannot_be_read_is_a_problem_and_the_features_come_all_the_same(cache, store, theirs):
    add(theirs, 1)
    root = theirs.folder.parents[1]
    (root / "datasets").mkdir()
    (root / "datasets" / "x-0.json").write_text("[]")
    done = merge(cache, root)

    assert done.added == 1
    assert len(done.problems) == 1


@pytest.mark.parametrize("source", ["nothing", "."])
def test_a_folder_that_is_no_cache_is_refused(cache, source):
    with pytest.raises(CacheError, match="expected a cache with a folder features/"):
        merge(cache, source)


def test_a_cache_is_never_merged_with_itself(cache, store, tmp_path):
    add(store, 1)
    (tmp_path / "link").symlink_to(cache.root)
    with pytest.raises(CacheError, match="itself"):
        merge(cache, tmp_path / "link")

from collections.abc import Sequence

import h5py
import numpy as np
import pytest

from bottleneck.backbones.tuned import Tuned, record_tuned, recorded_tuned
from bottleneck.cache.compact import compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.merge import Inspection, NewRows, merge
from bottleneck.cache.scans import load_scan
from bottleneck.cache.store import Store
from bottleneck.errors import CacheError
from bottleneck.images.splits import Shares
from tests.cache.numbered import D, add, case, digests, features, files, flip_a_feature, named, scan


@pytest.fixture
def theirs(tmp_path, spec):
    return FeatureCache(tmp_path / "theirs").store(spec)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_missing_features_are_added_and_known_ones_are_kept(cache, store, theirs):
    add(store, 1, 2)
    add(theirs, 2, 3)
    add(theirs, 4)
    done = merge(cache, theirs.folder.parents[1])

    assert (done.added, done.known, done.problems) == (2, 1, [])
    assert np.array_equal(store.read(digests(1, 2, 3, 4)), features(1, 2, 3, 4))


def test_our_own_row_is_kept_if_theirs_differs(cache, store, theirs):
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


def test_nothing_in_the_other_cache_is_changed_even_if_it_is_damaged(cache, store, theirs):
    add(theirs, 1, 2)
    flip_a_feature(add(theirs, 3), 3)
    before = contents(theirs.folder)
    done = merge(cache, theirs.folder.parents[1])

    assert contents(theirs.folder) == before
    assert done.added == 2
    (problem,) = done.problems
    assert "damaged" in problem
    assert store.missing(digests(1, 2, 3)).tolist() == [2]


def test_shards_that_are_joined_during_a_merge_are_merged_too(cache, store, theirs):
    for number in range(6):
        add(theirs, number)
    todo = [compact, lambda other: add(other, 6), compact]

    def meanwhile(*_: object) -> None:
        if todo:
            todo.pop(0)(theirs)

    done = merge(cache, theirs.folder.parents[1], meanwhile)

    assert not todo
    assert (done.added, done.problems) == (7, [])
    assert np.array_equal(store.read(digests(*range(7))), features(*range(7)))


def test_a_repeated_row_is_added_once(cache, store, theirs):
    theirs.append(digests(1, 1, 2), features(1, 1, 2))

    assert merge(cache, theirs.folder.parents[1]).added == 2
    assert len(store.load(store.shards()[0].stem).digests) == 2


def test_new_specs_are_added_with_their_requests(cache, theirs):
    add(theirs, 1)
    theirs.remember_request({"model": "tiny"})
    merge(cache, theirs.folder.parents[1])
    (store,) = cache.stores()

    assert store.name == theirs.name
    assert store.request() == {"model": "tiny"}


def test_the_record_of_a_fine_tuned_network_is_merged(cache, theirs):
    add(theirs, 1)
    theirs.remember_request({"model": "tiny"})
    found = Tuned(model="tiny", weights="none", options={}, dataset="0" * 64, score=0.9)
    record_tuned(theirs.folder, found)
    merge(cache, theirs.folder.parents[1])

    assert recorded_tuned(cache.stores()[0].folder) == found


def test_our_own_request_is_kept(cache, store, theirs):
    add(store, 1)
    store.remember_request({"model": "ours"})
    add(theirs, 2)
    theirs.remember_request({"model": "theirs"})
    merge(cache, theirs.folder.parents[1])

    assert store.request() == {"model": "ours"}


def test_features_of_another_width_are_a_problem_and_the_rest_is_added(cache, store, theirs):
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
    named(path)
    done = merge(cache, theirs.folder.parents[1])

    assert done.added == 0
    assert "expected finite features" in done.problems[0]


def test_a_store_whose_spec_cannot_be_read_is_a_problem(cache, store, theirs):
    add(theirs, 1)
    (theirs.folder / "spec.json").write_text("{")
    done = merge(cache, theirs.folder.parents[1])

    assert done.added == 0
    assert "expected a spec" in done.problems[0]


def test_scans_are_merged_but_our_own_scan_of_the_same_images_is_kept(cache, store, theirs):
    add(theirs, 1, 2, 3)
    add(store, 1, 2)
    scan(theirs.folder.parents[1], 1, 2, 3)
    scan(theirs.folder.parents[1], 3, source="/others")
    scan(cache.root, 1, 2)
    done = merge(cache, theirs.folder.parents[1])

    assert (done.added, done.scans) == (1, 1)
    assert len(load_scan(cache.root, "/images", Shares())) == 2
    assert len(load_scan(cache.root, "/others", Shares())) == 1


def test_an_inspection_sees_the_missing_rows_and_may_refuse_a_spec(cache, store, theirs):
    add(store, 1)
    path = add(theirs, 1, 2)
    seen = []

    def inspect(other: Store, rows: Sequence[NewRows]) -> Inspection:
        seen.extend((one.path, one.rows.tolist()) for one in rows)
        return Inspection(images=1, problem="they differ" if len(seen) == 1 else None, note="a note")

    refused = merge(cache, theirs.folder.parents[1], inspect=inspect)
    assert (refused.added, refused.recomputed, refused.problems, refused.notes) == (0, 1, ["they differ"], ["a note"])
    assert seen == [(path, [1])]
    done = merge(cache, theirs.folder.parents[1], inspect=inspect)
    assert (done.added, done.problems) == (1, [])
    assert merge(cache, theirs.folder.parents[1], inspect=inspect).recomputed == 0


def test_a_scan_that_cannot_be_read_is_a_problem_but_the_features_are_added(cache, store, theirs):
    add(theirs, 1)
    root = theirs.folder.parents[1]
    (root / "datasets").mkdir()
    (root / "datasets" / "x-0.json").write_text("[]")
    done = merge(cache, root)

    assert done.added == 1
    assert len(done.problems) == 1


def test_a_folder_that_is_not_a_cache_is_refused(cache):
    for source in ("nothing", "."):
        with case(source), pytest.raises(CacheError, match="expected a cache with a folder features/"):
            merge(cache, source)


def test_a_cache_is_never_merged_with_itself(cache, store, tmp_path):
    add(store, 1)
    (tmp_path / "link").symlink_to(cache.root)
    with pytest.raises(CacheError, match="itself"):
        merge(cache, tmp_path / "link")

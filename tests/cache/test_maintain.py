import os
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from bottleneck.cache.compact import Compaction, compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.maintain import Verification, gc, info, remove, verify
from bottleneck.cache.merge import merge
from bottleneck.errors import BottleneckWarning, CacheError
from bottleneck.utils.files import TEMPORARY
from tests.cache.numbered import D, add, case, digests, features, files, flip_a_feature, named, scan
from tests.variants import each

DAY = 86_400
UNFINISHED = f"{TEMPORARY}9-0123abcd"


def age(path: Path, days: float) -> Path:
    when = time.time() - days * DAY
    os.utime(path, (when, when))
    return path


# --- info -------------------------------------------------------------------------------------------------------


def test_info_counts_each_image_once_and_all_bytes(cache, store):
    paths = [age(add(store, 1, 2), 3), age(add(store, 2, 3), 1)]
    (found,) = info(cache)

    assert (found.images, found.dim, found.dtype, found.shards) == (3, D, "float32", 2)
    assert found.bytes == sum(path.stat().st_size for path in paths)
    assert (found.name, found.short_name, found.model) == (store.name, store.short_name, "tiny")
    assert found.first < found.last
    assert found.first[:10] == time.strftime("%Y-%m-%d", time.gmtime(time.time() - 3 * DAY))


def test_info_lists_every_spec(cache, store, spec):
    add(store, 1)
    add(cache.store(replace(spec, weights="1" * 64)), 1, dtype="float16")

    assert sorted(found.dtype for found in info(cache)) == ["float16", "float32"]


def test_info_of_an_absent_cache_is_empty(cache):
    assert info(cache) == []
    assert not cache.root.exists()


def make_newer(path: Path) -> Path:
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    return named(path)


def test_a_newer_shard_prevents_neither_info_nor_rm(cache, store):
    make_newer(add(store, 1))
    (found,) = info(cache)

    assert "update bottleneck" in found.problem
    assert (found.images, found.shards) == (0, 1)
    assert remove(cache, "tiny").shards == 1
    assert info(cache) == []


def test_info_counts_what_is_in_quarantine(cache, store):
    add(store, 1)
    flip_a_feature(add(store, 2), 2)
    with pytest.warns(BottleneckWarning, match="damaged"):
        (found,) = info(cache)

    assert (found.images, found.shards, found.quarantined) == (1, 1, 1)


# --- verify -----------------------------------------------------------------------------------------------------


def test_an_intact_cache_is_verified(cache, store):
    add(store, 1, 2)
    add(store, 3)

    assert verify(cache) == Verification(shards=2, damage=[])


def rot(path: Path, numbers: tuple[int, ...]) -> None:
    """Flip a bit as a disk would: the file's times stay as they are."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    flip_a_feature(path, *numbers)
    os.utime(path, ns=times)


def test_bit_rot_is_found_and_its_images_are_missing(cache, store):
    add(store, 1, 2)
    rot(add(store, 3, 4), (3, 4))
    (problem,) = verify(cache).damage

    assert "damaged" in problem
    assert "quarantine" in problem
    assert store.missing(digests(1, 2, 3, 4)).tolist() == [2, 3]
    assert verify(cache) == Verification(shards=1, damage=[])


def test_features_that_are_not_finite_are_damage_even_under_a_matching_name(cache, store):
    path = add(store, 1)
    with h5py.File(path, "r+") as file:
        file["features"][0, 0] = np.inf
    named(path)

    assert "expected finite features" in verify(cache).damage[0]
    assert store.shards() == []


def test_a_newer_shard_is_reported_and_stays_in_place(cache, store):
    path = make_newer(add(store, 1))

    assert "update bottleneck" in verify(cache).damage[0]
    assert store.shards() == [path]


def test_a_spec_that_cannot_be_read_is_damage(cache, store):
    add(store, 1)
    (store.folder / "spec.json").write_text("{")

    assert "expected a spec" in verify(cache).damage[0]


def test_a_missing_spec_is_damage_and_info_warns_of_it(cache, store):
    add(store, 1)
    (store.folder / "spec.json").unlink()

    assert "expected a spec" in verify(cache).damage[0]
    with pytest.warns(BottleneckWarning, match="expected a spec"):
        assert info(cache) == []


def test_a_missing_cache_is_not_verified(cache):
    with pytest.raises(CacheError, match=r"there is no folder .*: `bottleneck extract IMAGES` makes it"):
        verify(cache)


def test_verify_reports_its_progress(cache, store):
    add(store, 1)
    add(store, 2)
    seen = []
    verify(cache, lambda *event: seen.append(event))

    assert seen == [("verify", 1, 2), ("verify", 2, 2)]


# --- rm ---------------------------------------------------------------------------------------------------------


def test_a_spec_is_deleted_and_no_other(cache, store, spec):
    other = cache.store(replace(spec, backbone="huge", weights="1" * 64))
    add(other, 1)
    for name in ("tiny", store.short_name, spec.fingerprint[:6]):
        add(store, 1)
        with case(name):
            gone = remove(cache, name)
            assert (gone.name, gone.images) == (store.name, 1)
            assert [left.name for left in cache.stores()] == [other.name]
            assert os.listdir(cache.root / "features") == [other.name]


def test_a_name_that_matches_two_specs_deletes_none(cache, store, spec):
    add(store, 1)
    add(cache.store(replace(spec, weights="1" * 64)), 1)
    with pytest.raises(CacheError, match="found 2 specs"):
        remove(cache, "tiny")

    assert len(cache.stores()) == 2


def test_a_spec_that_is_being_deleted_is_not_a_store(cache, store):
    add(store, 1)
    store.folder.rename(store.folder.with_name(f"{TEMPORARY}1-x"))

    assert cache.stores() == []


# --- gc ---------------------------------------------------------------------------------------------------------


def test_features_of_images_in_no_scan_are_deleted(cache, store):
    scan(cache.root, 1, 2)
    scan(cache.root, 5, source="/others")
    for path in (add(store, 1, 3), add(store, 2, 5), add(store, 4)):
        age(path, 20)
    found = gc(cache)

    assert (found.images, found.young) == (2, 0)
    assert store.missing(digests(1, 2, 3, 4, 5)).tolist() == [2, 3]
    assert np.array_equal(store.read(digests(1, 2, 5)), features(1, 2, 5))


def test_a_dry_run_reports_the_same_and_deletes_nothing(cache, store):
    scan(cache.root, 1)
    age(add(store, 1, 3), 20)
    age(add(store, 4), 20)
    (store.folder / "quarantine").mkdir()
    damaged = store.folder / "quarantine" / f"{'0' * 64}-1700000000000000000.h5"
    damaged.write_bytes(b"damaged")
    age(damaged, 20)
    (store.folder / "shards" / UNFINISHED).write_bytes(b"half")
    age(store.folder / "shards" / UNFINISHED, 20)
    before = files(cache.root)
    expected = gc(cache, dry_run=True)

    assert files(cache.root) == before
    assert (expected.images, expected.quarantined, expected.temporaries) == (2, 1, 1)
    done = gc(cache)
    assert vars(done) == vars(expected)
    assert len(files(cache.root)) < len(before)


def test_young_files_are_kept_for_a_running_extraction(cache, store):
    scan(cache.root, 1)
    add(store, 1, 3)
    (store.folder / "shards" / UNFINISHED).write_bytes(b"half")
    found = gc(cache)

    assert (found.images, found.young, found.temporaries, found.paths) == (0, 1, 0, [])
    assert store.has(digests(1, 3)).all()


def test_days_is_the_minimum_age(cache, store):
    scan(cache.root, 1)
    age(add(store, 3), 2)

    assert gc(cache, days=3, dry_run=True).images == 0
    assert gc(cache, days=1, dry_run=True).images == 1


def test_unfinished_files_and_folders_are_deleted_everywhere(cache, store, activations):
    scan(cache.root, 1)
    add(store, 1), add(activations, 1)
    folders = [cache.root, *(cache.root / name for name in ("features", "datasets", "specs", "activations"))]
    folders += [store.folder, store.folder / "shards", store.folder / "index"]
    folders += [activations.folder, activations.folder / "shards"]
    for folder in folders:
        folder.mkdir(exist_ok=True)
        left = folder / UNFINISHED
        if folder.name == "features":  # a spec that was being deleted
            (left / "shards").mkdir(parents=True)
            (left / "shards" / UNFINISHED).write_bytes(b"half")
        else:
            left.write_bytes(b"half")
        age(left, 20)
        with case(folder):
            found = gc(cache)
            assert (found.temporaries, found.paths) == (1, [left])
            assert not left.exists()
            assert store.has(digests(1)).all()
            assert activations.has(digests(1)).all()


def test_memos_of_deleted_shards_are_deleted(cache, store):
    scan(cache.root, 1)
    path = add(store, 1)
    stray = store.folder / "index" / ("0" * 64)
    stray.write_bytes(b"")
    age(stray, 20)

    assert gc(cache).memos == 1
    assert [memo.name for memo in (store.folder / "index").iterdir()] == [path.stem]


def test_without_a_scan_nothing_is_deleted(cache, store):
    age(add(store, 1), 20)
    with pytest.raises(CacheError, match="every feature would seem unneeded"):
        gc(cache)

    assert store.has(digests(1)).all()


def test_a_scan_that_cannot_be_read_is_an_error_before_anything_is_deleted(cache, store):
    scan(cache.root, 1)
    age(add(store, 1, 2), 20)
    (cache.root / "datasets" / "other-0.json").write_text("{")
    with pytest.raises(CacheError, match="cannot read the scan"):
        gc(cache)

    assert store.has(digests(1, 2)).all()


# --- activations ------------------------------------------------------------------------------------------------


def test_info_lists_features_and_activations_separately(cache, store, activations):
    add(store, 1), add(activations, 1, 2, dtype="float16")

    assert [(found.name, found.layer) for found in info(cache)] == [(store.name, "fc:input")]
    (found,) = info(cache.activations())
    assert (found.name, found.layer, found.images, found.dtype) == (activations.name, "layer3", 2, "float16")


def test_activations_are_verified_too(cache, store, activations):
    add(store, 1)
    rot(add(activations, 2, 3), (2, 3))
    found = verify(cache)

    assert found.shards == 2
    (problem,) = found.damage
    assert "fine-tuning computes its images again" in problem
    assert activations.missing(digests(2, 3)).tolist() == [0, 1]
    assert store.has(digests(1)).all()


def test_a_spec_of_activations_that_cannot_be_read_is_damage(cache, store, activations):
    add(store, 1), add(activations, 1)
    (activations.folder / "spec.json").write_text("{")

    (problem,) = verify(cache).damage
    assert "its activations are ignored" in problem


def test_a_cache_with_only_activations_is_verified(cache, activations):
    add(activations, 1)

    assert verify(cache) == Verification(shards=1, damage=[])


def test_activations_are_deleted_by_their_name_and_no_features(cache, store, activations):
    add(store, 1), add(activations, 1)
    with pytest.raises(CacheError, match="found 2 specs"):
        remove(cache, "tiny")
    gone = remove(cache, activations.short_name)

    assert (gone.name, gone.layer) == (activations.name, "layer3")
    assert os.listdir(cache.root / "activations") == []
    assert cache.stores() == [store]


def test_activations_of_images_in_no_scan_are_deleted(cache, activations):
    scan(cache.root, 1, 2)
    for path in (add(activations, 1, 3), add(activations, 4)):
        age(path, 20)
    add(activations, 2)
    found = gc(cache)

    assert (found.images, found.activations) == (2, 0)
    assert activations.missing(digests(1, 2, 3, 4)).tolist() == [2, 3]
    assert np.array_equal(activations.read(digests(1, 2)), features(1, 2))


def test_quarantined_activations_are_deleted(cache, activations):
    scan(cache.root, 1)
    add(activations, 1)
    flip_a_feature(add(activations, 2), 2)
    with pytest.warns(BottleneckWarning, match="damaged"):
        activations.digests()
    (held,) = (activations.folder / "quarantine").iterdir()
    age(held, 20)

    assert gc(cache).quarantined == 1
    assert not held.exists()


def grow_old(store, days: float = 20) -> None:
    for path in store.folder.rglob("*"):
        age(path, days)


@each("dry_run", [True, False])
def test_old_activations_are_deleted_completely_but_features_are_not(cache, store, activations, dry_run):
    scan(cache.root, 1)
    add(store, 1), add(activations, 1)
    grow_old(store), grow_old(activations)
    size = sum(path.lstat().st_size for path in [activations.folder, *activations.folder.rglob("*")])
    found = gc(cache, dry_run=dry_run)

    assert (found.activations, found.images, found.paths) == (1, 0, [activations.folder])
    assert found.bytes >= size
    assert activations.folder.exists() == dry_run
    assert store.has(digests(1)).all()


@each("sign", ["a shard", "an unfinished shard", "in use"])
def test_activations_that_were_written_or_used_are_kept(cache, activations, sign):
    scan(cache.root, 1, 2)
    add(activations, 1)
    grow_old(activations)
    if sign == "a shard":
        add(activations, 2)
    elif sign == "in use":
        activations.keep()
    else:
        (activations.folder / "shards" / UNFINISHED).write_bytes(b"half")

    assert gc(cache).paths == []
    assert activations.has(digests(1)).all()


def test_activations_are_compacted_by_the_same_code(activations):
    for number in range(3):
        add(activations, number)

    assert compact(activations) == Compaction(before=3, after=1)
    assert np.array_equal(activations.read(digests(0, 1, 2)), features(0, 1, 2))


def test_merge_ignores_activations(cache, store, activations, tmp_path):
    add(store, 1), add(activations, 1)
    other = FeatureCache(tmp_path / "other")

    assert merge(other, cache.root).added == 1
    assert other.activations().stores() == []
    assert not (other.root / "activations").exists()


# --- numbers ----------------------------------------------------------------------------------------------------


def test_days_that_are_out_of_range_or_not_a_number_delete_nothing(cache, store):
    scan(cache.root, 1)
    age(add(store, 1, 3), 20)
    nan, inf = float("nan"), float("inf")
    for days in (nan, inf, -inf, 1e308, 10**400, 1e6, -1, -0.001, True, "3", None):
        with case(days if days != 10**400 else "10**400"), pytest.raises(CacheError, match="expected days to be"):
            gc(cache, days=days)

    assert store.has(digests(1, 3)).all()

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.scans import load_scan, save_scan
from bottleneck.errors import CacheError
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.splits import Shares
from tests.cache.numbered import case

SHARES = Shares(60, 20, 20)


def dataset(source: Path, *paths: str, **fields: object) -> Dataset:
    digests = [list(hashlib.sha256(os.fsencode(path)).digest()) for path in paths]
    count = len(paths)
    given = {
        "labels": tuple("ab"[i % 2] for i in range(count)),
        "given_splits": (None,) * count,
        "groups": (None,) * count,
        "shares": SHARES,
        **fields,
    }
    return Dataset(source=source, paths=paths, digests=np.array(digests, np.uint8).reshape(-1, 32), **given)


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "images"


def stored(cache: Path) -> Path:
    (path,) = [path for path in (cache / "datasets").iterdir() if path.name != "last.json"]
    return path


def assert_same(found: Dataset, wanted: Dataset) -> None:
    assert found.digests.dtype == np.uint8
    assert np.array_equal(found.digests, wanted.digests)
    for name in ("source", "paths", "labels", "given_splits", "groups", "shares", "failures", "ignored"):
        assert getattr(found, name) == getattr(wanted, name), name


def test_a_scan_is_read_back_unchanged(cache, source):
    failures = (Failure("/x.jpg", "empty", "no bytes"), Failure("/y", "corrupt", "why", "0" * 64))
    table = {
        "plain": {},
        "no labels": {"labels": (None,) * 3},
        "splits and groups": {"given_splits": ("train", None, "test"), "groups": ("one", None, "one")},
        "failures": {"failures": failures},
        "ignored": {"ignored": {"hidden": 2, "not an image's name": 1}},
        "odd labels": {"labels": ("ä", "", 'with "quotes"\n')},
    }
    datasets = {name: dataset(source, "/a.jpg", "/b.jpg", "/c.jpg", **fields) for name, fields in table.items()}
    for name, wanted in {**datasets, "no images": dataset(source, failures=failures[:1])}.items():
        with case(name):
            save_scan(cache, wanted)
            assert_same(load_scan(cache, source, SHARES), wanted)


def test_the_shares_are_those_of_the_call(cache, source):
    save_scan(cache, dataset(source, "/a.jpg"))

    assert load_scan(cache, source, Shares(50, 25, 25)).shares == Shares(50, 25, 25)


def test_paths_that_are_not_utf_8_survive(cache, tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9")
    path = os.fsdecode(b"/caf\xe9/\xff\xfe.jpg")
    wanted = dataset(source, path, labels=(os.fsdecode(b"\xe9"),), groups=(os.fsdecode(b"\xe8"),))
    save_scan(cache, wanted)
    found = load_scan(cache, source, SHARES)

    assert_same(found, wanted)
    assert os.fsencode(found.paths[0]) == b"/caf\xe9/\xff\xfe.jpg"


def test_a_scan_that_is_already_kept_is_not_written_again(cache, source):
    save_scan(cache, dataset(source, "/a.jpg", "/b.jpg"))
    before = stored(cache).stat()
    save_scan(cache, dataset(source, "/a.jpg", "/b.jpg"))
    after = stored(cache).stat()

    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_changed_scan_replaces_the_last(cache, source):
    save_scan(cache, dataset(source, "/a.jpg"))
    save_scan(cache, dataset(source, "/a.jpg", "/b.jpg"))

    assert stored(cache).exists()
    assert load_scan(cache, source, SHARES).paths == ("/a.jpg", "/b.jpg")


def test_folders_of_one_name_are_kept_apart(cache, tmp_path):
    one, other = tmp_path / "one" / "images", tmp_path / "other" / "images"
    save_scan(cache, dataset(one, "/a.jpg"))
    save_scan(cache, dataset(other, "/b.jpg"))

    assert load_scan(cache, one, SHARES).paths == ("/a.jpg",)
    assert load_scan(cache, other, SHARES).paths == ("/b.jpg",)


def test_a_source_may_be_named_by_a_relative_path(cache, source):
    save_scan(cache, dataset(source, "/a.jpg"))

    assert load_scan(cache, "images", SHARES).paths == ("/a.jpg",)


def test_any_name_of_a_source_stays_below_the_cache(tmp_path):
    for number, name in enumerate(["x" * 200, "a/b", "ä ö", "...", "-"]):
        cache = tmp_path / str(number)
        with case(name):
            save_scan(cache, dataset(tmp_path / name, "/a.jpg"))
            assert stored(cache).parent == cache / "datasets"
            assert load_scan(cache, tmp_path / name, SHARES).paths == ("/a.jpg",)


def test_without_a_scan_the_error_says_that_the_images_do_not_exist(cache, source):
    with pytest.raises(CacheError, match=r"expected images at .*images: they do not exist"):
        load_scan(cache, source, SHARES)

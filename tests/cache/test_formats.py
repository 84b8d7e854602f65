"""Every persisted format of the cache against every kind of damage: one contract.

A damaged memo is ignored and can be written again, unless another kind of file is in its place. A damaged spec or
scan is an error that names the file. A damaged shard is moved to quarantine, and a newer one is an error.
"""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.backbones.request import Request
from bottleneck.backbones.spec import Spec
from bottleneck.backbones.spec_memo import recall, remember_spec
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.index import _checksum, load_entry
from bottleneck.cache.last import Last, load_last, load_latest, save_last, save_latest
from bottleneck.cache.scans import load_scan, scanned
from bottleneck.cache.shard import LARGEST_SHARD
from bottleneck.cache.store import Store
from bottleneck.errors import BottleneckWarning, CacheError, MissingFeatures, NewerShard, ShardError
from bottleneck.images.digest import DigestMemo
from bottleneck.images.splits import Shares
from bottleneck.utils.files import LARGEST_TEXT
from tests.cache.numbered import case, digests, features, scan

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and FIFOs"),
    pytest.mark.usefixtures("no_sync"),
    pytest.mark.filterwarnings("ignore::bottleneck.errors.BottleneckWarning"),
]
IMAGES = Path("/images")
REQUEST = Request(model="tiny", weights="none")
SIGNATURE = (1, 2, 3, 4)
DAMAGED = object()  # what a format reads as, if it cannot be used


@dataclass(frozen=True)
class Format:
    """One persisted format.

    Parameters
    ----------
    write : callable
        Writes the file of a store's cache and returns its path.
    read : callable
        Returns what the library reads from it; None, or `DAMAGED` after the right error, if it cannot be used.
    largest : int
        Bytes; a larger file is refused.
    wrong : list of dict
        Changes of its JSON that give wrong types or values.
    """

    write: Callable[[Store], Path]
    read: Callable[[Store], object]
    largest: int = LARGEST_TEXT
    wrong: tuple[dict[str, object], ...] = ()


def write_shard(store: Store) -> Path:
    (name,) = store.append(digests(1), features(1))
    return store.folder / "shards" / f"{name}.h5"


def read_shard(store: Store) -> object:
    try:
        return store.read(digests(1)).tolist()
    except MissingFeatures:
        return DAMAGED


def write_index(store: Store) -> Path:
    return store.folder / "index" / write_shard(store).stem


def read_index(store: Store) -> object:
    (shard,) = store.shards()
    entry = load_entry(store.folder / "index" / shard.stem, shard)
    return entry and (entry.digests.tolist(), entry.dim, entry.dtype)


def write_scan(store: Store) -> Path:
    scan(root(store), 1)
    (path,) = scanned(root(store))
    return path


def read_scan(store: Store) -> object:
    (path,) = scanned(root(store))
    try:
        return load_scan(root(store), IMAGES, Shares()).paths
    except CacheError as error:
        return DAMAGED if str(path) in str(error) else error


def write_spec(store: Store) -> Path:
    write_shard(store)
    return store.folder / "spec.json"


def read_spec(store: Store) -> object:
    cache = FeatureCache(root(store))
    try:
        return cache.open(store.name).name
    except CacheError as error:
        with pytest.warns(BottleneckWarning, match="spec"):
            assert cache.stores() == []
        return DAMAGED if str(store.folder / "spec.json") in str(error) else error


def write_request(store: Store) -> Path:
    store.remember_request(REQUEST.to_json())
    return store.folder / "request.json"


def write_last(store: Store) -> Path:
    save_last(root(store), Last("/images", True, "tiny-0"))
    (path,) = (root(store) / "last" / "folders").iterdir()
    return path


def write_latest(store: Store) -> Path:
    save_latest(root(store), IMAGES, "tiny-0")
    (path,) = (root(store) / "last" / "images").glob("*.json")
    return path


def write_spec_memo(store: Store) -> Path:
    remember_spec(REQUEST, store.spec, root(store))
    (path,) = (root(store) / "specs").glob("*.json")
    return path


def write_digests(store: Store) -> Path:
    path = root(store) / "digests.sqlite"
    DigestMemo(path).remember([("/images/1.jpg", SIGNATURE, bytes(32), 1e9)])
    return path


def read_digests(store: Store) -> object:
    return DigestMemo(root(store) / "digests.sqlite").lookup({"/images/1.jpg": SIGNATURE}) or None


def root(store: Store) -> Path:
    return store.folder.parents[1]


SPEC_FIELDS = (
    {"backbone": 5},
    {"backbone": "other"},
    {"decoder": None},
    {"decoder": 2},
    {"precision": float("nan")},
    {"colour": "red"},
    {"weights": "1" * 64},
)
ROW = ["/a.jpg", "0" * 64, "a", None, None]
FORMATS = {
    "shard": Format(write_shard, read_shard, LARGEST_SHARD),
    "index": Format(
        write_index,
        read_index,
        wrong=(
            {"file": [1, 2, 3, 4]},
            {"file": None},
            {"dim": "6"},
            {"dim": -6},
            {"dtype": "object"},
            {"dtype": ["float32"]},
        ),
    ),
    "scan": Format(
        write_scan,
        read_scan,
        4 << 30,
        (
            {"images": [["/a.jpg", "00", "a", None, None]]},
            {"images": [["/a.jpg", "no digits", "a", None, None]]},
            {"images": [["/a.jpg", None, "a", None, None]]},
            {"images": [["/a.jpg"]]},
            {"images": [ROW, ["/b.jpg"]]},
            {"images": [["/a.jpg", "0" * 64, "a", "elsewhere", None]]},
            {"images": 5},
            {"failures": [5]},
            {"failures": [{"colour": "red"}]},
            {"source": None},
            {"source": "a\0b"},
        ),
    ),
    "spec": Format(write_spec, read_spec, wrong=SPEC_FIELDS),
    "request": Format(write_request, Store.asked, wrong=({"model": 5}, {"seed": "x"})),
    "last": Format(
        write_last,
        lambda store: load_last(root(store)),
        wrong=({"store": 5}, {"labels": "yes"}, {"finished": None}, {"more": 1}, {"source": 5}),
    ),
    "latest": Format(
        write_latest, lambda store: load_latest(root(store), IMAGES), wrong=({"store": 5}, {"store": None})
    ),
    "spec memo": Format(
        write_spec_memo, lambda store: recall(REQUEST, root(store)), wrong=(*SPEC_FIELDS, {"seal": "0"})
    ),
    "digests": Format(write_digests, read_digests, 2 << 30),
}
ALL = pytest.mark.parametrize("name", FORMATS)
JSON = pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("shard", "index", "digests")])
ERRORS = ("shard", "scan", "spec")  # the others are memos


@pytest.fixture
def written(store: Store, name: str) -> tuple[Format, Path, bytes, object]:
    """Return a format, the path and the bytes of its file, and what is read from it."""
    one = FORMATS[name]
    path = one.write(store)
    value = one.read(store)
    assert value not in (None, DAMAGED)
    return one, path, path.read_bytes(), value


def expect_damaged(name: str, one: Format, store: Store) -> None:
    assert one.read(store) is (DAMAGED if name in ERRORS else None)


def replaced(path: Path, data: bytes) -> None:
    """Put other bytes in the place of a file, at a time that no memo knows."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    os.utime(path, (1, 1))


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte less": lambda data: data[:-2],
    "garbage": lambda data: b"garbage",
    "not text": lambda data: b"\xff\xfe",
    "zeros": lambda data: bytes(len(data)),
    "a bit": lambda data: data[: len(data) // 3] + bytes([data[len(data) // 3] ^ 0x80]) + data[len(data) // 3 + 1 :],
    "open": lambda data: b"{",
    "a list": lambda data: b"[]",
    "null": lambda data: b"null",
    "a number": lambda data: b"5",
    "a text": lambda data: b'"x"',
    "an empty object": lambda data: b"{}",
    "deep": lambda data: b'{"version": 1, "x": ' + b"[" * 40 + b"]" * 40 + b"}",
    "long": lambda data: data + b"\0" * 32,
}


@ALL
def test_damaged_contents_are_never_used_and_can_be_written_again(store, name, written):
    one, path, data, value = written
    for damage, change in CONTENTS.items():
        if name == "digests" and damage in ("a bit", "long"):
            continue  # of a row that is not ours, or behind the last page: see tests/images/test_memo.py
        if name == "request" and damage == "an empty object":
            continue  # a request of defaults
        with case(damage):
            replaced(path, change(data))
            expect_damaged(name, one, store)
            path.unlink(missing_ok=True)
            one.write(store)
            assert one.read(store) == value


@ALL
def test_what_is_not_a_regular_file_is_neither_read_nor_written_through(store, name, written, tmp_path):
    one, path, data, value = written
    mine = tmp_path / "mine"
    mine.write_bytes(data)
    kinds: dict[str, Callable[[], object]] = {
        "a link": lambda: path.symlink_to(mine),
        "a link to nowhere": lambda: path.symlink_to(tmp_path / "nowhere"),
        "an endless device": lambda: path.symlink_to("/dev/zero"),
        "a folder": path.mkdir,
        "a FIFO": lambda: os.mkfifo(path),
    }
    for kind, make in kinds.items():
        path.unlink()
        make()
        with case(kind):
            expect_damaged(name, one, store)
            with suppress(CacheError):
                one.write(store)
            assert one.read(store) in (None, DAMAGED, value)  # a link in place of a shard is moved to quarantine
        assert mine.read_bytes() == data
        assert not (tmp_path / "nowhere").exists()
        if os.path.lexists(path):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        path.touch()


@ALL
def test_a_file_that_is_too_large_is_not_read(store, name, written):
    one, path, *_ = written
    replaced(path, b"")
    os.truncate(path, one.largest + 1)

    expect_damaged(name, one, store)


@JSON
def test_wrong_types_and_values_are_never_used(store, name, written):
    one, path, data, _ = written
    original = json.loads(data)
    duplicate = data.rstrip().removesuffix(b"}") + b', "version": 1, "version": 1}'
    contents = {str(change): json.dumps({**original, **change}).encode() for change in one.wrong}
    for change, content in {**contents, "a name twice": duplicate}.items():
        with case(change):
            replaced(path, content)
            expect_damaged(name, one, store)


@pytest.mark.parametrize("name", ["scan", "spec", "last", "latest", "spec memo"])
def test_other_versions_are_never_used(store, name, written):
    one, path, data, _ = written
    original = json.loads(data)
    for version in (0, 2, 99, "1", None, 1.5, True):
        with case(version):
            replaced(path, json.dumps({**original, "version": version}).encode())
            if version is True and one.read(store) not in (None, DAMAGED):
                continue  # JSON's true equals 1
            expect_damaged(name, one, store)


def test_other_versions_and_wrong_types_in_an_index_memo_are_never_used(store):
    one = FORMATS["index"]
    path = one.write(store)
    head, _, rest = path.read_bytes()[:-16].partition(b"\n")
    for change in (*one.wrong, {"version": 2}, {"version": 0}):
        body = json.dumps({**json.loads(head), **change}).encode() + b"\n" + rest
        with case(change):
            replaced(path, body + _checksum(body))
            assert one.read(store) is None
            assert np.array_equal(store.read(digests(1)), features(1))


def test_a_newer_scan_says_which_version_it_is(store):
    path = FORMATS["scan"].write(store)
    replaced(path, json.dumps({**json.loads(path.read_bytes()), "version": 2}).encode())

    with pytest.raises(CacheError, match=r"expected a scan of version 1 .* found 2"):
        load_scan(root(store), IMAGES, Shares())


def test_a_database_with_other_tables_is_created_again(store):
    one = FORMATS["digests"]
    path = one.write(store)
    value = one.read(store)
    with sqlite3.connect(path) as connection:
        connection.execute("create table other (x)")
    connection.close()

    assert one.read(store) is None
    one.write(store)
    assert one.read(store) == value


@ALL
@given(data=st.data())
def test_random_changes_of_bytes_never_give_another_value(tmp_path_factory, spec: Spec, name, data):
    store = FeatureCache(tmp_path_factory.mktemp("cache")).store(spec)
    one = FORMATS[name]
    path = one.write(store)
    value, original = one.read(store), path.read_bytes()
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    replaced(path, bytes(changed))
    try:
        found = one.read(store)
    except (NewerShard, ShardError):
        assert name == "shard"
    else:
        sealed = name in ("shard", "index", "spec", "spec memo", "digests")
        assert found in (None, DAMAGED, value) or not sealed

"""Nothing below a cache is read, written or deleted through a link, and only what is ours is deleted."""

import os
import socket
import stat
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.tuned import Tuned, record_tuned, recorded_tuned
from bottleneck.cache.compact import compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, load_last, load_latest, save_last, save_latest
from bottleneck.cache.lock import LOCK, maintenance
from bottleneck.cache.maintain import gc, info, remove, verify
from bottleneck.cache.merge import merge
from bottleneck.cache.scans import load_scan, save_scan, scanned
from bottleneck.cache.store import Store
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import BottleneckError, BottleneckWarning, CacheError
from bottleneck.images.dataset import Dataset
from bottleneck.images.splits import Shares
from bottleneck.utils import folder as folder_module
from bottleneck.utils.files import canonical_json
from bottleneck.utils.folder import Folder
from tests.cache.numbered import add, digests, features, flip_a_feature

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and FIFOs")
OLD = time.time() - 60 * 86_400
HASH = "0" * 64
ROOMS = (
    *("features", "activations", "datasets", "specs", "last", "last/folders", "last/images", "STORE"),
    *(f"STORE/{room}" for room in ("shards", "index", "quarantine", "engines", "engines/conversion")),
)
NEEDED = ("features", "STORE", "STORE/shards")  # without which there are no features


def grow_old(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def state(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return all that there is below a folder."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b"",
        )
        for path in root.rglob("*")
    }


def named_as_ours(folder: Path) -> None:
    """Fill a folder with documents, some of them called as files of ours are."""
    (folder / "thesis").mkdir(parents=True)
    names = ("thesis/ch1.tex", "will.txt", ".tmp-9-0123abcd", HASH, f"{HASH}.h5", f"{HASH}-1.h5", "spec.json", "a.json")
    for name in names:
        (folder / name).write_text(f"mine: {name}")


def whole(cache: FeatureCache, spec_of: Store) -> None:
    """Fill a cache with two specs, activations, scans, memos, a check, a conversion, quarantine and what was left."""
    for store in (spec_of, cache.activations().store(spec_of.spec)):
        add(store, 1, 2), add(store, 3)
        flip_a_feature(add(store, 4), 4)
        with pytest.warns(BottleneckWarning):
            store.digests()
        add(store, 5)
        store.remember_request({"model": "tiny"})
        EngineRecords(store.engines).keep_check("one", Check("x", "fp32", 1.0))
        conversion = store.engines / "conversion"
        conversion.mkdir()
        (conversion / "model.xml").write_text("<net>"), (conversion / "model.bin").write_bytes(b"1")
        (conversion / "hashes.json").write_text('{"model.xml": "", "model.bin": ""}')
        (store.folder / "shards" / ".tmp-9-0123abcd").write_bytes(b"half")
        (store.folder / "index" / HASH).write_bytes(b'{"version": 1}')
    name_images(cache, 1, 2, 3, 4, 5)
    save_last(cache.root, Last("/images", True, spec_of.name))
    save_latest(cache.root, Path("/images"), spec_of.name)
    (cache.root / "specs").mkdir()
    (cache.root / "specs" / f"{HASH}.json").write_bytes(canonical_json(spec_of.spec.to_json()))


def name_images(cache: FeatureCache, *numbers: int) -> None:
    none = (None,) * len(numbers)
    paths = tuple(f"/images/{number}.jpg" for number in numbers)
    dataset = Dataset(
        source=Path("/images"), paths=paths, digests=digests(*numbers), labels=none, given_splits=none, groups=none
    )
    save_scan(cache.root, dataset)


def at(store: Store, room: str) -> Path:
    """Return where a room is."""
    root = store.folder.parents[1]
    return root / room.replace("STORE", str(store.folder.relative_to(root)))


JOBS: dict[str, Callable[[FeatureCache, Store, Path], object]] = {
    "info": lambda cache, store, other: [info(room) for room in cache.rooms()],
    "verify": lambda cache, store, other: verify(cache),
    "gc": lambda cache, store, other: gc(cache, days=0),
    "rm": lambda cache, store, other: remove(cache, f"features/{store.short_name}"),
    "rm activations": lambda cache, store, other: remove(cache, f"activations/{store.short_name}"),
    "compact": lambda cache, store, other: [compact(one) for room in cache.rooms() for one in room.stores()],
    "merge from": lambda cache, store, other: merge(FeatureCache(other), cache.root),
    "read": lambda cache, store, other: store.read(digests(1)),
    "append": lambda cache, store, other: store.append(digests(7), features(7)),
    "request": lambda cache, store, other: (store.remember_request({"model": "x"}), store.keep()),
    "scan": lambda cache, store, other: name_images(cache, 1, 2, 3, 4, 5, 6),
    "last": lambda cache, store, other: (save_last(cache.root, Last("/x", True, "y")), load_last(cache.root)),
    "latest": lambda cache, store, other: save_latest(cache.root, Path("/x"), "y"),
    "tuned": lambda cache, store, other: record_tuned(
        store.folder, Tuned(model="m", weights="w", options={}, dataset="d", score=1.0)
    ),
    "check": lambda cache, store, other: EngineRecords(store.engines).keep_check("two", Check("x", "fp32", 1.0)),
    "conversions": lambda cache, store, other: EngineRecords(store.engines).drop_conversions(),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: no test here loses power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(("full", "by_descriptor"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("room", ROOMS)
def test_no_job_reads_writes_or_deletes_through_a_link(cache, store, tmp_path, monkeypatch, room, full, by_descriptor):
    monkeypatch.setattr(folder_module, "BY_DESCRIPTOR", by_descriptor and folder_module.BY_DESCRIPTOR)
    whole(cache, store)
    place, home = at(store, room), tmp_path / "home"
    if full:
        place.rename(home)
    named_as_ours(home / "documents" if full else home)
    if place.exists():
        place.rename(tmp_path / "away")
    place.symlink_to(home)
    grow_old(tmp_path)
    before = state(home)

    for name, job in JOBS.items():
        with warnings.catch_warnings(record=True), suppress(BottleneckError):
            warnings.simplefilter("always")
            job(cache, store, tmp_path / "other")
        assert state(home) == before, name
        assert place.is_symlink(), name


@pytest.mark.parametrize("room", NEEDED)
def test_features_behind_a_link_are_refused_by_name_and_other_specs_go_on(cache, store, spec, tmp_path, room):
    from dataclasses import replace

    other = cache.store(replace(spec, backbone="other")) if room != "features" else cache.activations().store(spec)
    add(store, 1), add(other, 1, 9)
    name_images(cache, 1)
    place = at(store, room)
    place.rename(tmp_path / "home")
    place.symlink_to(tmp_path / "home")
    grow_old(tmp_path)

    with pytest.raises(CacheError, match=f"found a link.*{place.name}|{place.name}.*found a link"):
        store.append(digests(2), features(2))
    with pytest.raises(CacheError, match="found a link"):
        store.digests()
    assert any("found a link" in problem and str(place) in problem for problem in verify(cache).damage)
    with pytest.warns(BottleneckWarning, match="found a link"):
        done = gc(cache)
    assert done.images + done.activations == 1  # of the other
    into = FeatureCache(tmp_path / "into")
    if room != "features":
        merged = merge(into, cache.root)
        assert merged.added == 1
        assert any("found a link" in problem for problem in merged.problems)


@pytest.mark.parametrize("room", ["index", "engines"])
def test_memos_behind_a_link_are_told_and_done_without(cache, store, tmp_path, room):
    add(store, 1)
    (tmp_path / "home").mkdir()
    at(store, f"STORE/{room}").rename(tmp_path / "away") if room == "index" else None
    at(store, f"STORE/{room}").symlink_to(tmp_path / "home")

    with pytest.warns(BottleneckWarning, match=rf"expected a folder at .*{room}, found a link"):
        store.append(digests(2), features(2)) if room == "index" else EngineRecords(store.engines).checks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(store.read(digests(1)), features(1))


def test_a_damaged_shard_stays_where_quarantine_is_a_link(cache, store, tmp_path):
    path = add(store, 1)
    flip_a_feature(path, 1)
    (tmp_path / "home").mkdir()
    (store.folder / "quarantine").symlink_to(tmp_path / "home")

    with pytest.warns(BottleneckWarning, match="left in place.*quarantine, found a link"):
        assert not store.has(digests(1)).any()
    assert path.exists()
    assert list((tmp_path / "home").iterdir()) == []


def test_a_cache_that_is_itself_a_link_is_the_users_own(spec, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    cache = FeatureCache(tmp_path / "cache")
    store = cache.store(spec)
    path = add(store, 1)
    name_images(cache, 2)
    grow_old(tmp_path / "disk")

    assert verify(cache).damage == []
    assert gc(cache).images == 1
    assert not path.exists()


def test_a_new_link_to_nowhere_is_refused_too(cache, store, tmp_path):
    (cache.root / "features").mkdir(parents=True)
    store.folder.symlink_to(tmp_path / "nowhere")

    with pytest.raises(CacheError, match="found a link"):
        store.append(digests(1), features(1))
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["spec.json", "request.json", LOCK, "shard", "memo"])
def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written_through(cache, store, tmp_path, name):
    shard = add(store, 1)
    place = {"shard": shard, "memo": store.folder / "index" / shard.stem}.get(name, store.folder / name)
    mine = tmp_path / "mine"
    mine.write_bytes(place.read_bytes() if place.exists() else b"")
    place.unlink(missing_ok=True)
    place.symlink_to(mine)
    grow_old(tmp_path)
    before = mine.read_bytes(), mine.stat().st_mtime_ns

    for job in JOBS.values():
        with warnings.catch_warnings(record=True), suppress(BottleneckError):
            warnings.simplefilter("always")
            job(cache, store, tmp_path / "other")
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == before


# --- links that take a folder's place meanwhile -----------------------------------------------------------------


@pytest.mark.parametrize("room", ["quarantine", "index", "engines"])
def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_followed(cache, store, tmp_path, monkeypatch, room):
    whole(cache, store)
    home, place = tmp_path / "home", store.folder / room
    home.mkdir()
    for name in os.listdir(place):
        (home / name).write_text("mine") if (place / name).is_file() else named_as_ours(home / name)
    grow_old(tmp_path)
    before, listing = state(home), Folder.names

    def swapped(folder: Folder) -> list[str]:
        names = listing(folder)
        if folder.path == place and not place.is_symlink():
            place.rename(tmp_path / "away")
            place.symlink_to(home)
        return names

    monkeypatch.setattr(Folder, "names", swapped)
    done = gc(cache, days=0)

    assert place.is_symlink()
    assert state(home) == before
    assert place in done.left or done.quarantined + done.memos


def test_a_store_that_becomes_a_link_while_it_is_deleted_is_not_followed(cache, store, tmp_path, monkeypatch):
    whole(cache, store)
    home = tmp_path / "home"
    named_as_ours(home)
    before, status, moved = state(home), Folder.status, []

    def swapped(folder: Folder, name: str) -> os.stat_result:
        found = status(folder, name)
        if name == "shards" and folder.path.name.startswith(".tmp-") and not moved:
            moved.append((folder.path / name).rename(tmp_path / "away"))
            (folder.path / name).symlink_to(home)
        return found

    monkeypatch.setattr(Folder, "status", swapped)
    with pytest.warns(BottleneckWarning, match="expected only files of bottleneck"):
        remove(cache, f"features/{store.short_name}")

    assert moved
    assert state(home) == before


# --- only what is ours ------------------------------------------------------------------------------------------


def foreign(store: Store) -> dict[str, Path]:
    """Return places for documents in a store, among files of ours."""
    return {
        "quarantine": store.folder / "quarantine" / "thesis" / "ch1.tex",
        "quarantine, a name like ours": store.folder / "quarantine" / f"{HASH}-1.h5.txt",
        "quarantine, a folder of our name": store.folder / "quarantine" / f"{HASH}-1.h5" / "ch1.tex",
        "index": store.folder / "index" / "thesis",
        "index, our name": store.folder / "index" / ("1" * 64),
        "engines": store.folder / "engines" / "thesis" / "ch1.tex",
        "engines, in a conversion": store.folder / "engines" / "conversion" / "ch1.tex",
        "engines, named as a conversion": store.folder / "engines" / "net" / "model.xml",
        "unfinished": store.folder / "shards" / ".tmp-mine",
        "an unfinished folder": store.folder / "shards" / ".tmp-9-89abcdef" / "ch1.tex",
    }


@pytest.mark.parametrize("where", foreign(Store(Path("x"), None)))  # type: ignore[arg-type]
def test_gc_leaves_what_is_not_ours_and_names_it(cache, store, where):
    whole(cache, store)
    path = foreign(store)[where]
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    grow_old(cache.root)
    cache.activations().stores()[0].keep()
    expected = gc(cache, dry_run=True)
    done = gc(cache)

    assert path.read_text() == "mine"
    assert any(left == path or left in path.parents for left in done.left)
    assert vars(expected) == vars(done)
    assert done.quarantined == 2
    assert done.memos >= 3
    assert not (store.folder / "index" / HASH).exists()


@pytest.mark.parametrize("where", ["", "shards", "index", "quarantine", "engines", "engines/conversion", "thesis"])
@pytest.mark.parametrize("room", ["features", "activations"])
def test_rm_leaves_what_is_not_ours_with_its_folder(cache, store, where, room):
    whole(cache, store)
    doomed = store if room == "features" else cache.activations().stores()[0]
    mine = doomed.folder / where / "thesis.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.warns(BottleneckWarning, match=r"found others, which are kept: .*thesis"):
        remove(cache, f"{room}/{doomed.short_name}")

    assert [path for path in doomed.folder.rglob("*") if not path.is_dir()] == [mine]
    assert mine.read_text() == "mine"
    assert os.listdir(doomed.folder.parent) == [doomed.folder.name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doomed not in FeatureCache(cache.root, room=room).stores()


def test_old_activations_go_but_for_what_is_not_ours(cache, store):
    whole(cache, store)
    (old,) = cache.activations().stores()
    mine = old.folder / "thesis"
    mine.write_text("mine")
    grow_old(cache.root)
    expected = gc(cache, dry_run=True)
    done = gc(cache)

    assert [path for path in old.folder.rglob("*") if not path.is_dir()] == [mine]
    assert mine in done.left
    assert done.activations == 1
    assert vars(expected) == vars(done)


def test_a_store_without_anything_foreign_goes_whole(cache, store):
    whole(cache, store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remove(cache, f"features/{store.short_name}")

    assert os.listdir(cache.root / "features") == []


def test_temporaries_are_ours_by_name_and_content_only(cache, store):
    add(store, 1)
    name_images(cache, 1)
    ours = [cache.root / "features" / ".tmp-7-0123abcd", cache.root / "last" / "folders" / ".tmp-12-ffffffff"]
    theirs = [cache.root / name for name in (".tmp-", ".tmp-x-0123abcd", ".tmp-1-0123ABCD", ".tmp-1-0123abcde")]
    for path in (*ours, *theirs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    linked = cache.root / ".tmp-8-0123abcd"
    linked.symlink_to(theirs[0])
    grow_old(cache.root)
    done = gc(cache)

    assert (done.temporaries, done.paths) == (2, sorted(ours, key=lambda path: "features" in str(path)))
    assert sorted(done.left) == sorted([*theirs, linked])
    assert all(os.path.lexists(path) for path in (*theirs, linked))


# --- other kinds of files ---------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    short = Path(os.path.relpath(path))  # the system allows about 100 bytes
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(short.name)
    finally:
        os.chdir(here)


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("fifo"))
    path.symlink_to("fifo")


KINDS: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "folder": os.mkdir,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "link to a FIFO": link_to_fifo,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["spec.json", "request.json", "tuned.json", LOCK, "shard", "memo", "check", "hashes"])
def test_no_other_kind_of_file_is_waited_for_or_read_without_end(cache, store, tmp_path, file, kind):
    whole(cache, store)
    shard = store.shards()[0]
    place = {
        "shard": shard,
        "memo": store.folder / "index" / shard.stem,
        "check": store.engines / "one.json",
        "hashes": store.engines / "conversion" / "hashes.json",
    }.get(file, store.folder / file)
    place.unlink(missing_ok=True)
    KINDS[kind](place)
    mode = place.lstat().st_mode

    for name in ("info", "verify", "compact", "merge from", "read", "append", "request", "check", "gc", "rm"):
        with warnings.catch_warnings(record=True), suppress(BottleneckError):
            warnings.simplefilter("always")
            JOBS[name](cache, store, tmp_path / "other")
    kept = EngineRecords(store.engines)
    assert kept.check("one") is None or file != "check"
    assert kept.conversion("conversion") is None
    assert recorded_tuned(store.folder) is None
    held = [path for path in cache.root.rglob("*") if stat.S_IFMT(path.lstat().st_mode) == stat.S_IFMT(mode)]
    assert place in held or file == "shard", "it is moved or deleted, and not ours"


@pytest.mark.parametrize("kind", KINDS)
def test_scans_and_memos_of_other_kinds_are_errors_or_none(cache, store, kind):
    whole(cache, store)
    (scan,) = scanned(cache.root)
    memos = [*(cache.root / "last").rglob("*.json")]
    for path in (scan, *memos):
        path.unlink()
        KINDS[kind](path)
        (path.parent / "fifo").unlink(missing_ok=True) if kind == "link to a FIFO" and path != memos[-1] else None

    with pytest.raises(CacheError, match="cannot read the scan"):
        load_scan(cache.root, "/images", Shares())
    with pytest.raises(CacheError, match="cannot read the scan"):
        gc(cache)
    assert load_last(cache.root) is None
    assert load_latest(cache.root, Path("/images")) is None


def test_a_lock_that_is_a_fifo_is_refused_at_once(cache, store):
    add(store, 1)
    os.mkfifo(store.folder / LOCK)
    with pytest.raises(CacheError, match="found a FIFO"), maintenance(store.folder):
        pass

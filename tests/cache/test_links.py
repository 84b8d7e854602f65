"""Nothing below a cache is read, written or deleted through a link, and only our files are deleted."""

import os
import shutil
import socket
import stat
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.backbones.tuned import Tuned, record_tuned, recorded_tuned
from bottleneck.cache.compact import compact
from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, load_last, load_latest, save_last, save_latest
from bottleneck.cache.lock import LOCK, maintenance
from bottleneck.cache.maintain import gc, info, remove, verify
from bottleneck.cache.merge import merge
from bottleneck.cache.scans import load_scan, scanned
from bottleneck.cache.store import Store
from bottleneck.engines.records import Check, EngineRecords
from bottleneck.errors import BottleneckError, BottleneckWarning, CacheError
from bottleneck.images.splits import Shares
from bottleneck.utils import folder as folder_module
from bottleneck.utils.files import canonical_json
from bottleneck.utils.folder import Folder
from tests.cache.numbered import add, case, digests, features, flip_a_feature, scan
from tests.variants import each

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and FIFOs"),
    pytest.mark.usefixtures("no_sync"),
]
OLD = time.time() - 60 * 86_400
HASH = "0" * 64
FOLDERS = (
    *("features", "activations", "datasets", "specs", "last", "last/folders", "last/images", "STORE"),
    *(f"STORE/{name}" for name in ("shards", "index", "quarantine", "engines", "engines/conversion")),
)
NEEDED = ("features", "STORE", "STORE/shards")  # folders without which there are no features


def grow_old(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        os.utime(path, (OLD, OLD), follow_symlinks=False)


def state(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return the state of everything below a folder."""
    return {
        str(path.relative_to(root)): (
            path.lstat().st_mtime_ns,
            path.lstat().st_mode,
            path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b"",
        )
        for path in root.rglob("*")
    }


def named_as_ours(folder: Path) -> None:
    """Fill a folder with documents, some of them with names like ours."""
    (folder / "thesis").mkdir(parents=True)
    names = ("thesis/ch1.tex", "will.txt", ".tmp-9-0123abcd", HASH, f"{HASH}.h5", f"{HASH}-1.h5", "spec.json", "a.json")
    for name in names:
        (folder / name).write_text(f"mine: {name}")


Fill = Callable[[FeatureCache], None]


@pytest.fixture
def fill(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Fill:
    """Return a function that fills a cache with all kinds of files, in quarantine and unfinished ones too."""
    template = FeatureCache(tmp_path_factory.getbasetemp() / "template-of-links")
    if not template.root.exists():
        fill_stores(template, spec)

    def make(cache: FeatureCache) -> None:
        shutil.copytree(template.root, cache.root)
        store = cache.store(spec)
        store.digests(), cache.activations().store(spec).digests()  # memos of the copied files
        scan(cache.root, 1, 2, 3, 4, 5)
        save_last(cache.root, Last("/images", True, store.name))
        save_latest(cache.root, Path("/images"), store.name)
        (cache.root / "specs").mkdir()
        (cache.root / "specs" / f"{HASH}.json").write_bytes(canonical_json(spec.to_json()))

    return make


def fill_stores(cache: FeatureCache, spec: Spec) -> None:
    for store in (cache.store(spec), cache.activations().store(spec)):
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


def new_cache(folder: Path) -> FeatureCache:
    return FeatureCache(folder / "cache")


def at(store: Store, name: str) -> Path:
    """Return the path of a folder of a cache."""
    root = store.folder.parents[1]
    return root / name.replace("STORE", str(store.folder.relative_to(root)))


JOBS: dict[str, Callable[[FeatureCache, Store, Path], object]] = {
    "info": lambda cache, store, other: [info(kind) for kind in cache.rooms()],
    "verify": lambda cache, store, other: verify(cache),
    "gc": lambda cache, store, other: gc(cache, days=0),
    "rm": lambda cache, store, other: remove(cache, f"features/{store.short_name}"),
    "rm activations": lambda cache, store, other: remove(cache, f"activations/{store.short_name}"),
    "compact": lambda cache, store, other: [compact(one) for kind in cache.rooms() for one in kind.stores()],
    "merge from": lambda cache, store, other: merge(FeatureCache(other), cache.root),
    "read": lambda cache, store, other: store.read(digests(1)),
    "append": lambda cache, store, other: store.append(digests(7), features(7)),
    "request": lambda cache, store, other: (store.remember_request({"model": "x"}), store.keep()),
    "scan": lambda cache, store, other: scan(cache.root, 1, 2, 3, 4, 5, 6),
    "last": lambda cache, store, other: (save_last(cache.root, Last("/x", True, "y")), load_last(cache.root)),
    "latest": lambda cache, store, other: save_latest(cache.root, Path("/x"), "y"),
    "tuned": lambda cache, store, other: record_tuned(
        store.folder, Tuned(model="m", weights="w", options={}, dataset="d", score=1.0)
    ),
    "check": lambda cache, store, other: EngineRecords(store.engines).keep_check("two", Check("x", "fp32", 1.0)),
    "conversions": lambda cache, store, other: EngineRecords(store.engines).drop_conversions(),
}


def run_job(name: str, cache: FeatureCache, store: Store, other: Path) -> None:
    """Run a job, whatever it says."""
    with warnings.catch_warnings(record=True), suppress(BottleneckError):
        warnings.simplefilter("always")
        JOBS[name](cache, store, other)


@pytest.mark.parametrize(("full", "by_descriptor"), [(True, True), (False, True), (True, False)])
def test_no_job_reads_writes_or_deletes_through_a_link_in_place_of_a_folder(
    fill, spec, tmp_path, monkeypatch, full, by_descriptor
):
    monkeypatch.setattr(folder_module, "BY_DESCRIPTOR", by_descriptor and folder_module.BY_DESCRIPTOR)
    for number, folder in enumerate(FOLDERS):
        with case(folder):
            expect_untouched(fill, spec, tmp_path / str(number), folder, full)


def expect_untouched(fill: Fill, spec: Spec, root: Path, folder: str, full: bool) -> None:
    """Put a link in place of a folder; check that no job changes what it leads to."""
    cache = new_cache(root)
    fill(cache)
    store, home = cache.store(spec), root / "home"
    place = at(store, folder)
    if full:
        place.rename(home)
    named_as_ours(home / "documents" if full else home)
    if place.exists():
        place.rename(root / "away")
    place.symlink_to(home)
    grow_old(root)
    before = state(home)

    for name in JOBS:
        run_job(name, cache, store, root / "other")
        assert state(home) == before, name
        assert place.is_symlink(), name


@each("folder", NEEDED)
def test_features_behind_a_link_are_refused_by_name_and_other_specs_still_work(cache, store, spec, tmp_path, folder):
    other = cache.store(replace(spec, backbone="other")) if folder != "features" else cache.activations().store(spec)
    add(store, 1), add(other, 1, 9)
    scan(cache.root, 1)
    place = at(store, folder)
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
    if folder != "features":
        merged = merge(into, cache.root)
        assert merged.added == 1
        assert any("found a link" in problem for problem in merged.problems)


def test_memos_behind_a_link_are_ignored_with_a_warning(cache, store, tmp_path):
    add(store, 1)
    (tmp_path / "home").mkdir()
    (store.folder / "index").rename(tmp_path / "away")
    for name in ("index", "engines"):
        (store.folder / name).symlink_to(tmp_path / "home")

    with pytest.warns(BottleneckWarning, match=r"expected a folder at .*index, found a link"):
        store.append(digests(2), features(2))
    with pytest.warns(BottleneckWarning, match=r"expected a folder at .*engines, found a link"):
        EngineRecords(store.engines).checks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(store.read(digests(1)), features(1))


def test_a_damaged_shard_stays_in_place_if_quarantine_is_a_link(cache, store, tmp_path):
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
    scan(cache.root, 2)
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


def test_a_link_in_the_place_of_a_file_is_neither_read_nor_written_through(spec, tmp_path):
    for name in ("spec.json", "request.json", LOCK, "shard", "memo"):
        with case(name):
            root = tmp_path / name
            cache = new_cache(root)
            store = cache.store(spec)
            shard = add(store, 1)
            place = {"shard": shard, "memo": store.folder / "index" / shard.stem}.get(name, store.folder / name)
            mine = root / "mine"
            mine.write_bytes(place.read_bytes() if place.exists() else b"")
            place.unlink(missing_ok=True)
            place.symlink_to(mine)
            grow_old(root)
            before = mine.read_bytes(), mine.stat().st_mtime_ns

            for job in JOBS:
                run_job(job, cache, store, root / "other")
            assert (mine.read_bytes(), mine.stat().st_mtime_ns) == before


# --- links that replace a folder during a job -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["quarantine", "index", "engines"])
def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_followed(cache, store, fill, tmp_path, wrap, name):
    fill(cache)
    home, place = tmp_path / "home", store.folder / name
    home.mkdir()
    for entry in os.listdir(place):
        (home / entry).write_text("mine") if (place / entry).is_file() else named_as_ours(home / entry)
    grow_old(tmp_path)
    before = state(home)

    def swapped(listing: Callable[[Folder], list[str]], folder: Folder) -> list[str]:
        names = listing(folder)
        if folder.path == place and not place.is_symlink():
            place.rename(tmp_path / "away")
            place.symlink_to(home)
        return names

    wrap(Folder, "names", swapped)
    done = gc(cache, days=0)

    assert place.is_symlink()
    assert state(home) == before
    assert place in done.left or done.quarantined + done.memos


def test_a_store_that_becomes_a_link_while_it_is_deleted_is_not_followed(cache, store, fill, tmp_path, wrap):
    fill(cache)
    home = tmp_path / "home"
    named_as_ours(home)
    before, moved = state(home), []

    def swapped(status: Callable[..., os.stat_result], folder: Folder, name: str) -> os.stat_result:
        found = status(folder, name)
        if name == "shards" and folder.path.name.startswith(".tmp-") and not moved:
            moved.append((folder.path / name).rename(tmp_path / "away"))
            (folder.path / name).symlink_to(home)
        return found

    wrap(Folder, "status", swapped)
    with pytest.warns(BottleneckWarning, match="expected only files of bottleneck"):
        remove(cache, f"features/{store.short_name}")

    assert moved
    assert state(home) == before


# --- only our files ----------------------------------------------------------------------------------------------


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


def test_gc_keeps_foreign_files_and_names_them(fill, spec, tmp_path):
    for number, where in enumerate(foreign(Store(Path("x"), spec))):
        with case(where):
            cache = new_cache(tmp_path / str(number))
            fill(cache)
            store = cache.store(spec)
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


@each("kind", ["features", "activations"])
def test_rm_keeps_foreign_files_with_their_folder(fill, spec, tmp_path, kind):
    for number, where in enumerate(["", "shards", "index", "quarantine", "engines", "engines/conversion", "thesis"]):
        with case(where):
            cache = new_cache(tmp_path / str(number))
            fill(cache)
            doomed = FeatureCache(cache.root, room=kind).store(spec)
            mine = doomed.folder / where / "thesis.txt"
            mine.parent.mkdir(exist_ok=True)
            mine.write_text("mine")
            with pytest.warns(BottleneckWarning, match=r"found other files, which are kept: .*thesis"):
                remove(cache, f"{kind}/{doomed.short_name}")

            assert [path for path in doomed.folder.rglob("*") if not path.is_dir()] == [mine]
            assert mine.read_text() == "mine"
            assert os.listdir(doomed.folder.parent) == [doomed.folder.name]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert doomed not in FeatureCache(cache.root, room=kind).stores()


def test_old_activations_are_deleted_except_foreign_files(cache, fill):
    fill(cache)
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


def test_a_store_without_foreign_files_is_deleted_completely(cache, store, fill):
    fill(cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remove(cache, f"features/{store.short_name}")

    assert os.listdir(cache.root / "features") == []


def test_temporaries_are_ours_by_name_and_content_only(cache, store):
    add(store, 1)
    scan(cache.root, 1)
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
def test_no_other_kind_of_file_is_waited_for_or_read_without_end(fill, spec, tmp_path, kind):
    for file in ("spec.json", "request.json", "tuned.json", LOCK, "shard", "memo", "check", "hashes"):
        with case(file):
            expect_no_wait(fill, spec, tmp_path / file, file, kind)


def expect_no_wait(fill: Fill, spec: Spec, root: Path, file: str, kind: str) -> None:
    """Put another kind of file in place of a file; check that jobs neither read nor delete it."""
    cache = new_cache(root)
    fill(cache)
    store = cache.store(spec)
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
        run_job(name, cache, store, root / "other")
    records = EngineRecords(store.engines)
    assert records.check("one") is None or file != "check"
    assert records.conversion("conversion") is None
    assert recorded_tuned(store.folder) is None
    left = [path for path in cache.root.rglob("*") if stat.S_IFMT(path.lstat().st_mode) == stat.S_IFMT(mode)]
    assert place in left or file == "shard", "it is moved or deleted, and not ours"


def test_scans_and_memos_of_other_kinds_are_errors_or_none(fill, tmp_path):
    for kind, make in KINDS.items():
        with case(kind):
            cache = new_cache(tmp_path / kind)
            fill(cache)
            (path,) = scanned(cache.root)
            memos = [*(cache.root / "last").rglob("*.json")]
            for file in (path, *memos):
                file.unlink()
                make(file)
                if kind == "link to a FIFO" and file != memos[-1]:
                    (file.parent / "fifo").unlink(missing_ok=True)

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

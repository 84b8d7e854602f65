import hashlib
import mmap
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bottleneck.images import clock
from bottleneck.images.clock import FileClock, written_back
from bottleneck.images.digest import DigestMemo, Signature, digest_file, signature
from bottleneck.images.scan import scan
from tests.conftest import photo, write
from tests.variants import each

PAGE = 4096
linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems stamp mapped files in other ways")


@pytest.fixture(autouse=True)
def remembered_in_memory() -> None:
    """Leave files in memory as they are, unlike the fixture of all other tests."""


@pytest.fixture
def tmp_path(disk: Path) -> Path:
    """Let the tests of this module work on a disk."""
    return disk


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


def ahead(seconds: float) -> Callable[[], float]:
    """Return a clock of this machine that is ahead of that of its file systems."""
    return lambda: time.time() + seconds


# The clock of a file system


def test_a_clock_that_is_behind_is_seen_and_one_ahead_is_trusted(tmp_path: Path) -> None:
    assert FileClock(tmp_path / "cache").lag(str(write(tmp_path / "a", b"a"))) == 0
    assert os.listdir(tmp_path / "cache") == []

    for behind in [0.5, 90.0, 86_400.0]:
        path = str(write(tmp_path / "a", b"a"))

        assert FileClock(tmp_path, now=ahead(behind)).lag(path) == pytest.approx(behind, abs=0.4)

    assert FileClock(tmp_path, now=ahead(-3600)).lag(str(write(tmp_path / "a", b"a"))) == 0


@each("lifetime, expected", [(60.0, 0), (0.0, 600)])
def test_clocks_are_compared_again_after_a_while(tmp_path: Path, lifetime: float, expected: float) -> None:
    seconds = [0.0]
    path = str(write(tmp_path / "a", b"a"))
    found = FileClock(tmp_path, now=lambda: time.time() + seconds[0], lifetime=lifetime)
    assert found.lag(path) == 0
    seconds[0] = 600

    assert found.lag(path) == pytest.approx(expected, abs=0.4)


@linux
def test_the_clock_is_not_known_of_another_file_system_or_where_nothing_can_be_written(tmp_path: Path) -> None:
    assert FileClock(tmp_path).lag("/proc/version") == 30

    write(tmp_path / "file", b"")

    assert FileClock(tmp_path / "file").lag(str(tmp_path / "file")) >= 30
    assert FileClock(tmp_path).lag(str(tmp_path / "gone")) == 30
    assert FileClock(tmp_path).lag("a\0b") == 30


@linux
def test_a_file_in_memory_is_never_settled() -> None:
    if not os.path.isdir("/dev/shm") or not clock._in_memory(os.stat("/dev/shm").st_dev):
        pytest.skip("no file system in memory at /dev/shm")

    assert FileClock(Path("/dev/shm")).lag("/dev/shm") == float("inf")


# What a memo may remember by it


def remembered(folder: Path, path: Path, found: Signature, when: float, behind: float = 0) -> bool:
    memo = DigestMemo(folder / "digests.sqlite", FileClock(folder, now=ahead(behind)))
    memo.remember([(str(path), found, bytes(32), when)])
    return bool(memo.lookup({str(path): found}))


@each("behind, expected", [(0.0, True), (1.9, True), (3.0, False), (3600.0, False)])
def test_a_file_that_only_our_clock_takes_for_old_is_not_remembered(
    tmp_path: Path, behind: float, expected: bool
) -> None:
    path = write(tmp_path / "a", b"a")
    found = signature(path.stat())

    assert remembered(tmp_path, path, found, found[2] / 1e9 + 4.5, behind) is expected


@each("grain", [10**7, 10**9, 2 * 10**9])
def test_a_file_whose_last_change_may_be_in_the_same_tick_is_not_remembered(tmp_path: Path, grain: int) -> None:
    path = write(tmp_path / "a", b"a")
    size, _, changed, inode = signature(path.stat())
    rounded = changed // grain * grain
    found = (size, rounded, rounded, inode)

    assert not remembered(tmp_path, path, found, (rounded + grain) / 1e9 - 0.001)


# Pages of a memory map


@linux
def test_a_change_through_a_memory_map_is_always_a_new_signature(tmp_path: Path) -> None:
    path = write(tmp_path / "a", bytes(3 * PAGE))
    with mapped(path) as memory:
        memory[0] = 1  # the page is dirty, and takes the next change without a new time stamp
        _, before, _ = digest_file(path)
        _wait_for_a_tick(tmp_path)
        memory[1] = 2

        assert signature(path.stat()) != before


@linux
@each("place", [0, PAGE + 7, 3 * PAGE - 1])
@each("flags", [os.O_RDONLY, os.O_RDWR])
def test_any_page_is_clean_once_it_was_written_back(tmp_path: Path, place: int, flags: int) -> None:
    path = write(tmp_path / "a", bytes(3 * PAGE))
    with mapped(path) as memory:
        memory[place] = 1
        descriptor = os.open(path, flags)
        before = written_back(descriptor).st_mtime_ns
        _wait_for_a_tick(tmp_path)
        memory[place] = 2
        after = os.fstat(descriptor).st_mtime_ns
        os.close(descriptor)

    assert after > before


@linux
def test_a_scan_sees_what_a_memory_map_changed_after_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Callable[..., Path]
) -> None:
    monkeypatch.setattr("bottleneck.images.digest.FRESH_SECONDS", 0)
    root = folder({"a/0.jpg": photo(0) + bytes(2 * PAGE), "a/1.jpg": 1, "b/2.jpg": 2})
    with mapped(root / "a" / "0.jpg") as memory:
        memory[-1] = 1
        _wait_for_a_tick(tmp_path)
        scan(root)
        _wait_for_a_tick(tmp_path)
        memory[-2] = 1
        found = scan(root)

    row = found.paths.index(str(root / "a" / "0.jpg"))
    assert found.digests[row].tobytes() == hashlib.sha256((root / "a" / "0.jpg").read_bytes()).digest()


def test_a_file_is_synced_if_it_changed_lately_and_can_be(tmp_path: Path) -> None:
    synced: list[int] = []
    with open(write(tmp_path / "a", b"a"), "rb") as file:
        written_back(file.fileno(), sync=synced.append)
        assert len(synced) == 1
        written_back(file.fileno(), sync=synced.append, now=ahead(7200))

    assert len(synced) == 1

    def refuse(descriptor: int) -> None:
        raise OSError(22, "Invalid argument")

    with open(write(tmp_path / "a", b"abc"), "rb") as file:
        assert written_back(file.fileno(), sync=refuse) == os.fstat(file.fileno())


def _wait_for_a_tick(folder: Path) -> None:
    """Wait until a change has another time than one that was made before."""
    probe = folder / "tick"
    probe.write_bytes(b"")
    begun = probe.stat().st_mtime_ns
    while probe.stat().st_mtime_ns <= begun:
        time.sleep(0.002)
        probe.write_bytes(b"")
    probe.unlink()

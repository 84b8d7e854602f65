import hashlib
import os
import random
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.errors import ImageError
from bottleneck.images import digest
from bottleneck.images.digest import DigestMemo, ImageFile, Signature, digest_file, is_settled, read_file, signature
from bottleneck.images.memo import Memo
from tests.conftest import write
from tests.variants import each

A, B = hashlib.sha256(b"a").digest(), hashlib.sha256(b"b").digest()
SETTLED: Signature = (10, 10**18, 10**18, 7)
NOW = 10**9 + 60.0


def remembered(place: Path, signature: Signature = SETTLED) -> DigestMemo:
    memo = DigestMemo(place)
    memo.remember([("/images/a", signature, A, NOW), ("/images/b", signature, B, NOW)])
    return memo


def execute(place: Path, statement: str) -> None:
    connection = sqlite3.connect(place)
    with connection:
        connection.execute(statement)
    connection.close()


# Reading


def test_a_file_is_read_whole_with_its_digest_and_signature(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jpg", b"abc")
    found, its_signature, now = digest_file(path)
    assert found.hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    status = path.stat()
    assert its_signature == (3, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    assert abs(now - time.time()) < 60

    data = random.Random(0).randbytes(3_000_000)
    assert read_file(write(tmp_path / "a.jpg", data))[0] == data

    write(tmp_path / "a.jpg", b"abc")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    assert read_file(tmp_path / "link.jpg") == read_file(tmp_path / "a.jpg")

    path = write(tmp_path / "a.jpg", b"abcdef")
    sizes: list[int] = []
    assert read_file(path, 6, sizes.append)[0] == b"abcdef"
    assert sizes == [6]

    def refuse(size: int) -> None:
        raise LookupError(f"{size} bytes are too many")

    with pytest.raises(LookupError, match="6 bytes are too many"):
        read_file(path, 6, refuse)


def make_nothing(path: Path) -> None:
    pass


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@each(
    "make, code",
    [
        (Path.mkdir, "unreadable"),
        (make_nothing, "unreadable"),
        (make_dangling, "unreadable"),
        (make_loop, "unreadable"),
        (Path.touch, "empty"),
        (os.mkfifo, "unreadable"),  # and it does not wait for a writer
    ],
)
def test_what_cannot_be_read_has_a_code(tmp_path: Path, make: Callable[[Path], None], code: str) -> None:
    make(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match=r"\w") as error:
        read_file(tmp_path / "a.jpg")
    assert error.value.code == code


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc on this machine")
@each("make", [Path.mkdir, os.mkfifo, Path.touch])
def test_what_cannot_be_read_leaves_no_open_descriptor(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.jpg")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ImageError, match=r"\w"):
            read_file(tmp_path / "a.jpg")
    assert len(os.listdir("/proc/self/fd")) == before


@each("later", [b"abcd", b"ab", b"abd"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, later: bytes) -> None:
    path = write(tmp_path / "a.jpg", b"abc")
    with pytest.raises(ImageError, match="changed") as error:
        read_file(path, admit=lambda size: path.write_bytes(later))
    assert error.value.code == "changed"
    path.write_bytes(b"abc")
    with ImageFile(path) as file:
        path.write_bytes(later)
        with pytest.raises(ImageError, match="changed"):
            file.digest()


def test_a_large_file_is_digested_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"start")
    os.truncate(path, 64 << 20)
    tracemalloc.start()
    try:
        found = digest_file(path)[0]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert found == hashlib.sha256(path.read_bytes()).digest()
    assert most < 4 << 20


@each(
    "known, same",
    [
        ([], True),
        ([(0, b"abc"), (4, b"efgh"), (8, b"")], True),
        ([(2, b"cdefgh")], True),
        ([(0, b"abd")], False),
        ([(0, b"abc"), (5, b"fgx")], False),
    ],
)
@each("piece", [1, 3, 100])
def test_a_digest_is_of_the_bytes_that_were_seen_before(
    tmp_path: Path, known: list[tuple[int, bytes]], same: bool, piece: int
) -> None:
    with ImageFile(write(tmp_path / "a.jpg", b"abcdefgh")) as file:
        if same:
            assert file.digest(known, piece) == hashlib.sha256(b"abcdefgh").digest()
            return
        with pytest.raises(ImageError, match="changed") as error:
            file.digest(known, piece)
    assert error.value.code == "changed"


# The memo


def test_the_memo_recalls_the_last_digest_of_each_file(tmp_path: Path) -> None:
    memo = remembered(tmp_path / "digests.sqlite")
    asked = {"/images/a": SETTLED, "/images/b": SETTLED, "/images/c": SETTLED}
    assert memo.lookup(asked) == {"/images/a": A, "/images/b": B}
    assert DigestMemo(tmp_path / "digests.sqlite").lookup(asked) == {"/images/a": A, "/images/b": B}

    memo = remembered(tmp_path / "second.sqlite")
    later = (11, *SETTLED[1:])
    memo.remember([("/images/a", later, B, NOW)])
    assert memo.lookup({"/images/a": later}) == {"/images/a": B}
    assert memo.lookup({"/images/a": SETTLED}) == {}

    digests = {f"/images/{number}": hashlib.sha256(b"%d" % number).digest() for number in range(1201)}
    memo = DigestMemo(tmp_path / "third.sqlite")
    memo.remember((path, SETTLED, found, NOW) for path, found in digests.items())
    assert memo.lookup(dict.fromkeys(digests, SETTLED)) == digests

    for field in range(4):
        memo = remembered(tmp_path / "fourth.sqlite")
        changed = tuple(value + (index == field) for index, value in enumerate(SETTLED))
        assert memo.lookup({"/images/a": changed, "/images/b": SETTLED}) == {"/images/b": B}


@each("path", ["/images/café", os.fsdecode(b"/images/caf\xe9"), "/images/a'b\n?#%41"])
def test_the_memo_takes_any_name(tmp_path: Path, path: str) -> None:
    memo = DigestMemo(tmp_path / "odd ?#%41" / "digests.sqlite")
    memo.remember([(path, SETTLED, A, NOW)])
    assert memo.lookup({path: SETTLED}) == {path: A}
    assert memo.path.is_file()


def test_any_time_and_inode_fits(tmp_path: Path) -> None:
    for time_ns in [-(2**62), -1, 2**62, 2**63 + 5]:
        odd = (10, time_ns, -5, 7)
        memo = DigestMemo(tmp_path / "digests.sqlite")
        memo.remember([("/images/a", odd, A, 2**40)])
        assert memo.lookup({"/images/a": odd}) == {"/images/a": A}
        assert memo.lookup({"/images/a": (10, time_ns + 1, -5, 7)}) == {}

    status = os.stat_result((0o100644, 2**64 - 1, 0, 1, 0, 0, 10, 0, 0, 0))
    memo = remembered(tmp_path / "second.sqlite", (10, 10**18, 10**18, signature(status)[3]))
    assert len(memo.lookup({"/images/a": (10, 10**18, 10**18, signature(status)[3])})) == 1


@each(
    "mtime_age, ctime_age, settled",
    [
        (60, 60, True),
        (2, 2, True),
        (1.9, 60, False),
        (60, 1.9, False),
        (-60, 60, True),
        (-60, 1.9, False),
        (60, -60, False),
    ],
)
def test_a_file_is_settled_two_seconds_after_its_last_change(mtime_age: float, ctime_age: float, settled: bool) -> None:
    found = (10, int((NOW - mtime_age) * 1e9), int((NOW - ctime_age) * 1e9), 7)
    assert is_settled(found, NOW) is settled


def test_a_young_file_is_not_remembered(tmp_path: Path) -> None:
    for field in [1, 2]:
        young = tuple(int((NOW - 1) * 1e9) if index == field else value for index, value in enumerate(SETTLED))
        memo = remembered(tmp_path / "digests.sqlite", young)
        assert memo.lookup({"/images/a": young}) == {}

    path = str(write(tmp_path / "a.jpg", b"abc"))  # its mtime is old, its ctime is not
    found, its_signature, now = digest_file(path)
    memo = DigestMemo(tmp_path / "second.sqlite")
    memo.remember([(path, its_signature, found, now)])
    assert memo.lookup({path: its_signature}) == {}

    assert digest.FRESH_SECONDS == 2.0


def test_nothing_is_written_by_looking_up_or_without_digests(tmp_path: Path) -> None:
    DigestMemo(tmp_path / "cache" / "digests.sqlite").remember([])
    assert not (tmp_path / "cache").exists()

    assert DigestMemo(tmp_path / "other" / "second.sqlite").lookup({"/images/a": SETTLED}) == {}
    assert not (tmp_path / "other").exists()


# A memo that is lost or damaged


def test_a_deleted_memo_or_one_of_another_schema_is_made_anew(tmp_path: Path) -> None:
    memo = remembered(tmp_path / "digests.sqlite")
    memo.path.unlink()
    assert memo.lookup({"/images/a": SETTLED}) == {}
    assert remembered(memo.path).lookup({"/images/a": SETTLED}) == {"/images/a": A}

    place = tmp_path / "second.sqlite"
    execute(place, "create table digests (path blob)")
    assert DigestMemo(place).lookup({"/images/a": SETTLED}) == {}
    assert remembered(place).lookup({"/images/a": SETTLED}) == {"/images/a": A}


@each("content", [b"", b"no database " * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_memo_that_is_no_database_is_empty_and_made_anew(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "digests.sqlite"
    place.write_bytes(content)
    assert DigestMemo(place).lookup({"/images/a": SETTLED}) == {}
    assert remembered(place).lookup({"/images/a": SETTLED}) == {"/images/a": A}


def test_a_memo_cut_short_or_overwritten_gives_nothing_wrong(tmp_path: Path) -> None:
    place = tmp_path / "digests.sqlite"
    memo = remembered(place)
    whole = place.read_bytes()
    for length in range(0, len(whole), 512):
        place.write_bytes(whole[:length])
        assert memo.lookup({"/images/a": SETTLED}) in ({}, {"/images/a": A})

    place = tmp_path / "second.sqlite"
    memo = remembered(place)
    place.write_bytes(place.read_bytes().replace(b"CREATE TABLE digests", b"CR\xe6ATE TABLE digests"))
    assert memo.lookup({"/images/a": SETTLED}) == {}
    memo.remember([("/images/a", SETTLED, A, NOW)])
    assert memo.lookup({"/images/a": SETTLED}) == {"/images/a": A}

    place = tmp_path / "third.sqlite"
    memo = remembered(place)
    place.write_bytes(place.read_bytes().replace(A, bytes([A[0] ^ 1]) + A[1:]))
    assert memo.lookup({"/images/a": SETTLED, "/images/b": SETTLED}) == {"/images/b": B}


@each("value", ["null", "5", "'" + "x" * 64 + "'", "x'00'", "x''"])
def test_an_entry_that_is_not_what_was_written_is_a_miss(tmp_path: Path, value: str) -> None:
    memo = remembered(tmp_path / "digests.sqlite")
    execute(memo.path, f"update digests_2 set value = {value} where key = cast('/images/a' as blob)")
    assert memo.lookup({"/images/a": SETTLED, "/images/b": SETTLED}) == {"/images/b": B}


@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=60))
def test_overwritten_bytes_in_the_memo_are_no_error(tmp_path: Path, damage: list[tuple[float, int]]) -> None:
    place = tmp_path / "digests.sqlite"
    place.unlink(missing_ok=True)
    memo = remembered(place)
    damaged = bytearray(place.read_bytes())
    for part, byte in damage:
        damaged[100 + int(part * (len(damaged) - 100))] = byte
    place.write_bytes(damaged)
    assert set(memo.lookup({"/images/a": SETTLED, "/images/b": SETTLED})) <= {"/images/a", "/images/b"}
    memo.remember([("/images/a", SETTLED, A, NOW)])


@each("name", range(4))
@each("byte", [b"\x01", b"A", b"\xb9"])
def test_a_path_overwritten_in_the_memo_is_a_miss(tmp_path: Path, name: int, byte: bytes) -> None:
    place = tmp_path / "digests.sqlite"
    digests = {f"/images/{number}": bytes([number]) * 32 for number in range(4)}
    memo = DigestMemo(place)
    memo.remember((path, SETTLED, found, NOW) for path, found in digests.items())
    place.write_bytes(place.read_bytes().replace(b"/images/%d" % name, b"/%cmages/%d" % (byte, name)))
    del digests[f"/images/{name}"]
    recalled = memo.lookup({f"/images/{number}": SETTLED for number in range(4)})
    assert recalled.items() <= digests.items()


@each("length", [0, 31, 63, 65, 96])
def test_an_entry_of_another_length_is_a_miss_though_its_seal_holds(tmp_path: Path, length: int) -> None:
    memo = remembered(tmp_path / "digests.sqlite")
    rows = Memo(memo.path, "digests_2")
    [value] = rows.get([b"/images/a"]).values()
    rows.put([(b"/images/a", (value + value)[:length])])
    assert memo.lookup({"/images/a": SETTLED, "/images/b": SETTLED}) == {"/images/b": B}


def place_that_is_a_folder(root: Path) -> Path:
    (root / "digests.sqlite").mkdir()
    return root / "digests.sqlite"


def place_below_a_file(root: Path) -> Path:
    (root / "cache").write_bytes(b"")
    return root / "cache" / "digests.sqlite"


def place_of_too_long_a_name(root: Path) -> Path:
    return root / ("x" * 300) / "digests.sqlite"


@each("place", [place_that_is_a_folder, place_below_a_file, place_of_too_long_a_name])
def test_a_memo_that_cannot_be_there_is_done_without(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    memo = remembered(place(tmp_path))
    assert memo.lookup({"/images/a": SETTLED}) == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_memo_in_a_read_only_folder_is_read_and_not_written(tmp_path: Path) -> None:
    memo = remembered(tmp_path / "cache" / "digests.sqlite")
    memo.path.chmod(0o444)
    memo.path.parent.chmod(0o555)
    memo.remember([("/images/c", SETTLED, A, NOW)])
    assert memo.lookup({"/images/a": SETTLED, "/images/c": SETTLED}) == {"/images/a": A}
    memo.path.parent.chmod(0o755)

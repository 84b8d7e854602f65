import hashlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.images.memo import Memo
from tests.variants import each

KNOWN = {b"one": b"first", b"two": b"second", b"": b"of no key", b"of no value": b""}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path("memo.sqlite")


def filled(place: Path, table: str = "things_1", known: dict[bytes, bytes] = KNOWN) -> Memo:
    memo = Memo(place, table)
    memo.put(known.items())
    return memo


def execute(place: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute(statement, values)


def test_the_last_value_of_any_bytes_is_returned(place: Path) -> None:
    filled(place)
    memo = Memo(str(place), "things_1")
    assert memo.all() == KNOWN
    assert memo.get([b"one", b"", b"unknown", b"of no value"]) == {
        b"one": b"first",
        b"": b"of no key",
        b"of no value": b"",
    }
    assert memo.get([]) == {}

    memo = filled(place)
    memo.put([(b"one", b"again"), (b"three", b"third"), (b"one", b"at last")])
    assert memo.all() == {**KNOWN, b"one": b"at last", b"three": b"third"}


@each("count", [499, 500, 501, 1500])
def test_more_keys_than_one_query_takes_are_found(place: Path, count: int) -> None:
    many = {b"%d" % number: hashlib.sha256(b"%d" % number).digest() for number in range(count)}
    memo = filled(place, known=many)
    assert memo.get([*many, b"unknown"]) == many
    assert memo.all() == many


def test_keys_and_values_may_hold_any_bytes(place: Path) -> None:
    odd = {bytes([byte]) * 3: bytes([255 - byte, 0, 39]) for byte in range(256)}
    memo = filled(place, known=odd)
    assert memo.get(list(odd)) == odd


def test_two_memos_may_share_a_file(place: Path) -> None:
    first, second = filled(place, "first_1"), Memo(place, "second_1")
    assert second.all() == {}
    assert second.get([b"one"]) == {}
    second.put([(b"one", b"other")])
    assert (first.get([b"one"]), second.get([b"one"])) == ({b"one": b"first"}, {b"one": b"other"})


def test_a_memo_is_made_when_there_is_something_to_keep(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "a" / "b" / "memo.sqlite", "things_1")
    assert memo.all() == memo.get([b"one"]) == {}
    memo.put(iter([]))
    assert not (tmp_path / "a").exists()
    memo.put(iter([(b"one", b"first")]))
    assert memo.all() == {b"one": b"first"}

    (tmp_path / "file").write_bytes(b"as it was")
    memo = filled(tmp_path / "file" / "memo.sqlite")
    assert memo.all() == memo.get([b"one"]) == {}
    assert (tmp_path / "file").read_bytes() == b"as it was"


def test_reading_writes_nothing_and_no_connection_stays_open(place: Path) -> None:
    memo = filled(place)
    before = place.read_bytes(), place.stat().st_mtime_ns
    memo.get([b"one"])
    memo.all()
    assert (place.read_bytes(), place.stat().st_mtime_ns) == before
    assert os.listdir(place.parent) == [place.name]

    memo = filled(place)
    memo.get([b"one"])
    memo.all()
    if os.path.isdir("/proc/self/fd"):
        opened = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        assert str(place.resolve()) not in opened
    place.unlink()
    assert memo.all() == {}


def test_reading_makes_no_memo_anew_that_another_process_removes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "exists", lambda path: True)  # it was there a moment ago
        memo = Memo(place, "things_1")
        assert memo.all() == memo.get([b"one"]) == {}
    assert not place.exists()


# Damage


@each(
    "change",
    [
        "value = x'0102'",
        "value = null",
        "value = 5",
        "value = cast(value as text)",
        "seal = x'0102030405060708'",
        "seal = null",
        "key = x'00'",
        "key = cast(key as text)",
    ],
)
def test_a_row_that_is_not_what_was_written_is_not_there(place: Path, change: str) -> None:
    memo = filled(place, known={b"one": b"first", b"two": b"second"})
    execute(place, f"update things_1 set {change} where key = ?", b"one")
    assert memo.all() == {b"two": b"second"}
    assert memo.get([b"one", b"two", b"\0"]) == {b"two": b"second"}


@each("column", ["key", "value", "seal"])
def test_text_that_is_none_is_no_error(place: Path, column: str) -> None:
    memo = filled(place, known={b"one": b"first", b"two": b"second"})
    execute(place, f"update things_1 set {column} = cast(x'ff' as text) where key = ?", b"one")
    assert memo.all().items() <= {(b"two", b"second")}
    assert memo.get([b"two"]) == {b"two": b"second"}


def test_the_seal_of_a_row_does_not_fit_another_nor_moved_bytes(place: Path) -> None:
    memo = filled(place, known={b"one": b"first", b"two": b"second"})
    execute(place, "update things_1 set value = ?, seal = (select seal from things_1 where key = ?)", b"first", b"one")
    assert memo.all() == {b"one": b"first"}

    place.unlink()
    memo = filled(place, known={b"one": b"first"})
    execute(place, "update things_1 set key = ?, value = ?", b"on", b"efirst")
    assert memo.all() == {}


@each("text", [b"one", b"first"])
def test_every_flipped_bit_of_a_row_is_noticed(place: Path, text: bytes) -> None:
    memo = filled(place, known={b"one": b"first"})
    sound = place.read_bytes()
    at = sound.index(b"onefirst") + b"onefirst".index(text)
    for bit in range(8 * len(text)):
        damaged = bytearray(sound)
        damaged[at + bit // 8] ^= 1 << bit % 8
        place.write_bytes(damaged)
        assert memo.all() == memo.get([b"one"]) == {}


@given(damage=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=60))
def test_overwritten_bytes_give_nothing_wrong_and_are_mended(place: Path, damage: list[tuple[float, int]]) -> None:
    place.unlink(missing_ok=True)
    known = {b"key %d" % number: b"value %d" % number for number in range(200)}
    memo = filled(place, known=known)
    damaged = bytearray(place.read_bytes())
    for part, byte in damage:
        damaged[int(part * len(damaged))] = byte
    place.write_bytes(damaged)
    assert memo.all().items() <= known.items()
    assert memo.get(list(known)).items() <= known.items()
    memo.put([(b"one", b"first")])
    assert memo.all().items() <= {**known, b"one": b"first"}.items()


@each("content", [b"", b"no database " * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
def test_what_is_no_database_is_empty_and_made_anew(place: Path, content: bytes) -> None:
    place.write_bytes(content)
    memo = Memo(place, "things_1")
    assert memo.all() == memo.get([b"one"]) == {}
    memo.put(KNOWN.items())
    assert memo.all() == KNOWN


def test_a_memo_that_cannot_be_written_now_keeps_what_it_has(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = filled(place)
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0}))
    with closing(connect(place)) as other:
        other.execute("begin exclusive")  # another process is writing
        memo.put([(b"three", b"third")])
        assert memo.all() == {}  # it is done without, and not waited for, nor an error
    assert memo.all() == KNOWN


def test_a_row_that_sqlite_finds_no_memory_for_is_done_without(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = filled(place)
    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.images.memo._intact", lambda *_: (_ for _ in ()).throw(MemoryError))
        assert memo.get(list(KNOWN)) == {}
        assert memo.all() == {}
    with monkeypatch.context() as patch:
        patch.setattr(Memo, "_write", lambda *_: (_ for _ in ()).throw(MemoryError))
        memo.put([(b"new", b"value")])
    assert memo.all() == KNOWN


def test_an_error_while_rows_are_generated_is_raised(place: Path) -> None:
    memo = filled(place)
    with pytest.raises(ZeroDivisionError):
        memo.put((b"one", b"%d" % (1 // number)) for number in (1, 0))
    assert memo.all() == KNOWN


# Several users


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Let a test set the umask of this process."""
    before = os.umask(0)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@each("mask, mode", [(0o002, 0o664), (0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_its_file_takes_the_umask(place: Path, umask: Callable[[int], int], mask: int, mode: int) -> None:
    umask(mask)
    memo = filled(place)
    assert stat.S_IMODE(place.stat().st_mode) == mode
    memo.put([(b"three", b"third")])
    assert stat.S_IMODE(place.stat().st_mode) == mode


@contextmanager
def of_another(folder_mode: int) -> Iterator[Memo]:
    """Give a memo whose file this user may not write."""
    is_root = os.geteuid() == 0
    if is_root and not hasattr(os, "setresuid"):
        pytest.skip("needs a system on which root can become another user for a while")
    with tempfile.TemporaryDirectory() as folder:  # which another user can reach, unlike the folders of pytest
        memo = filled(Path(folder) / "memo.sqlite")
        memo.path.chmod(0o444)
        Path(folder).chmod(folder_mode)
        if is_root:
            os.setresuid(65534, 65534, 0)
        try:
            yield memo
        finally:
            if is_root:
                os.setresuid(0, 0, 0)
            Path(folder).chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_the_file_of_another_user_is_replaced_by_a_copy_with_what_is_new() -> None:
    with of_another(folder_mode=0o777) as memo:
        assert not memo.is_writable
        memo.put([(b"three", b"third"), (b"one", b"changed")])
        assert memo.is_writable
        assert memo.all() == {**KNOWN, b"three": b"third", b"one": b"changed"}
        assert os.listdir(memo.path.parent) == ["memo.sqlite"]
    with of_another(folder_mode=0o555) as memo:  # where no copy can be made, it is kept as it is
        before = memo.path.read_bytes()
        memo.put([(b"three", b"third")])
        assert (memo.path.read_bytes(), os.listdir(memo.path.parent)) == (before, ["memo.sqlite"])
        assert memo.all() == KNOWN

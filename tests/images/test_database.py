import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckWarning
from bottleneck.images import database
from bottleneck.images.memo import Memo
from tests.variants import each

COLUMNS = "(key blob primary key, value blob, seal blob)"
ENDLESS = "with recursive r(i) as (select 1 union all select i + 1 from r)"
KNOWN = {b"one": b"first", b"two": b"second"}
JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"  # how one of SQLite begins, and ends where it names another


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path("memo.sqlite")


def filled(place: Path) -> Memo:
    memo = Memo(place, "things_1")
    memo.put(KNOWN.items())
    return memo


def execute(place: Path, *statements: str) -> None:
    with closing(sqlite3.connect(place)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


HOSTILE = {
    "a view": ["create view things_1 as select x'01' key, x'02' value, x'03' seal"],
    "an endless view": [f"create view things_1 as {ENDLESS} select i key, i value, i seal from r"],
    "another view": [
        f"create table things_1 {COLUMNS} without rowid",
        f"create view other_1 as {ENDLESS} select i from r",
    ],
    "a trigger": [
        f"create table things_1 {COLUMNS} without rowid",
        f"create trigger t before insert on things_1 begin {ENDLESS.replace('with', 'insert into things_1 with', 1)} "
        "select i, i, i from r; end",
    ],
    "an index": [
        f"create table things_1 {COLUMNS} without rowid",
        "create index i_1 on things_1 (value) where length(value) > 2",
    ],
    "an index of an expression": [
        f"create table things_1 {COLUMNS} without rowid",
        "create index i_1 on things_1 (hex(value))",
    ],
    "a table with rowids": [f"create table things_1 {COLUMNS}"],
    "a check": [
        "create table things_1 (key blob primary key, value blob, seal blob check (length(seal) > 1)) without rowid"
    ],
    "a computed column": [
        "create table things_1 (key blob primary key, value blob, seal blob as (zeroblob(9))) without rowid"
    ],
    "a default": ["create table things_1 (key blob primary key, value blob default 5, seal blob) without rowid"],
    "a table more": [f"create table things_1 {COLUMNS} without rowid", "create table Users (name text)"],
    "many tables": [f"create table things_{number} {COLUMNS} without rowid" for number in range(1, 120)],
    "a log": ["pragma journal_mode = wal", f"create table things_1 {COLUMNS} without rowid"],
}


@each("kind", HOSTILE)
def test_a_file_with_anything_but_our_tables_is_thrown_away(place: Path, kind: str) -> None:
    with closing(sqlite3.connect(place, isolation_level=None)) as connection:
        connection.execute("pragma synchronous = off")
        for statement in HOSTILE[kind]:
            connection.execute(statement)
    memo = Memo(place, "things_1")
    assert memo.all() == memo.get([b"one"]) == {}
    memo.put(KNOWN.items())
    assert memo.all() == KNOWN
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("select type, name from sqlite_master").fetchall() == [("table", "things_1")]


def test_a_virtual_table_is_never_connected_to(place: Path, tmp_path: Path) -> None:
    try:
        execute(place, "create virtual table things_1 using fts5(key, value, seal)")
    except sqlite3.OperationalError:
        pytest.skip("this SQLite has no full text search")
    memo = filled(place)
    assert memo.all() == KNOWN


# What SQLite would take over by itself


def journal_naming(name: Path) -> bytes:
    """Return a journal that was left behind, of a transaction over several files; `name` lists them."""
    text = os.fsencode(name)
    header = JOURNAL + struct.pack(">IIIII", 0, 0, 2, 512, 4096)
    end = struct.pack(">I", 2) + text + struct.pack(">II", len(text), sum(text)) + JOURNAL
    return header.ljust(512, b"\0") + end


@each("ending", ["-journal", "-wal", "-shm"])
@each("content", [b"", b"\0" * 5000, b"of some years"])
def test_a_link_next_to_the_file_is_not_followed(place: Path, tmp_path: Path, ending: str, content: bytes) -> None:
    memo = filled(place)
    thesis = tmp_path / "thesis"
    thesis.write_bytes(content)
    os.symlink(thesis, f"{place}{ending}")
    assert memo.all() == {}
    memo.put([(b"three", b"third")])
    memo.put([(b"four", b"fourth")])
    assert thesis.read_bytes() == content
    assert memo.all() == {b"three": b"third", b"four": b"fourth"}


def test_writing_leaves_no_journal_and_a_foreign_journal_deletes_nothing(place: Path, tmp_path: Path) -> None:
    filled(place)
    with database.opened(place, "rwc", 5) as connection, connection:
        connection.execute("delete from things_1")
        assert os.listdir(place.parent) == [place.name]

    memo = filled(place)
    thesis = tmp_path / "thesis"
    thesis.write_text("of some years")
    Path(f"{place}-journal").write_bytes(journal_naming(thesis))
    assert memo.all() == memo.get([b"one"]) == {}
    memo.put([(b"three", b"third")])
    assert thesis.read_text() == "of some years"
    assert memo.all() == {b"three": b"third"}


# What is no file


def link_to_a_database(place: Path, target: Path) -> None:
    filled(target)
    place.symlink_to(target)


def link_to_nothing(place: Path, target: Path) -> None:
    place.symlink_to(target)


def fifo(place: Path, target: Path) -> None:
    os.mkfifo(place)


def link_to_a_device(place: Path, target: Path) -> None:
    place.symlink_to("/dev/zero")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs")
@each("make", [link_to_a_database, link_to_nothing, fifo, link_to_a_device])
def test_a_link_or_a_device_is_left_alone_and_said(
    place: Path, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    target = tmp_path / "target"
    make(place, target)
    before = target.read_bytes() if target.exists() else None
    status = os.lstat(place)
    memo = Memo(place, "things_1")
    assert memo.all() == memo.get([b"one"]) == {}
    with pytest.warns(BottleneckWarning, match="left unchanged"):
        memo.put(KNOWN.items())
    assert memo.all() == {}
    assert os.lstat(place).st_ino == status.st_ino
    assert (target.read_bytes() if target.exists() else None) == before


# What is too much


def test_a_file_that_is_too_large_is_thrown_away_unread(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = filled(place)
    with monkeypatch.context() as patch:
        patch.setattr(database, "LARGEST_FILE", 4096)
        memo.put([(bytes([number]), bytes(1000)) for number in range(20)])
        assert memo.all() == {}
        memo.put([(b"three", b"third")])
    assert b"one" not in memo.all()


def test_what_takes_too_many_steps_is_stopped_and_thrown_away(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = Memo(place, "things_1")
    many = {b"%d" % number: b"value" for number in range(5000)}
    memo.put(many.items())
    with monkeypatch.context() as patch:
        patch.setattr(database, "_STEPS", 3000)
        patch.setattr(database, "_STEPS_OF_A_ROW", 0)
        assert len(memo.all()) < len(many)
        memo.put(many.items())  # too many steps, too
        memo.put([(b"three", b"third")])
        assert memo.all() == {b"three": b"third"}


def test_the_maximum_number_of_steps_is_never_needed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "_STEPS", 4000)
        memo = Memo(place, "things_1")
        many = {b"/images/%d.jpg" % number: bytes(64) for number in range(10_000)}
        memo.put(many.items())
        assert memo.get(list(many)) == many
        assert memo.all() == many


@each("column", ["key", "value", "seal"])
def test_a_row_of_many_megabytes_is_not_there(place: Path, column: str) -> None:
    memo = filled(place)
    execute(place, f"update things_1 set {column} = zeroblob(3000000) where key = cast('one' as blob)")
    assert memo.all() == memo.get([b"one", b"two"]) == {b"two": b"second"}


def test_no_more_is_kept_and_read_than_is_allowed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = Memo(place, "things_1")
    memo.put(
        [(b"one", bytes(database.LARGEST_VALUE)), (b"two", bytes(database.LARGEST_VALUE + 1)), (bytes(70_000), b"")]
    )
    assert memo.all() == {b"one": bytes(database.LARGEST_VALUE)}

    place.unlink()
    memo = Memo(place, "things_1")
    memo.put((b"%05d" % number, bytes(95)) for number in range(50))
    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.images.memo._LARGEST", 1000)
        assert len(memo.all()) == 10
    with monkeypatch.context() as patch:
        patch.setattr("bottleneck.images.memo._MOST", 7)
        assert len(memo.all()) == 7


def test_a_page_in_the_place_of_another_returns_only_requested_rows(place: Path) -> None:
    known = {b"%03d" % number: bytes([number]) * 64 for number in range(60)}
    memo = Memo(place, "first_1")
    memo.put(known.items())
    Memo(place, "second_1").put((b"x%d" % number, bytes(64)) for number in range(60))
    whole = place.read_bytes()
    pages = range(4096, len(whole), 4096)
    for to, source in ((to, source) for to in pages for source in range(0, len(whole), 4096)):
        place.write_bytes(whole[:to] + whole[source : source + 4096] + whole[to + 4096 :])
        assert memo.get(list(known)).items() <= known.items()

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.utils import files
from bottleneck.utils.files import (
    NotRegularError,
    canonical_json,
    fsync_folder,
    make_folder,
    parse_json,
    read_json,
    read_whole,
    replacing,
    sha256_hex,
    write_atomic,
)
from tests.faults import Fault, Wrap, file_sizes_limited, system_error
from tests.variants import each

BROKEN = Fault(system_error(errno.EIO))


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_write_atomic_makes_the_folders_and_leaves_the_bytes_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"\r\n\0\xff")
    assert path.read_bytes() == b"\r\n\0\xff"
    assert names(path.parent) == ["file"]


def test_write_atomic_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old and long")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_write_atomic_never_opens_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with open(path, "rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"


def test_a_failed_fsync_is_raised_and_leaves_the_old_file_alone(tmp_path: Path, wrap: Wrap) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    wrap(os, "fsync", BROKEN)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_the_bytes_are_synced_before_the_rename_and_the_folder_after_it(tmp_path: Path, wrap: Wrap) -> None:
    path = tmp_path / "file"
    seen: list[tuple[str, bool]] = []

    def watch(fsync: Callable[[int], None], descriptor: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"
        seen.append((kind, path.exists()))
        fsync(descriptor)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc on this machine")
    wrap(os, "fsync", watch)
    write_atomic(path, b"new")
    assert seen == [("file", False), ("folder", True)]


def test_a_memo_is_whole_and_takes_no_fsync(tmp_path: Path, wrap: Wrap) -> None:
    write_atomic(tmp_path / "file", b"old")
    wrap(os, "fsync", BROKEN)
    write_atomic(tmp_path / "file", b"new", durable=False)

    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_a_memo_that_fails_half_way_leaves_the_old_one_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old", durable=False)
    with file_sizes_limited(), pytest.raises(OSError, match="too large"):
        write_atomic(tmp_path / "file", b"x" * 2000, durable=False)

    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# --- a writer that needs a name ---------------------------------------------------------------------------------


def test_what_was_written_under_the_temporary_name_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for data in (b"one", b"two"):
        with replacing(path) as temporary:
            temporary.write_bytes(data)
            assert names(path.parent) == sorted([temporary.name, *(["file"] if data == b"two" else [])])
        assert path.read_bytes() == data

    assert names(path.parent) == ["file"]


@each("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    write_atomic(tmp_path / "file", b"old")

    def half() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        half()

    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass

    assert names(tmp_path) == []


def test_what_a_writer_wrote_is_synced_before_it_takes_its_place(tmp_path: Path, wrap: Wrap) -> None:
    write_atomic(tmp_path / "file", b"old")
    wrap(os, "fsync", BROKEN)

    def new() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.write_bytes(b"new")

    with pytest.raises(OSError, match="Input/output error"):
        new()

    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.name == "nt", reason="no such call on Windows")
def test_each_new_folder_is_made_durable_in_the_one_above(tmp_path: Path, wrap: Wrap) -> None:
    seen: list[int] = []
    wrap(os, "fsync", lambda fsync, descriptor: seen.append(os.fstat(descriptor).st_ino) or fsync(descriptor))
    make_folder(tmp_path / "a" / "b" / "c")

    assert seen == [path.stat().st_ino for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
    seen.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert seen == []


def test_a_failed_rename_is_raised_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (path / "full").mkdir(parents=True)  # a file cannot replace a folder
    with pytest.raises(OSError, match=r"\w"):
        write_atomic(path, b"new")
    assert names(tmp_path) == ["file"]
    assert names(path) == ["full"]


def test_a_failed_replace_leaves_the_old_file_alone(tmp_path: Path, wrap: Wrap) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    wrap(Path, "replace", BROKEN)
    with pytest.raises(OSError, match="Input/output error"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_write_that_fails_half_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with file_sizes_limited(), pytest.raises(OSError, match="too large"):
        write_atomic(path, b"x" * 100_000)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_ctrl_c_during_a_write_leaves_no_temporary_file(tmp_path: Path, wrap: Wrap) -> None:
    wrap(os, "fsync", Fault(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"new")
    assert names(tmp_path) == []


def test_fsync_folder_closes_what_it_opens_when_it_fails(tmp_path: Path, wrap: Wrap) -> None:
    opened: list[int] = []
    wrap(os, "fsync", lambda fsync, descriptor: opened.append(descriptor) or BROKEN(fsync))
    with pytest.raises(OSError, match="Input/output error"):
        fsync_folder(tmp_path)
    with pytest.raises(OSError, match=r"\w"):
        os.fstat(opened[0])


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert canonical_json({"b": {"y": 1, "x": 2}, "a": 3}) == canonical_json({"a": 3, "b": {"x": 2, "y": 1}})
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5,null]}'


def test_canonical_json_depends_on_the_order_of_lists() -> None:
    assert canonical_json([1, 2]) != canonical_json([2, 1])


@each("number", [float("nan"), float("inf"), float("-inf")])
def test_canonical_json_refuses_what_is_not_a_json_number(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"mean": [number]})


def test_sha256_hex_is_that_of_the_standard() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_temporary_name_is_hidden(tmp_path: Path, wrap: Wrap) -> None:
    seen: list[str] = []
    wrap(os, "fsync", lambda fsync, descriptor: (seen.extend(os.listdir(tmp_path)), fsync(descriptor)))
    write_atomic(tmp_path / "file", b"new")
    assert seen[0].startswith(files.TEMPORARY)
    assert files.TEMPORARY.startswith(".")


@each("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "it")
    with pytest.raises(NotRegularError):
        read_json(tmp_path / "it")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345")
    assert read_whole(tmp_path / "it", 5) == b"12345"
    with pytest.raises(OSError, match="at most 4 bytes, found 5"):
        read_whole(tmp_path / "it", 4)


@each("text", [
        b"", b"{", b"\xff", "{}".encode("utf-16"), b"[" * 200_000, b"[" * 50 + b"]" * 50,
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'{"a": 1, "a": 2}', b'[{"b": {"a": 1, "a": 1}}]', b'"\\ud800"', b'{"x": ["\\uDBFF"]}', b'{"\\ud800": 1}',
        b'"\xed\xa0\x80"', b'["\\ude00\\ud83d"]', b"9" * 5000,
        b"[-" + b"9" * 400 + b"]",
    ])  # fmt: skip
def test_json_that_could_be_taken_for_something_else_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - json's own, and ours
        parse_json(text)


@each(
    "text, value",
    [
        (b'{"a": [1, {"a": 2}]}', {"a": [1, {"a": 2}]}),
        (b'["\\ud83d\\ude00", "caf\\udce9", "C:\\\\ud800"]', ["😀", "caf\udce9", "C:\\ud800"]),
        (b"\xef\xbb\xbf5", 5),
        (b"[" * 30 + b"]" * 30, None),
    ],
)
def test_other_json_is_read(text: bytes, value: object) -> None:
    assert value in (None, parse_json(text))

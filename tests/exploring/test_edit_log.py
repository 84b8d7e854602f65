import errno
import os
from pathlib import Path

import pytest

from bottleneck.errors import OutputError
from bottleneck.exploring.edit_log import EditLog
from tests.variants import each

PATH = Path("labels.csv.log")


def entries():
    log = EditLog(PATH)
    try:
        return log.entries
    finally:
        log.close()


def write(*lines):
    log = EditLog(PATH)
    for line in lines:
        log.append(line)
    log.close()


def test_entries_come_back_in_their_order():
    write({"action": "undo"}, {"value": "\u00e9\udcff\n"})
    assert entries() == [{"action": "undo"}, {"value": "\u00e9\udcff\n"}]


@each("torn", [b'{"action":"re', b"{}x\n", b"\0\0\0\0", b"\0\0\0\n", b'{"a":1}'])
def test_a_last_line_that_is_not_whole_is_dropped_and_the_log_goes_on(torn):
    write({"action": "undo"})
    whole = PATH.read_bytes()
    PATH.write_bytes(whole + torn)
    assert entries() == [{"action": "undo"}]
    assert PATH.read_bytes() == whole
    write({"action": "redo"})
    assert entries() == [{"action": "undo"}, {"action": "redo"}]


def test_a_first_line_that_was_torn_is_begun_again():
    PATH.write_bytes(b'{"format":"bottl')
    assert entries() == []
    assert entries() == []


@each(
    "data, message",
    [
        (b'{"format":"bottleneck edits","version":1}\nnothing\n{"action":"undo"}\n', "something else in line 2"),
        (b'{"format":"bottleneck edits","version":2}\n', "expected version 1"),
        (b'{"format":"other","version":1}\n', "something else"),
        (b"a note of mine", "something else"),
        (b"a note of mine\n", "something else"),
    ],
)
def test_damage_and_other_files_are_refused_and_left(data, message):
    PATH.write_bytes(data)
    with pytest.raises(OutputError, match=message):
        EditLog(PATH)
    assert PATH.read_bytes() == data


def test_a_second_user_is_refused_until_the_first_has_ended():
    first = EditLog(PATH)
    with pytest.raises(OutputError, match="in use: close the other one"):
        EditLog(PATH)
    first.close()
    assert entries() == []


def test_a_full_disk_leaves_the_log_as_it_was(wrap):
    log = EditLog(PATH)
    before = PATH.read_bytes()

    def write_half(call, descriptor, data):
        call(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space left")

    wrap(os, "write", write_half)
    with pytest.raises(OutputError, match="no space left; nothing was changed"):
        log.append({"action": "undo"})
    assert PATH.read_bytes() == before
    log.close()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("precious")
    PATH.symlink_to(tmp_path / "other")
    with pytest.raises(OutputError, match="symbolic link"):
        EditLog(PATH)

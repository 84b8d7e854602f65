"""Files that a user names: what may be written, and that nothing is lost when it cannot be."""

import errno
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

import pytest

from bottleneck.errors import BottleneckError, OutputError, PathError
from bottleneck.utils.output_file import check_output, in_utf8, write_output
from tests.variants import each

posix = pytest.mark.skipif(os.name == "nt", reason="permissions and special files of POSIX")
not_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")


def new(file: BinaryIO) -> None:
    file.write(b"new")


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)  # a path from the root may be too long


def make_link_of_device(path: Path) -> None:
    path.symlink_to(os.devnull)


def make_link_of_file(path: Path) -> None:
    (path.parent / "kept").write_bytes(b"old")
    path.symlink_to("kept")


THINGS: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo if hasattr(os, "mkfifo") else Path.mkdir,
    "a socket": make_socket,
    "a symbolic link": make_link_of_file,
    "a symbolic link, ": make_link_of_device,
    "a symbolic link ": lambda path: path.symlink_to("nowhere"),
}


@posix
@each("kind", THINGS)
def test_what_is_not_a_file_is_refused_before_the_work_and_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    THINGS[kind](out)
    before = os.lstat(out)
    for refuse in (lambda: check_output(out), lambda: write_output(out, new)):
        with pytest.raises(OutputError, match=rf"expected a regular file or a new name .*out, {kind.strip(', ')}\. "):
            refuse()

    assert os.lstat(out).st_ino == before.st_ino
    assert not os.path.lexists("nowhere")
    assert not os.path.exists("kept") or Path("kept").read_bytes() == b"old"


@posix
@each("kind", THINGS)
def test_another_kind_of_file_that_appears_during_the_work_is_refused_too(tmp_path: Path, kind: str) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"new")
        THINGS[kind](tmp_path / "out")

    with pytest.raises(OutputError, match=kind.strip(", ")):
        write_output("out", write)

    assert sorted(os.listdir()) == (["kept", "out"] if os.path.exists("kept") else ["out"])


@posix
def test_a_device_is_refused() -> None:
    with pytest.raises(OutputError, match=rf"found {os.devnull}, a device"):
        write_output(os.devnull, new)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@posix
@each("out", ["/dev/stdout", "/dev/stderr", "/dev/fd/1"])
def test_stdout_by_its_path_is_refused_with_the_way_to_it(out: str) -> None:
    if not os.path.lexists(out):
        pytest.skip(f"there is no {out}")
    with pytest.raises(OutputError, match="Results go to stdout without --out"):
        check_output(out)


@each("out", ["folder/", "out\0", "x" * 300, "file/out", "link/out"])
def test_a_name_that_no_file_can_have_is_refused_before_the_work(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises((OutputError, PathError)):
        check_output(out)


def test_an_error_is_one_of_ours_and_of_the_system() -> None:
    assert issubclass(OutputError, BottleneckError)
    assert issubclass(OutputError, OSError)


def test_folders_that_are_missing_are_made_when_it_is_written() -> None:
    check_output("a/b/out")
    assert os.listdir() == []
    write_output("a/b/out", new)
    assert Path("a/b/out").read_bytes() == b"new"


def test_a_folder_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to("elsewhere")
    write_output("folder/out", new)
    assert Path("elsewhere/out").read_bytes() == b"new"


@posix
@each("mode", [0o600, 0o640, 0o644, 0o666, 0o755, 0o400, 0o604])
def test_the_new_file_has_the_permissions_of_the_old_one_and_never_more(mode: int) -> None:
    def write(file: BinaryIO) -> None:
        (temporary,) = (name for name in os.listdir() if name != "out")
        seen.append(mode_of(temporary))
        new(file)

    seen: list[int] = []
    Path("out").write_bytes(b"old")
    os.chmod("out", mode | 0o200 * (os.geteuid() != 0))
    kept = mode_of("out")
    write_output("out", write)

    assert Path("out").read_bytes() == b"new"
    assert mode_of("out") == kept
    assert seen == [0o600]


@posix
@each("umask", [0o022, 0o077, 0o002])
def test_a_new_file_has_what_the_umask_says(umask: int) -> None:
    before = os.umask(umask)
    try:
        write_output("out", new)
    finally:
        os.umask(before)
    assert mode_of("out") == 0o666 & ~umask


@posix
def test_permissions_to_become_another_user_are_not_taken_over() -> None:
    Path("out").write_bytes(b"old")
    os.chmod("out", 0o6755)
    write_output("out", new)
    assert mode_of("out") == 0o755


@root
def test_owner_and_group_stay() -> None:
    Path("out").write_bytes(b"old")
    os.chown("out", 12345, 23456)
    os.chmod("out", 0o640)
    write_output("out", new)
    found = os.stat("out")
    assert (found.st_uid, found.st_gid, mode_of("out")) == (12345, 23456, 0o640)


@posix
@each("mode, left", [(0o660, 0o600), (0o664, 0o644), (0o670, 0o600), (0o775, 0o755)])
def test_a_group_that_cannot_be_kept_gets_what_everybody_has(
    monkeypatch: pytest.MonkeyPatch, mode: int, left: int
) -> None:
    def no_owner(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    Path("out").write_bytes(b"old")
    os.chmod("out", mode)
    stat_of = os.stat
    other = os.stat_result((*os.stat("out")[:5], os.stat("out").st_gid + 1, *os.stat("out")[6:]))

    def of_another_group(path: Path, **options: bool) -> os.stat_result:
        return other if path == Path("out") and options == {"follow_symlinks": False} else stat_of(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchown", no_owner)
        patch.setattr(os, "stat", of_another_group)
        write_output("out", new)
    assert mode_of("out") == left


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="extended attributes of Linux")
def test_extended_attributes_stay() -> None:
    Path("out").write_bytes(b"old")
    try:
        os.setxattr("out", "user.note", b"kept")
    except OSError:
        pytest.skip("the file system has none")
    write_output("out", new)
    assert os.getxattr("out", "user.note") == b"kept"


@pytest.mark.skipif(not hasattr(os, "link"), reason="no hard links")
def test_other_hard_links_keep_the_old_content() -> None:
    Path("out").write_bytes(b"old")
    os.link("out", "other")
    write_output("out", new)
    assert (Path("out").read_bytes(), Path("other").read_bytes()) == (b"new", b"old")


@each("name", ["list.csv", "./list.csv", "folder/../list.csv", "link.csv", "hard.csv"])
def test_an_output_that_is_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "list.csv").write_text("path\n")
    (tmp_path / "link.csv").symlink_to("list.csv")
    os.link("list.csv", "hard.csv")
    with pytest.raises(OutputError, match="expected an output file that is not an input"):
        check_output("list.csv", ["folder", "missing.csv", name])

    check_output("new.csv", ["folder", name])


@posix
@not_root
def test_a_protected_file_or_folder_is_refused_before_the_work(tmp_path: Path) -> None:
    Path("out").write_bytes(b"old")
    os.chmod("out", 0o444)
    with pytest.raises(OutputError, match="write-protected"):
        check_output("out")
    os.chmod(tmp_path, 0o555)
    try:
        with pytest.raises(OutputError, match="write-protected"):
            check_output("new/out")
    finally:
        os.chmod(tmp_path, 0o755)


@each("error", [KeyboardInterrupt(), OSError(errno.EIO, "broken"), ValueError(), SystemExit()])
@each("old", [True, False])
def test_an_error_leaves_the_old_file_and_nothing_else(error: BaseException, old: bool) -> None:
    def write(file: BinaryIO) -> None:
        file.write(b"half")
        file.flush()
        raise error

    if old:
        Path("out").write_bytes(b"old")
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_output("out", write)

    assert {name: Path(name).read_bytes() for name in os.listdir()} == ({"out": b"old"} if old else {})


@each("step", ["fsync", "replace", "fdopen"])
def test_a_failing_step_leaves_the_old_file_and_nothing_else(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    Path("out").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(KeyboardInterrupt):
            write_output("out", new)

    assert {name: Path(name).read_bytes() for name in os.listdir()} == {"out": b"old"}


@each(
    "number, advice",
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EFBIG, "Free some space"),
        (getattr(errno, "EDQUOT", errno.ENOSPC), "Free some space"),
        (errno.EROFS, "in which you can write"),
        (errno.EIO, "another folder"),
    ],
)
def test_the_error_says_what_happened_and_what_to_do(number: int, advice: str) -> None:
    def write(file: BinaryIO) -> None:
        raise OSError(number, os.strerror(number))

    Path("out").write_bytes(b"old")
    with pytest.raises(OutputError) as caught:
        write_output("out", write)

    assert str(caught.value).startswith(f"cannot write out: {os.strerror(number)}. The old file is unchanged. ")
    assert advice in str(caught.value)


LIMITED = """
import resource, sys
from bottleneck.errors import OutputError
from bottleneck.utils.output_file import in_utf8, write_output
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_output("out", in_utf8(lambda text: text.write("x" * int(sys.argv[1]))))
except OutputError as error:
    print(error)
"""


@each("size", [1001, 20_000, 1_000_000])
def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(size: int) -> None:
    pytest.importorskip("resource")
    Path("out").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(size)], capture_output=True, text=True)

    assert "The old file is unchanged" in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: Path(name).read_bytes() for name in os.listdir()} == {"out": b"old"}


STOPPED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have begun the tests with the signal ignored
from bottleneck.cli import stopping
from bottleneck.utils.output_file import write_output
stopping.listen(lambda: sys.exit(9))
def write(file):
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    while True:
        file.write(b"more")
try:
    write_output("out", write)
except KeyboardInterrupt:
    sys.exit(stopping.exit_code())
"""


@posix
@each("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_old_file_and_nothing_else(number: signal.Signals) -> None:
    Path("out").write_bytes(b"old")
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number

    assert {name: Path(name).read_bytes() for name in os.listdir()} == {"out": b"old"}


def test_a_reader_sees_the_old_file_or_the_new_one() -> None:
    contents = {b"a" * 5000, b"b" * 5000}
    Path("out").write_bytes(b"a" * 5000)
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not stop.is_set():
            seen.add(Path("out").read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        for content in sorted(contents):
            write_output("out", lambda file, content=content: file.write(content))  # type: ignore[misc]
    stop.set()
    reader.join()
    assert seen <= contents


def test_names_that_are_not_utf_8_are_written_unchanged() -> None:
    write_output("out", in_utf8(lambda text: text.write("caf\udce9\r\n")))
    assert Path("out").read_bytes() == b"caf\xe9\r\n"


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return a POSIX ACL as Linux keeps it: tag, permissions and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANYONE = 0xFFFFFFFF
FRIEND = acl((1, 6, ANYONE), (2, 6, 12345), (4, 0, ANYONE), (16, 6, ANYONE), (32, 0, ANYONE))  # whose mask is 6


def set_acl(path: str, name: str) -> None:
    if not hasattr(os, "setxattr"):
        pytest.skip("ACLs of Linux")
    try:
        os.setxattr(path, f"system.posix_acl_{name}", FRIEND)
    except OSError:
        pytest.skip("the file system has no ACLs")


def test_an_acl_stays() -> None:
    Path("out").write_bytes(b"old")
    set_acl("out", "access")
    write_output("out", new)
    assert os.getxattr("out", "system.posix_acl_access") == FRIEND
    assert mode_of("out") == 0o660


def test_where_an_acl_is_lost_the_group_gets_nothing_of_its_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    Path("out").write_bytes(b"old")
    set_acl("out", "access")
    with monkeypatch.context() as patch:
        patch.setattr(os, "setxattr", refuse)
        write_output("out", new)
    assert mode_of("out") == 0o600


def test_the_folders_default_acl_opens_no_private_file(tmp_path: Path) -> None:
    Path("out").write_bytes(b"old")
    os.chmod("out", 0o640)
    set_acl(".", "default")
    write_output("out", new)
    assert mode_of("out") == 0o640
    assert "system.posix_acl_access" not in os.listxattr("out")


def interrupted_at(line: int, work: Callable[[], None]) -> bool:
    """Run something, with an interrupt before the given line of output_file.py; return whether it came so far."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith("output_file.py"):
            return None
        seen += event == "line"
        if seen > line:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_line_leaves_the_old_file_or_the_new_one_and_nothing_else() -> None:
    line, found = 0, set()
    while True:
        Path("out").write_bytes(b"old")
        came = interrupted_at(line, lambda: write_output("out", lambda file: file.write(b"new")))
        assert os.listdir() == ["out"]
        found.add(Path("out").read_bytes())
        line += 1
        if not came:
            break
    assert found == {b"old", b"new"}
    assert line > 40

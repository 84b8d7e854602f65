"""A tree is worked on by descriptors: no link below its root is followed, not even one that comes meanwhile."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.utils.files import NotRegularError
from bottleneck.utils.folder import BY_DESCRIPTOR, Folder, LinkError, is_temporary
from bottleneck.utils.tree import Tree, memo
from tests.faults import file_sizes_limited
from tests.variants import each

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and FIFOs")


EACH_WAY = each("by_descriptor", [BY_DESCRIPTOR, False])  # as on a system that has no descriptors of folders, too


def a_tree(folder: Path, by_descriptor: bool) -> Tree:
    return Tree(folder / "root", by_descriptor)


def a_home(folder: Path) -> Path:
    """Make a folder outside of the tree, with a file."""
    (folder / "home").mkdir()
    (folder / "home" / "file").write_bytes(b"mine")
    return folder / "home"


CALLS: dict[str, Callable[[Tree, Path], object]] = {
    "at": lambda tree, path: tree.at(path.parent),
    "names": lambda tree, path: tree.names(path.parent),
    "folders": lambda tree, path: tree.folders(path.parent),
    "status": lambda tree, path: tree.status(path),
    "exists": lambda tree, path: tree.exists(path),
    "open": lambda tree, path: tree.open(path),
    "read": lambda tree, path: tree.read(path),
    "read_json": lambda tree, path: tree.read_json(path),
    "write": lambda tree, path: tree.write(path, b"new"),
    "write_changed": lambda tree, path: tree.write_changed(path, b"new"),
    "write_json": lambda tree, path: tree.write_json(path, {}),
    "rename": lambda tree, path: tree.rename(path, path.with_name("other")),
    "rename into": lambda tree, path: tree.rename(tree.root / "own", path, make=True),
    "unlink": lambda tree, path: tree.unlink(path),
    "make": lambda tree, path: tree.make(path),
    "sync": lambda tree, path: tree.sync(path.parent),
}


@EACH_WAY
@each("depth", [1, 2])
@each("call", CALLS)
def test_a_folder_that_is_a_link_is_refused_by_every_call(tmp_path, by_descriptor, call, depth):
    tree, home = a_tree(tmp_path, by_descriptor), a_home(tmp_path)
    tree.write(tree.root / "own", b"own")
    (home / "in").mkdir()
    (home / "in" / "file").write_bytes(b"mine")
    (tree.root / "link").symlink_to(home)
    path = tree.root / "link" / ("in/file" if depth == 2 else "file")
    with pytest.raises(LinkError, match=f"expected a folder at {tree.root / 'link'}, found a link.*Remove the link"):
        CALLS[call](tree, path)

    assert sorted(os.listdir(home)) == ["file", "in"]
    assert os.listdir(home / "in") == ["file"]
    assert (home / "file").read_bytes() == (home / "in" / "file").read_bytes() == b"mine"


@EACH_WAY
@each("target", ["file", "nowhere"])
@each("call", ["open", "read", "write", "write_changed", "write_json", "unlink"])
def test_a_file_that_is_a_link_is_refused(tmp_path, by_descriptor, call, target):
    tree, home = a_tree(tmp_path, by_descriptor), a_home(tmp_path)
    tree.make(tree.root)
    (tree.root / "link").symlink_to(home / target)
    with pytest.raises(NotRegularError, match=f"expected a regular file at {tree.root / 'link'}, found a link"):
        CALLS[call](tree, tree.root / "link")

    assert (tree.root / "link").is_symlink()
    assert os.listdir(home) == ["file"]
    assert (home / "file").read_bytes() == b"mine"


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except (OSError, AttributeError):
        pytest.skip("only root makes devices")


KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": getattr(os, "mkfifo", os.mkdir),
    "a folder": os.mkdir,
    "a device": make_device,
}


@EACH_WAY
@each("kind", KINDS)
@each("call", ["open", "read", "write", "unlink"])
def test_what_is_not_a_regular_file_is_neither_read_nor_replaced(tmp_path, by_descriptor, kind, call):
    tree = a_tree(tmp_path, by_descriptor)
    tree.make(tree.root)
    KINDS[kind](tree.root / "it")
    before = os.lstat(tree.root / "it").st_mode
    with pytest.raises(NotRegularError, match=f"found {kind}"):
        CALLS[call](tree, tree.root / "it")

    assert os.lstat(tree.root / "it").st_mode == before
    assert os.listdir(tree.root) == ["it"]


@EACH_WAY
def test_the_root_may_be_a_link(tmp_path, by_descriptor):
    home = a_home(tmp_path)
    (tmp_path / "named").symlink_to(home)
    tree = Tree(tmp_path / "named", by_descriptor)
    tree.write(tree.root / "a" / "b", b"new")

    assert (home / "a" / "b").read_bytes() == b"new"
    assert tree.names(tree.root) == ["a", "file"]


@EACH_WAY
def test_a_root_that_is_missing_is_made_where_something_is_written(tmp_path, by_descriptor):
    tree = a_tree(tmp_path, by_descriptor)
    assert tree.names(tree.root) == []
    assert not tree.exists(tree.root / "a")
    with pytest.raises(FileNotFoundError):
        tree.read(tree.root / "a")
    assert not tree.root.exists()
    tree.write(tree.root / "b" / "a", b"new")
    assert tree.read(tree.root / "b" / "a") == b"new"


@EACH_WAY
@each("path", ["/elsewhere/file", "../file", "a/../../file", "a/.."])
def test_a_path_that_is_not_below_the_root_is_refused(tmp_path, by_descriptor, path):
    tree = a_tree(tmp_path, by_descriptor)
    tree.make(tree.root / "a")
    for call in ("read", "write", "unlink", "make"):
        with pytest.raises(ValueError, match=r"expected a (path below|name in)"):
            CALLS[call](tree, tree.root / path)


@EACH_WAY
def test_folders_and_links_to_folders_are_distinguished(tmp_path, by_descriptor):
    tree, home = a_tree(tmp_path, by_descriptor), a_home(tmp_path)
    tree.write(tree.root / "own" / "file", b"")
    (tree.root / "link").symlink_to(home)
    (tree.root / "file").write_bytes(b"")
    (tree.root / "broken").symlink_to("nowhere")

    assert tree.folders(tree.root) == ["own"]
    assert tree.links(tree.root) == [tree.root / "link"]


@EACH_WAY
def test_an_error_has_the_full_path(tmp_path, by_descriptor):
    tree = a_tree(tmp_path, by_descriptor)
    tree.make(tree.root / "a")
    for call in ("read", "status"):
        with pytest.raises(FileNotFoundError) as caught:
            CALLS[call](tree, tree.root / "a" / "b")
        assert caught.value.filename == str(tree.root / "a" / "b")
    with pytest.raises(FileNotFoundError) as caught:
        tree.rename(tree.root / "a" / "b", tree.root / "c")
    assert str(tree.root / "a" / "b") in str(caught.value)


@EACH_WAY
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, by_descriptor):
    tree = a_tree(tmp_path, by_descriptor)
    tree.write(tree.root / "a", b"old")

    with file_sizes_limited(), pytest.raises(OSError, match="too large"):
        tree.write(tree.root / "a", b"x" * 2000)

    assert tree.read(tree.root / "a") == b"old"
    assert tree.names(tree.root) == ["a"]


@EACH_WAY
def test_what_is_up_to_date_is_not_touched(tmp_path, by_descriptor):
    tree = a_tree(tmp_path, by_descriptor)
    path = tree.root / "a.json"
    tree.write_json(path, {"a": 1})
    before = path.stat()
    tree.write_json(path, {"a": 1})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    tree.write_json(path, {"a": 2})
    assert tree.read_json(path) == {"a": 2}


@EACH_WAY
def test_nothing_stays_open(tmp_path, by_descriptor):
    tree, home = a_tree(tmp_path, by_descriptor), a_home(tmp_path)
    tree.write(tree.root / "a" / "b" / "c", b"x")
    (tree.root / "a" / "link").symlink_to(home)
    before = len(os.listdir("/dev/fd"))
    for path in (tree.root / "a" / "b" / "c", tree.root / "a" / "link" / "c", tree.root / "a" / "none" / "c"):
        for call in CALLS.values():
            try:
                found = call(tree, path)
            except (OSError, ValueError):
                continue
            if isinstance(found, Folder):
                found.close()
            elif isinstance(found, int) and not isinstance(found, bool):
                os.close(found)
    assert len(os.listdir("/dev/fd")) == before


@EACH_WAY
def test_a_ctrl_c_while_a_folder_is_closed_closes_nothing_twice(tmp_path, by_descriptor, monkeypatch):
    tree = a_tree(tmp_path, by_descriptor)
    if not by_descriptor:
        pytest.skip("nothing is open where the system has no descriptors of folders")
    tree.make(tree.root / "a" / "b")
    close, closed = os.close, []

    def interrupted(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        if len(closed) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tree.at(tree.root / "a" / "b")
    assert len(closed) == 1


@EACH_WAY
def test_a_folder_that_is_swapped_for_a_link_is_not_written_into(tmp_path, by_descriptor, monkeypatch):
    tree, home = a_tree(tmp_path, by_descriptor), a_home(tmp_path)
    if not by_descriptor:
        pytest.skip("there is a moment between look and use where the system has no descriptors of folders")
    tree.make(tree.root / "a")
    write = Folder.write

    def swapped(folder: Folder, name: str, data: bytes, *, durable: bool) -> None:
        (tree.root / "a").rename(tree.root / "away")
        (tree.root / "a").symlink_to(home)
        write(folder, name, data, durable=durable)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", swapped)
        tree.write(tree.root / "a" / "file", b"new")

    assert (home / "file").read_bytes() == b"mine"
    assert (tree.root / "away" / "file").read_bytes() == b"new"


def test_a_missing_memo_is_ignored_and_a_link_in_its_way_is_reported(recwarn):
    for error in (OSError, FileNotFoundError, NotRegularError, ValueError):
        with memo(ValueError):
            raise error("it")
    assert not recwarn
    with pytest.warns(match="found a link"), memo():
        raise LinkError("expected a folder, found a link")
    with pytest.raises(KeyError), memo(ValueError):
        raise KeyError


@each(
    "name, is_one",
    [
        (".tmp-1-0123abcd", True),
        (".tmp-4294967295-ffffffff", True),
        (".tmp-1-0123abc", False),
        (".tmp-1-0123abcde", False),
        (".tmp-1-0123ABCD", False),
        (".tmp-a-0123abcd", False),
        (".tmp--0123abcd", False),
        (".tmp-²-0123abcd", False),
        ("tmp-1-0123abcd", False),
        (".tmp-1-0123abcd.txt", False),
        ("1-0123abcd", False),
        (".tmp-", False),
    ],
)
def test_which_names_are_temporary(name, is_one):
    assert is_temporary(name) is is_one


def test_write_changed_does_not_touch_a_file_that_is_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "file"
    Tree(tmp_path).write_changed(path, b"same")
    before = path.stat()
    Tree(tmp_path).write_changed(path, b"same")
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    Tree(tmp_path).write_changed(path, b"other")
    assert path.read_bytes() == b"other"


def test_write_json_does_not_touch_a_file_that_is_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    Tree(tmp_path).write_json(path, {"a": [1, 2]})
    before = path.stat()
    Tree(tmp_path).write_json(path, {"a": [1, 2]})
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_write_json_replaces_another_value(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    Tree(tmp_path).write_json(path, {"a": 1})
    Tree(tmp_path).write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert path.read_bytes().endswith(b"}\n")


@each("name", ["café", "caf\udce9"])
def test_write_json_keeps_any_file_name(tmp_path: Path, name: str) -> None:
    Tree(tmp_path).write_json(tmp_path / "value.json", [name])
    assert json.loads((tmp_path / "value.json").read_bytes()) == [name]
    assert (tmp_path / "value.json").read_bytes().isascii()

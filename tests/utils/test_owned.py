"""Only files of ours are deleted: by a layout of names and the beginnings of contents."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.utils.folder import Folder
from bottleneck.utils.owned import Layout, any_content, beginning, delete, is_ours, json_with
from bottleneck.utils.tree import Tree
from tests.variants import each

LAYOUT: Layout = {
    "data": {r"\d+\.bin": beginning(b"OURS"), "inner": {r".*\.txt": any_content}},
    r"note\.json": json_with("version"),
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def left_in(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


OURS = {"data/1.bin": "OURS and more", "data/2.bin": "", "data/inner/a.txt": "", "note.json": '{"version": 1}'}


def test_what_is_ours_goes_with_its_folder_and_is_counted(tmp_path):
    root = write(tmp_path / "it", {**OURS, "data/.tmp-1-0123abcd": "half"})
    sizes = sum(path.lstat().st_size for path in [root, *root.rglob("*")])
    tree = Tree(tmp_path)

    assert delete(tree, root, LAYOUT, dry_run=True).bytes >= sizes
    assert root.exists()
    done = delete(tree, root, LAYOUT)
    assert (done.left, root.exists()) == ([], False)
    assert delete(tree, root, LAYOUT).bytes == 0  # nothing is there any more


@each(
    "name, text",
    [
        ("thesis", "x"),
        ("data/thesis", "x"),
        ("data/3.bin", "mine"),
        ("data/3.bin.txt", "OURS"),
        ("data/inner/a.md", ""),
        ("data/inner/deep/a.txt", ""),
        ("data/4.bin/thesis", "OURS"),
        ("note.json", '{"title": "thesis"}'),
        ("note.json", "[1]"),
        ("note.json", "{"),
        ("note.json", "[" * 100_000),
        ("data/.tmp-mine", ""),
        ("data/.tmp-1-0123abcd/thesis", ""),
    ],
)
def test_what_is_not_ours_stays_with_its_folders_and_is_named(tmp_path, name, text):
    root = write(tmp_path / "it", {**OURS, name: text})
    tree = Tree(tmp_path)
    with tree.at(tmp_path) as home:
        assert not is_ours(home, "it", LAYOUT)
    said = delete(tree, root, LAYOUT, dry_run=True)
    done = delete(tree, root, LAYOUT)

    assert left_in(root) == {name}
    assert (root / name).read_text() == text
    assert done == said
    assert any((root / name) == path or path in (root / name).parents for path in done.left)


@each("name", ["data/5.bin", "data", "note.json", "data/inner", "data/.tmp-1-0123abcd"])
def test_links_are_never_ours_and_never_followed(tmp_path, name):
    home = write(tmp_path / "home", OURS)
    root = write(tmp_path / "it", {"spare": ""} if name == "data" else {"data/1.bin": "OURS"})
    (root / name).symlink_to(home / name if (home / name).exists() else home / "data" / "1.bin")
    done = delete(Tree(tmp_path), root, LAYOUT)

    assert root / name in done.left
    assert left_in(home) == set(OURS)
    assert (root / name).is_symlink()


def test_a_folder_above_that_is_a_link_is_not_passed(tmp_path):
    home = write(tmp_path / "home", {f"it/{name}": text for name, text in OURS.items()})
    (tmp_path / "link").symlink_to(home)
    done = delete(Tree(tmp_path), tmp_path / "link" / "it", LAYOUT)

    assert done.left == [tmp_path / "link" / "it"]
    assert left_in(home / "it") == set(OURS)


def test_a_file_that_comes_while_its_folder_is_deleted_stays(tmp_path, wrap):
    root = write(tmp_path / "it", OURS)

    def late(rmdir: Callable[[Folder, str], None], folder: Folder, name: str) -> None:
        if name == "inner":
            (folder.path / name / "thesis").write_text("x")
        rmdir(folder, name)

    wrap(Folder, "rmdir", late)
    done = delete(Tree(tmp_path), root, LAYOUT)

    assert done.left == [root / "data" / "inner"]
    assert left_in(root) == {"data/inner/thesis"}


def test_what_is_first_in_a_layout_goes_first(tmp_path, wrap):
    root = write(tmp_path / "it", {"b": "", "a": "", "c": ""})
    gone: list[str] = []
    wrap(Folder, "unlink", lambda unlink, folder, name: (gone.append(name), unlink(folder, name)))
    delete(Tree(tmp_path), root, {"c": any_content, "a|b": any_content})

    assert gone == ["c", "a", "b"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
def test_a_fifo_is_not_ours_and_not_waited_for(tmp_path):
    root = tmp_path / "it"
    (root / "data").mkdir(parents=True)
    os.mkfifo(root / "data" / "1.bin"), os.mkfifo(root / "note.json")

    assert sorted(delete(Tree(tmp_path), root, LAYOUT).left) == [root / "data" / "1.bin", root / "note.json"]

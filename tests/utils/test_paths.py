import sys
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError, PathError
from bottleneck.utils.paths import expanded, moved, relative_to
from tests.variants import each


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@each("path", ["~/a/b", Path("~/a/b"), Path("~") / "a" / "b"])
def test_a_tilde_is_a_home(home: Path, path: str | Path) -> None:
    assert expanded(path) == home / "a" / "b"


def test_a_tilde_alone_is_a_home_even_where_a_folder_has_that_name(home: Path) -> None:
    Path("~").mkdir()
    assert expanded("~") == home
    assert expanded("~/x") == home / "x"
    assert expanded("./~/x") == Path("~/x")


@each("path", ["a~", "a/~/b", "./~x", "", "/~"])
def test_a_tilde_elsewhere_is_a_character(path: str) -> None:
    assert expanded(path) == Path(path)


def test_a_file_whose_name_begins_so_is_found() -> None:
    Path("~backup.jpg").write_bytes(b"")
    assert expanded("~backup.jpg") == Path("~backup.jpg")


def test_an_unknown_user_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(
        BottleneckError, match=r"~no-such-user/x: user no-such-user has no home folder.* write \./~no-such-user/x"
    ):
        expanded("~no-such-user/x")


@each("path", ["a\0b", "~\0", "~/\0", "\0", "x" * 5000, "~/" + "x" * 300, "a/" + "é" * 200 + "/b"])
def test_what_no_file_can_be_called_is_an_error_of_ours(home: Path, path: str) -> None:
    with pytest.raises(PathError, match="expected a path, found"):
        expanded(path)


@pytest.mark.skipif(sys.platform == "win32", reason="its names are UTF-16")
def test_characters_that_no_name_has_are_an_error_and_bytes_that_are_not_utf_8_are_not(home: Path) -> None:
    with pytest.raises(PathError, match=r"characters in .* that file names cannot contain"):
        expanded("\ud800x")
    assert expanded("x\udcff") == Path("x\udcff")


def test_a_path_may_be_long() -> None:
    path = Path(*["x" * 50] * 12)
    assert expanded(str(path)) == path
    assert expanded("x" * 255) == Path("x" * 255)


def test_what_was_moved_together_with_a_folder_is_found_from_there(tmp_path: Path) -> None:
    (tmp_path / "before/photos").mkdir(parents=True)
    recorded, place = str(tmp_path / "before/photos"), relative_to(tmp_path / "before/photos", tmp_path / "before/run")
    assert place == "../photos"
    (tmp_path / "before").rename(tmp_path / "after")
    assert moved(recorded, place, tmp_path / "after/run") == tmp_path / "after/photos"


def test_where_both_are_there_the_one_that_moved_with_the_folder_is_meant(tmp_path: Path) -> None:
    for name in ("original", "copy"):
        (tmp_path / name / "photos").mkdir(parents=True)
    assert moved(str(tmp_path / "original/photos"), "../photos", tmp_path / "copy/run") == tmp_path / "copy/photos"


@each("place", [None, 3, "../elsewhere"])
def test_without_a_place_it_is_where_it_was_or_in_other_folders_or_nowhere(tmp_path: Path, place: object) -> None:
    recorded, folder, other = tmp_path / "photos", tmp_path / "run", tmp_path / "other"
    assert moved(str(recorded), place, folder, [other]) == recorded
    (other / "photos").mkdir(parents=True)
    assert moved(str(recorded), place, folder, [other]) == other / "photos"
    recorded.mkdir()
    assert moved(str(recorded), place, folder, [other]) == recorded

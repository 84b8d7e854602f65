from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError
from bottleneck.utils.paths import expanded


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", ["~/a/b", Path("~/a/b"), Path("~") / "a" / "b"])
def test_a_tilde_is_a_home(home: Path, path: str | Path) -> None:
    assert expanded(path) == home / "a" / "b"


def test_a_tilde_alone_is_a_home_even_where_a_folder_has_that_name(home: Path) -> None:
    Path("~").mkdir()
    assert expanded("~") == home
    assert expanded("~/x") == home / "x"
    assert expanded("./~/x") == Path("~/x")


@pytest.mark.parametrize("path", ["a~", "a/~/b", "./~x", "", "/~"])
def test_a_tilde_elsewhere_is_a_character(path: str) -> None:
    assert expanded(path) == Path(path)


def test_a_file_whose_name_begins_so_is_found() -> None:
    Path("~backup.jpg").write_bytes(b"")
    assert expanded("~backup.jpg") == Path("~backup.jpg")


def test_an_unknown_user_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(BottleneckError, match=r"~no-such-user/x: there is no home .* is \./~no-such-user/x"):
        expanded("~no-such-user/x")

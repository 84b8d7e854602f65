import os
from pathlib import Path

import pytest

from bottleneck.errors import BottleneckError, RunError
from bottleneck.utils.names import is_path, run_folder, written
from tests.variants import each


def run(*parts: str, mark: str = "card.json") -> Path:
    folder = Path(*parts)
    folder.mkdir(parents=True)
    (folder / mark).write_text("{}")
    return folder


@each("text", ["./DEFAULT", "runs/x", "/x", "~/w", "~nobody/x", "~x", ".", "..", "../x", "x/"])
def test_a_path_has_a_separator(text: str) -> None:
    assert is_path(text)


@each("text", ["DEFAULT", "none", "w.pth", "run:x", "20260101-101010-photos", "...", ".x", "a~b", ""])
def test_a_word_has_none(text: str) -> None:
    assert not is_path(text)


@each("path", ["none", "x.pth", "runs/x", "~", ".", "/x"])
def test_a_path_object_is_a_path_however_short(path: str) -> None:
    assert is_path(written(Path(path)))
    assert Path(written(Path(path))) == Path(path)


@each("mark", ["card.json", "finetune.json"])
@each("name", ["x", "run:x"])
def test_a_name_is_a_run_in_its_folder(name: str, mark: str) -> None:
    found = run("runs", "x", mark=mark)
    Path("x").mkdir()  # no run
    assert run_folder("runs", name) == found


def test_a_folder_of_that_name_elsewhere_is_named_in_the_error() -> None:
    run("x")
    with pytest.raises(RunError, match=r"found none: write \./x".replace("/", "[/\\\\]")):
        run_folder("runs", "x")
    assert run_folder("runs", "./x") == Path("x")
    assert run_folder("runs", Path("x")) == Path("x")


def test_two_runs_of_a_name_are_an_error_that_shows_both_ways_of_writing() -> None:
    run("x")
    there = run("runs", "x")
    with pytest.raises(RunError, match=r"write run:x for .* or \./x".replace("/", "[/\\\\]")):
        run_folder("runs", "x")
    assert run_folder("runs", "run:x") == there
    assert run_folder("runs", "./x") == Path("x")


def test_the_current_folder_may_be_the_folder_of_runs() -> None:
    run("x")
    assert run_folder(".", "x") == run_folder(os.getcwd(), "x").relative_to(os.getcwd()) == Path("x")


@each("name", ["run:", "run:../x", "run:a/b", "run:.", "run:~x", "run:/x"])
def test_run_and_a_path_do_not_go_together(name: str) -> None:
    run("x")
    with pytest.raises(RunError, match="write a path without run:"):
        run_folder("runs", name)


@each("name", ["a\0b", "run:a\0b", "./a\0", "x" * 5000, "~nobody-at-all/x", b"x", 3])
def test_what_nothing_can_be_called_is_an_error_of_ours(name: object) -> None:
    with pytest.raises(BottleneckError):
        run_folder("runs", name)  # type: ignore[arg-type]

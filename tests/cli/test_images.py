"""How commands take IMAGES, and what they say of them, with a network that sees nothing."""

import re
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from bottleneck.cli.common import printed_errors
from bottleneck.cli.main import cli
from bottleneck.errors import BottleneckWarning
from tests import tiny
from tests.conftest import photo, write


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.use(monkeypatch)


def run(*words: object, code: int = 0) -> str:
    """Run a command; return all that it prints, in lines as long as they are."""
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == code, found.output
    return found.output


@pytest.fixture
def table() -> Path:
    rows = ["image,species,is_valid,patient"]
    for number in range(40):
        write(Path(f"photos/{number}.jpg"), photo(number))
        rows.append(f"photos/{number}.jpg,{'dog' if number % 3 else 'cat'},{number % 4 == 0},p{number}")
    return write(Path("list.csv"), "\n".join(rows).encode())


NAMED = ("--path-column", "image", "--label-column", "species", "--split-column", "is_valid")


def test_columns_are_named_and_remembered(table: Path) -> None:
    assert "--path-column image --label-column species" in run("extract", table, code=1)
    said = run("extract", table, *NAMED)
    assert "columns: path from image, label from species, split from is_valid" in said
    assert "column not used: patient (a group? --group-column patient)" in said
    assert "2 classes: cat 14, dog 26; splits (given): train 30, val 10" in said
    said = run("fit")
    assert "columns: path from image, label from species, split from is_valid" in said
    assert "10 held-out images (val), " in said
    said = run("fit", *NAMED, "--group-column", "patient", "--head", "centroid")
    assert "group from patient" in said
    assert "column not used" not in said
    assert "40 images" in run("extract", table)
    run("compare", table, "--heads", "ridge")


def test_an_unknown_column_is_an_error_that_lists_those_there_are(table: Path) -> None:
    said = run("extract", table, "--split-column", "fold", code=1)
    assert "list.csv: expected a column 'fold' for --split-column, found image, species, is_valid, patient" in said


def test_a_broken_table_is_one_message(table: Path) -> None:
    table.write_text('path,label\na.jpg,cat\n"b.jpg,dog\n')
    said = run("extract", table, code=1)
    assert said.startswith("error: list.csv, line 3: expected quotation marks in pairs")
    assert len(said.splitlines()) == 1


def test_a_home_folder_that_the_shell_did_not_expand_is_expanded(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    places = ("--cache=~/kept", "--runs=~/models")
    run("extract", table, *NAMED, *places)
    run("fit", *places)
    run("predict", "photos", "--out=~/found.csv", *places)
    run("cache", "export", "--out=~/features.npz", *places)
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"kept", "models", "found.csv", "features.npz"}
    assert not Path("~").exists()


def test_the_home_folder_of_an_unknown_user_is_a_usage_error(table: Path) -> None:
    assert "user no-such-user has no home folder" in run("extract", table, "--cache=~no-such-user/x", code=2)


def test_a_warning_is_printed_once_in_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with printed_errors(debug=False, as_json=False):
            for text in ("one", "two", "one", "one"):
                warnings.warn(text, BottleneckWarning, stacklevel=1)
        assert capsys.readouterr().err.split() == ["warning:", "one", "warning:", "two"]


def test_advice_fits_a_part_of_one_class() -> None:
    for name, count in (("train/common", 12), ("train/rare", 3), ("test/common", 24)):
        for number in range(count):
            write(Path("photos", name, f"{number}.jpg"), photo(1000 * len(name) + number + 500 * ("rare" in name)))
    Path("photos/test/rare").mkdir()
    run("extract", "photos")
    said = run("fit", "photos", "--class-weight", "balanced")
    assert (
        "the test images are all of common: held-out scores do not show how well classes are separated; "
        "give test images of more classes" in said
    )
    assert "no test image of" not in said
    assert "it says" not in said


def test_what_is_done_already_is_not_advised() -> None:
    rows = ["path,label,split"]
    for number in range(30):  # images that look the same, of which more are held out
        write(Path(f"photos/{number}.png"), photo(1, kind="PNG") + bytes([number]))
        label, split = ("dog" if number % 3 else "cat"), ("train" if number < 12 else "test")
        rows.append(f"photos/{number}.png,{label},{split}")
    write(Path("list.csv"), "\n".join(rows).encode())
    run("extract", "list.csv")
    said, balanced = (run("fit", "--head", "ridge", *weights) for weights in ((), ("--class-weight", "balanced")))
    assert "every held-out image is predicted as dog: --class-weight balanced, or more images of" in said
    assert re.search("every held-out image is predicted as (cat|dog): more images of", balanced)

"""Lists, DataFrames and tables whose columns have other names, from `extract` to `fit` and `compare`."""

from pathlib import Path

import numpy as np
import pytest

from bottleneck.cache.scans import columns_of, load_scan
from bottleneck.comparison.compare import compare
from bottleneck.errors import BottleneckWarning, CacheError, ImagesError
from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.images.columns import Columns
from bottleneck.images.splits import Shares
from bottleneck.prediction.predict import predict
from tests import tiny
from tests.conftest import photo, write
from tests.images.test_listing import Frame


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.use(monkeypatch)


@pytest.fixture
def files() -> list[str]:
    return [str(write(Path(f"photos/{number}.jpg"), photo(number))) for number in range(40)]


LABELS = ["dog" if number % 3 else "cat" for number in range(40)]
VALID = ["True" if number % 4 == 0 else "False" for number in range(40)]


@pytest.fixture
def table(files: list[str]) -> Path:
    rows = zip(files, LABELS, VALID, strict=True)
    return write(Path("list.csv"), "\n".join(["file,kind,is_valid", *map(",".join, rows)]).encode())


NAMED = {"path_column": "file", "label_column": "kind", "split_column": "is_valid"}


def test_a_list_is_extracted_in_its_order_and_can_be_fitted(files: list[str]) -> None:
    done = extract(paths=np.array(files[::-1]), labels=np.array(LABELS[::-1]), splits=np.array(["train", "test"] * 20))
    assert done.dataset.paths == tuple(files[::-1])
    assert done.computed == 40
    run = fit(done.usable)
    assert (run.card["n_train"], run.card["n_heldout"]) == (20, 20)
    assert run.card["dataset"]["labels"] == {"cat": 14, "dog": 26}


def test_what_follows_without_images_takes_the_list_and_nothing_else(files: list[str]) -> None:
    extract(paths=files[:20], labels=["x", "y"] * 10)
    extract(paths=files[5:], labels=LABELS[5:], splits=["train"] * 25 + ["test"] * 10)
    run = fit()
    assert run.card["dataset"]["labels"] == {"cat": LABELS[5:].count("cat"), "dog": LABELS[5:].count("dog")}
    assert run.card["n_heldout"] == 10
    assert extract().reused == 35


def test_after_lists_that_do_not_fit_nothing_before_is_taken(files: list[str]) -> None:
    extract(paths=files, labels=LABELS)
    with pytest.raises(ImagesError):
        extract(paths=files, labels=LABELS[1:])
    with pytest.raises(CacheError, match="expected IMAGES"):
        fit()


def test_lists_that_are_not_remembered_leave_no_table(files: list[str]) -> None:
    extract(paths=files, labels=LABELS, remember=False)
    assert not list(Path("cache").glob("datasets/*"))


def test_a_row_whose_image_cannot_be_used_is_a_failure(files: list[str]) -> None:
    done = extract(paths=[*files, "gone.jpg"], labels=[*LABELS, "dog"])
    assert [failure.path for failure in done.failures] == ["gone.jpg"]
    assert done.usable.labels == tuple(LABELS)
    assert fit(split="50/0/50").card["dataset"]["used"] == 40


@pytest.mark.parametrize("as_paths", [False, True])
def test_a_data_frame_is_extracted(files: list[str], as_paths: bool) -> None:
    frame = Frame(file=files, kind=LABELS, is_valid=[word == "True" for word in VALID])
    done = extract(**{"paths" if as_paths else "images": frame}, **NAMED)
    assert done.dataset.splits.count("val") == 10
    assert fit(done.usable).card["n_heldout"] == 10


def test_columns_that_were_named_are_remembered(table: Path) -> None:
    done = extract(table, **NAMED)
    assert done.dataset.splits.count("val") == 10
    assert load_scan(Path("cache"), table, Shares()).columns == Columns("file", "kind", "is_valid")
    for run in (fit(), fit(table)):
        assert (run.card["n_train"], run.card["n_heldout"], run.card["heldout"]) == (30, 10, "val")
    assert extract(table).reused == 40
    assert extract().dataset.columns == done.dataset.columns
    assert compare(table, heads=["ridge"]).n_heldout == 10
    assert len(predict(table, run=run, top=1)) == 40


def test_columns_can_be_named_again(table: Path) -> None:
    extract(table, **NAMED)
    run = fit(table, path_column="file", label_column="is_valid", split="50/0/50")
    assert run.card["classes"] == ["False", "True"]
    with pytest.warns(BottleneckWarning, match="column not used: is_valid"):
        assert extract(table, path_column="file", label_column="kind").dataset.given_splits == (None,) * 40
    assert columns_of(Path("cache"), table) == Columns("file", "kind")


@pytest.mark.parametrize("work", [extract, fit])
def test_columns_of_a_folder_are_an_error(files: list[str], work: object) -> None:
    with pytest.raises(ImagesError, match=r"expected a table with --split-column fold, such as images\.csv; photos is"):
        work("photos", split_column="fold")  # type: ignore[operator]


def test_all_images_under_two_labels_are_in_a_table(files: list[str]) -> None:
    torn = [write(Path(f"torn/{number}.jpg"), photo(number)) for number in range(30)]
    labels = [*LABELS, *("dog" if label == "cat" else "cat" for label in LABELS[:30])]
    message = r"^30 images with two labels each, .* and 28 more\. Full list: "
    with pytest.warns(BottleneckWarning, match=message) as caught:
        done = extract(paths=[*files, *torn], labels=labels)
    assert len(caught) == 1
    listed = Path(str(caught[0].message).rpartition("Full list: ")[2])
    assert listed.read_text().count("\n") == 61
    assert '"torn/0.jpg","dog"' in listed.read_text()
    extract(paths=files, labels=LABELS)
    assert listed.exists()
    assert done.failures_table is None


def test_homes_are_expanded_wherever_a_path_is_given(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    rows = [f"~/{name},{label}" for name, label in zip(files, LABELS, strict=True)]
    write(tmp_path / "home" / "list.csv", "\n".join(["path,label", *rows]).encode())
    Path("photos").rename(tmp_path / "home" / "photos")
    places = {"cache": "~/kept", "runs": "~/models"}
    assert extract("~/list.csv", **places).computed == 40
    run = fit("~/list.csv", split="50/0/50", **places)
    assert run.path.parent == tmp_path / "home" / "models"
    assert len(predict("~/photos", run=f"~/models/{run.name}", **places)) == 40
    assert compare("~/list.csv", heads=["ridge"], split="50/0/50", **places).n_train == run.card["n_train"]
    assert not Path("~").exists()

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BottleneckWarning, ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.listing import Listing, listed
from bottleneck.images.scan import scan
from bottleneck.images.table import find_listed, read_table
from tests.conftest import photo, write
from tests.variants import each

PATHS = ["b.jpg", "a.jpg", "sub/c.jpg", "b.jpg"]
LABELS = ["dog", "cat", "cat", "dog"]


class Series:
    """Values behind an index, as pandas has them: ``series[0]`` need not be the first."""

    def __init__(self, values: Iterable[Any]) -> None:
        self._values = list(values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: object) -> object:
        raise KeyError(key)


class Frame:
    """Named columns, as a DataFrame of pandas or polars has them."""

    def __init__(self, **columns: Iterable[Any]) -> None:
        self._columns = {name: Series(values) for name, values in columns.items()}

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Series:
        return self._columns[name]


class Missing:
    """Like pandas' NA: equal to nothing, and neither true nor false."""

    def __eq__(self, other: object) -> Any:
        return self

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


NAN, NA = float("nan"), Missing()


def listing(paths: Any = None, labels: Any = True, **more: Any) -> Listing:
    options = {"images": None, "splits": None, "groups": None, "columns": Columns(), "cache": "cache", **more}
    found = listed(options.pop("images"), paths=paths, labels=labels, **options)
    assert found is not None
    return found


@pytest.fixture
def files() -> None:
    write_files()


def write_files() -> None:
    for seed, path in enumerate(sorted(set(PATHS))):
        write(Path(path), photo(seed))


def objects(values: list[str]) -> Any:
    return np.array(values, object)


@each("kind", [list, tuple, np.array, objects, Series, iter])
def test_every_kind_of_list_is_taken_in_its_order(kind: Callable[[list[str]], Any]) -> None:
    write_files()
    dataset = scan(paths=kind(PATHS), labels=kind(LABELS))
    assert dataset.paths == tuple(PATHS)
    assert dataset.labels == tuple(LABELS)
    assert (dataset.digests[0] == dataset.digests[3]).all()


def test_paths_may_be_of_any_kind_and_stand_for_images(files: None) -> None:
    assert scan(paths=[Path("b.jpg"), b"a.jpg", np.str_("sub/c.jpg")]).paths == ("b.jpg", "a.jpg", "sub/c.jpg")

    assert scan(PATHS).paths == tuple(PATHS)
    assert scan(PATHS).labels == (None,) * 4

    with pytest.warns(BottleneckWarning, match="the table: column not used: patient "):
        dataset = scan(Frame(path=PATHS, label=LABELS, patient=[1, 2, 3, 4]))
    assert dataset.labels == tuple(LABELS)


def test_labels_splits_and_groups_are_taken_as_text() -> None:
    found = listing(PATHS, LABELS, splits=["train", "Valid", None, NAN], groups=[1, np.int64(2), None, NA])
    assert found.splits == ("train", "val", None, None)
    assert found.groups == ("1", "2", None, None)

    for labels, expected in [
        ([0, 1, 1, 0], ("0", "1", "1", "0")),
        (np.array([0, 1, 1, 0], np.int8), ("0", "1", "1", "0")),
        (np.array([True, False, False, True]), ("True", "False", "False", "True")),
        (np.array([b"x", b"y", b"y", b"x"]), ("x", "y", "y", "x")),
        ([" x ", "y", "y", "x"], ("x", "y", "y", "x")),
    ]:
        assert listing(PATHS, labels).labels == expected


def test_a_table_is_taken_with_its_own_columns_or_those_that_are_named() -> None:
    found = listing(images=Frame(label=LABELS, path=PATHS, group=[None, "g", NAN, 5]))
    assert found.paths == tuple(PATHS)
    assert found.labels == tuple(LABELS)
    assert found.groups == (None, "g", None, "5")

    for given in ["images", "paths"]:
        frame = Frame(file=PATHS, species=LABELS, is_valid=np.array([True, False, True, False]))
        found = listing(**{given: frame}, columns=Columns("file", "species", "is_valid"))
        assert found.labels == tuple(LABELS)
        assert found.splits == ("val", "train", "val", "train")

    assert listing(images=Frame(path=PATHS, label=[None] * 4), labels=False).labels == (None,) * 4


@each(
    "options, said",
    [
        ({"paths": PATHS, "labels": LABELS[:3]}, "as many labels as paths, 4; found 3"),
        ({"paths": PATHS, "labels": LABELS, "splits": ["train"] * 5}, "as many splits as paths, 4; found 5"),
        ({"paths": PATHS, "labels": ["cat", None, "a", "b"]}, r"labels, row 1 .*expected a label, found None"),
        ({"paths": PATHS, "labels": ["cat", "a", NAN, "b"]}, r"labels, row 2 .*expected a label, found nan"),
        ({"paths": PATHS, "labels": ["cat", "a", NA, "b"]}, r"labels, row 2 .*expected a label"),
        ({"paths": PATHS, "labels": ["cat", "a", "b", " "]}, r"labels, row 3 .*expected a label"),
        ({"paths": PATHS, "labels": [["cat"], "a", "b", "c"]}, r"labels, row 0 .*expected a label, found \['cat'\]"),
        ({"paths": PATHS, "labels": ["two\nlines", "a", "b", "c"]}, "on one line"),
        ({"paths": PATHS, "labels": "cats"}, "expected labels as a list, an array or a Series, got str"),
        ({"paths": [*PATHS[:3], NAN], "labels": LABELS}, r"paths, row 3 .*expected a path, found nan"),
        ({"paths": [*PATHS[:3], ""], "labels": LABELS}, r"paths, row 3 .*expected a path"),
        ({"paths": [*PATHS[:3], 7], "labels": LABELS}, r"paths, row 3 .*expected a path, found 7"),
        ({"paths": "a.jpg"}, "expected paths as a list, .* got str"),
        ({"paths": {"a.jpg": "cat"}}, "got dict"),
        ({"paths": []}, "expected paths of images, got none"),
        ({"paths": PATHS, "splits": ["train", "dev", None, None]}, r"splits, row 1 .*found 'dev'"),
        ({"paths": PATHS, "splits": [True] * 4}, r"splits, row 0 .*found True"),
        ({"paths": PATHS, "images": "photos"}, "expected images or paths, got both"),
        ({"images": "photos", "labels": LABELS}, r"expected paths= together with labels="),
        ({"groups": LABELS}, r"expected paths= together with labels="),
        ({"images": Frame(path=PATHS), "labels": LABELS}, "label_column="),
        ({"images": Frame(path=PATHS, label=["a", "b", NAN, "c"])}, "column label, row 2"),
        ({"images": Frame(file=PATHS, label=LABELS)}, "expected the columns path,label"),
        (
            {"images": Frame(path=PATHS, label=LABELS, fold=[1] * 4), "columns": Columns(split="fold")},
            "column fold, row 0",
        ),
        ({"paths": PATHS, "columns": Columns(label="x")}, "expected a table with --label-column x, got a list"),
    ],
)
def test_lists_that_do_not_belong_together_are_an_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ImagesError, match=said):
        listing(**options)


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert listing(["~/a.jpg", "./b.jpg"]).paths == (str(tmp_path / "a.jpg"), "./b.jpg")


def test_nothing_is_listed_where_images_are_on_the_disk() -> None:
    for images in ("photos", Path("photos"), None):
        assert listed(images, paths=None, labels=True, splits=None, groups=None, columns=Columns(), cache=None) is None

    names = {listing(PATHS, LABELS).source, listing(PATHS).source, listing(PATHS[::-1], LABELS[::-1]).source}
    assert len(names) == 3
    assert listing(iter(PATHS), np.array(LABELS)).source in names
    assert {name.parent for name in names} == {Path("cache/datasets")}


@each("linked", [False, True])
def test_its_table_says_the_same(tmp_path: Path, linked: bool) -> None:
    write_files()
    write(Path(' odd,"name".jpg'), photo(7))
    home = tmp_path / "deep" / "est" / "kept"
    home.mkdir(parents=True)
    (tmp_path / "cache").symlink_to(home) if linked else (tmp_path / "cache").mkdir()
    labels = ["dog", 'c,"at', 'c,"at', "dog"]
    found = listing([*PATHS[:3], ' odd,"name".jpg'], labels, groups=["g", None, None, "h"])
    (tmp_path / found.source).parent.mkdir()
    write(tmp_path / found.source, found.table())
    again = find_listed(tmp_path / found.source, labelled=True)
    paths = [os.path.relpath(os.path.realpath(path), os.path.realpath(tmp_path)) for path in again.paths]
    rows = zip(paths, again.labels, again.splits, again.groups, strict=True)
    expected = zip(found.paths, found.labels, found.splits, found.groups, strict=True)
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert all(os.path.exists(path) for path in again.paths)
    assert linked or not any(".." in path for path in again.paths)


def test_pandas(files: None) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {"path": PATHS, "label": pandas.Categorical(LABELS), "split": ["train", None, "val", "test"]}
    )
    frame.index = [7, 7, 1, 0]
    dataset = scan(frame)
    assert (dataset.paths, dataset.labels) == (tuple(PATHS), tuple(LABELS))
    assert dataset.given_splits == ("train", None, "val", "test")
    assert scan(paths=frame["path"], labels=frame["label"]).labels == tuple(LABELS)
    with pytest.raises(ImagesError, match="row 2"):
        scan(paths=frame["path"], labels=pandas.Series(["a", "b", pandas.NA, "c"]))


@each("label", ["=1+1", "'tis", "@x"])
def test_a_table_of_listed_images_has_no_formula_and_gives_the_names_back(tmp_path: Path, label: str) -> None:
    listing = Listing(("a.jpg", "b.jpg"), (label, "plain"), (None, None), (None, None), tmp_path / "list.csv")
    listing.source.write_bytes(listing.table())

    assert f'"\'{label}"'.encode() in listing.table()
    assert {row.label for row in read_table(listing.source, labelled=True).rows} == {label, "plain"}


def test_a_table_of_usual_names_has_the_usual_columns() -> None:
    assert Listing(("a.jpg",), ("cat",), (None,), (None,)).table().startswith(b'"path","label"\n')


@pytest.mark.skipif(os.name == "nt", reason="its names are UTF-16")
def test_a_path_that_no_file_can_have_is_refused_with_its_row() -> None:
    with pytest.raises(ImagesError, match=r"paths, row 1 \(from 0\): expected a path, found characters"):
        listed(
            None, paths=["a.jpg", "\ud800.jpg"], labels=True, splits=None, groups=None, columns=Columns(), cache=None
        )
    assert listed(
        None, paths=["x\udcff.jpg"], labels=True, splits=None, groups=None, columns=Columns(), cache=None
    ).paths == ("x\udcff.jpg",)

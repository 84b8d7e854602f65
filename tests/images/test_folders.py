import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bottleneck.errors import ImagesError
from bottleneck.images.folders import IMAGE_SUFFIXES, Found, find_labelled, find_unlabelled
from bottleneck.images.splits import SPLIT_FOLDERS
from tests.variants import each

Make = Callable[..., Path]
Rows = dict[str, tuple[str | None, str | None]]


def labelled(root: Path, exclude: tuple[Path, ...] = ()) -> tuple[Rows, Found]:
    """Return {relative path: (label, split)} and what was found."""
    found = find_labelled(root, exclude)
    names = [str(Path(path).relative_to(root)) for path in found.paths]
    assert len(set(names)) == len(names)
    return dict(zip(names, zip(found.labels, found.splits, strict=True), strict=True)), found


def labels(root: Path) -> dict[str, str | None]:
    return {name: label for name, (label, _) in labelled(root)[0].items()}


def unlabelled(root: Path, exclude: tuple[Path, ...] = ()) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in find_unlabelled(root, exclude).paths]


# Classes, splits, and what is passed over

CAFE = os.fsdecode(b"caf\xe9")
ONE_EACH: dict[str, int | bytes] = {"cat/1.jpg": 1, "dog/2.jpg": 2}
TRAINED: dict[str, int | bytes] = {"train/cat/1.jpg": 1, "train/dog/2.jpg": 2}
SPLIT = {"train/cat/1.jpg": ("cat", "train"), "train/dog/2.jpg": ("dog", "train")}
LOOSE = "outside any class folder"


@each(
    "files, expected, ignored",
    [
        (
            {"cat/1.jpg": 1, "cat/2.jpg": 2, "dog/3.jpg": 3},
            {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/3.jpg": "dog"},
            {},
        ),
        # A file belongs to the folder of the first level
        (
            {"cat/1.jpg": 1, "cat/dog/2.jpg": 2, "cat/a/b/c/3.jpg": 3, "dog/2024/4.jpg": 4},
            {"cat/1.jpg": "cat", "cat/dog/2.jpg": "cat", "cat/a/b/c/3.jpg": "cat", "dog/2024/4.jpg": "dog"},
            {},
        ),
        ({"odd.jpg/1.jpg": 1, "dog/2.jpg": 2}, {"odd.jpg/1.jpg": "odd.jpg", "dog/2.jpg": "dog"}, {}),
        ({f"{CAFE}/{CAFE}.jpg": 1, "b/2.jpg": 2}, {f"{CAFE}/{CAFE}.jpg": CAFE, "b/2.jpg": "b"}, {}),
        # Without folders there are no labels
        ({"1.jpg": 1, "2.png": 2, "note.txt": b"x"}, {"1.jpg": None, "2.png": None}, {".txt": 1}),
        ({"a.jpg": 4, ".thumbs/3.jpg": 3}, {"a.jpg": None}, {"hidden": 1}),
        # Splits
        (
            {**TRAINED, "val/cat/3.jpg": 3, "test/dog/deep/4.jpg": 4},
            {**SPLIT, "val/cat/3.jpg": ("cat", "val"), "test/dog/deep/4.jpg": ("dog", "test")},
            {},
        ),
        (
            {**TRAINED, "test/cat/3.jpg": 3, "docs/read.md": b"x"},
            {**SPLIT, "test/cat/3.jpg": ("cat", "test")},
            {".md": 1},
        ),
        (
            {**TRAINED, "val/cat/3.jpg": 3, "test/4.jpg": 4, "test/5.jpg": 5},
            {**SPLIT, "val/cat/3.jpg": ("cat", "val")},
            {LOOSE: 2},
        ),
        (
            {**TRAINED, "test/3.jpg": 3, "test/4.jpg": 4},
            {"train/cat/1.jpg": "cat", "train/dog/2.jpg": "dog"},
            {LOOSE: 2},
        ),
        # Classes that have the names of splits
        ({"train/1.jpg": 1, "car/2.jpg": 2}, {"train/1.jpg": "train", "car/2.jpg": "car"}, {}),
        (
            {"train/steam/1.jpg": 1, "car/2.jpg": 2, "bus/red/3.jpg": 3},
            {"train/steam/1.jpg": "train", "car/2.jpg": "car", "bus/red/3.jpg": "bus"},
            {},
        ),
        ({"train/1.jpg": 1, "test/2.jpg": 2}, {"train/1.jpg": "train", "test/2.jpg": "test"}, {}),
        # Loose files, hidden ones and those of other types
        (
            {**ONE_EACH, "3.jpg": 3, "4.png": 4, "read.md": b"x", ".x": b""},
            {"cat/1.jpg": "cat", "dog/2.jpg": "dog"},
            {LOOSE: 2, ".md": 1, "hidden": 1},
        ),
        (
            {"train/cat/1.jpg": 1, "train/2.jpg": 2, "val/dog/3.jpg": 3, "val/4.jpg": 4, "5.jpg": 5},
            {"train/cat/1.jpg": ("cat", "train"), "val/dog/3.jpg": ("dog", "val")},
            {LOOSE: 3},
        ),
        ({**TRAINED, "train/3.jpg": 3}, {"train/cat/1.jpg": "cat", "train/dog/2.jpg": "dog"}, {LOOSE: 1}),
        (
            {
                **ONE_EACH,
                "cat/.1.jpg": 1,
                "cat/._2.jpg": 2,
                "cat/.DS_Store": b"x",
                "cat/.thumbs/3.jpg": 3,
                ".all/4.jpg": 4,
            },
            {"cat/1.jpg": "cat", "dog/2.jpg": "dog"},
            {"hidden": 5},
        ),
        (
            {
                **ONE_EACH,
                "cat/a.txt": b"x",
                "cat/b.TXT": b"x",
                "dog/c.mp4": b"x",
                "dog/d.gif": 3,
                "dog/e.svg": b"x",
                "dog/f": 4,
            },
            {"cat/1.jpg": "cat", "dog/2.jpg": "dog"},
            {".txt": 2, ".mp4": 1, ".gif": 1, ".svg": 1, "no suffix": 1},
        ),
        (
            {**ONE_EACH, "cat/Thumbs.db": b"x", "dog/desktop.ini": b"x", "dog/Icon\r": b"x"},
            {"cat/1.jpg": "cat", "dog/2.jpg": "dog"},
            {".db": 1, ".ini": 1, "no suffix": 1},
        ),
    ],
)
def test_folders_are_classes_or_splits_of_classes(
    folder: Make,
    files: dict[str, bytes | int],
    expected: dict[str, str | tuple[str, str] | None],
    ignored: dict[str, int],
) -> None:
    rows, found = labelled(folder(files))
    assert rows == {name: one if isinstance(one, tuple) else (one, None) for name, one in expected.items()}
    assert found.ignored == ignored
    assert found.groups == [None] * len(rows)
    assert not found.failures


def test_without_labels_every_image_at_any_depth_is_found(folder: Make) -> None:
    root = folder({"1.jpg": 1, "train/cat/2.jpg": 2, "test/3.jpg": 3, "a/b/c/d/4.jpg": 4})
    found = find_unlabelled(root, ())
    assert unlabelled(root) == ["1.jpg", "a/b/c/d/4.jpg", "test/3.jpg", "train/cat/2.jpg"]
    assert unlabelled(folder({"1.jpg": 1}, "lost+found")) == ["1.jpg"]  # a folder that is named is used
    assert set(found.labels) == set(found.splits) == set(found.groups) == {None}

    root = folder({"b/2.jpg": 1, "b/10.jpg": 2, "a/z.jpg": 3, "a/B.jpg": 4}, name="second")
    assert list(labels(root)) == ["a/B.jpg", "a/z.jpg", "b/10.jpg", "b/2.jpg"]

    found = find_unlabelled(folder({"a/1.jpg": 1, "a/b/.2.jpg": 2, "a/b/3.gif": 3, "4.txt": b"x"}, name="third"), ())
    assert len(found.paths) == 1
    assert found.ignored == {"hidden": 1, ".gif": 1, ".txt": 1}


@each("empty", ["dog", "dog/deeper"])
def test_an_empty_class_folder_is_noted(folder: Make, empty: str) -> None:
    root = folder({"cat/1.jpg": 1, "cow/2.jpg": 2})
    (root / empty).mkdir(parents=True)
    assert labelled(root)[1].empty_classes == [str(root / "dog")]


def test_a_class_folder_without_images_is_noted(folder: Make) -> None:
    root = folder({"cat/1.jpg": 1, "cow/2.jpg": 2, "docs/read.md": b"x"})
    assert labelled(root)[1].empty_classes == [str(root / "docs")]

    root = folder({"cat/1.jpg": 1, "cow/2.jpg": 2}, name="second")
    (root / "dog").mkdir()
    (root / "dog" / "3.jpg").symlink_to("nowhere")
    assert labelled(root)[1].empty_classes == []

    root = folder({"train/cat/1.jpg": 1, "train/dog/2.jpg": 2, "val/cat/3.jpg": 3}, name="third")
    (root / "val" / "dog").mkdir()
    assert labelled(root)[1].empty_classes == [str(root / "val" / "dog")]


# Splits


@each("train", ["train", "training", "Train"])
@each(
    "other, split",
    [("val", "val"), ("valid", "val"), ("validation", "val"), ("test", "test"), ("testing", "test"), ("TEST", "test")],
)
def test_split_folders_have_other_names(folder: Make, train: str, other: str, split: str) -> None:
    root = folder({f"{train}/cat/1.jpg": 1, f"{train}/dog/2.jpg": 2, f"{other}/cat/3.jpg": 3})
    rows, _ = labelled(root)
    assert rows[f"{train}/cat/1.jpg"] == ("cat", "train")
    assert rows[f"{other}/cat/3.jpg"] == ("cat", split)


@each("name", ["train", "training", "val", "valid", "validation", "test", "testing"])
def test_a_single_split_folder_is_divided_like_a_folder_without_splits(folder: Make, name: str) -> None:
    assert name in SPLIT_FOLDERS
    root = folder({f"{name}/cat/1.jpg": 1, f"{name}/dog/2.jpg": 2})
    assert labelled(root)[0] == {f"{name}/cat/1.jpg": ("cat", None), f"{name}/dog/2.jpg": ("dog", None)}


def test_splits_next_to_classes_are_an_error_that_names_both(folder: Make) -> None:
    root = folder({"train/cat/1.jpg": 1, "val/cat/2.jpg": 2, "dog/3.jpg": 3, "bird/deep/4.jpg": 4})
    with pytest.raises(ImagesError, match=r"either splits .* the splits train/, val/ and also bird/, dog/"):
        find_labelled(root, ())


# What is passed over


@each("suffix", sorted({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"}))
def test_images_are_known_by_their_suffix_however_it_is_written(folder: Make, suffix: str) -> None:
    assert suffix in IMAGE_SUFFIXES
    root = folder({f"1{suffix}": 1, f"2{suffix.upper()}": 2, f"3{suffix}.part": 3})
    assert unlabelled(root) == [f"1{suffix}", f"2{suffix.upper()}"]


# Links


def test_links_are_followed_and_loops_end(folder: Make, tmp_path: Path) -> None:
    far = folder({"x.jpg": 1, "birds/y.jpg": 2, "birds/deep/z.jpg": 3}, name="far")
    root = folder({"cat/1.jpg": 4})
    (root / "cat" / "2.jpg").symlink_to(far / "x.jpg")
    (root / "bird").symlink_to(far / "birds")
    assert labels(root) == {"bird/deep/z.jpg": "bird", "bird/y.jpg": "bird", "cat/1.jpg": "cat", "cat/2.jpg": "cat"}

    folder({"cat/1.jpg": 1, "dog/2.jpg": 2}, name="second")
    (tmp_path / "link").symlink_to("second")
    assert labels(tmp_path / "link") == {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}

    root = folder({"a/x/1.jpg": 1, "a/y/2.jpg": 2}, name="third")
    (root / "a" / "x" / "to").symlink_to("../y")
    (root / "a" / "y" / "to").symlink_to("../x")
    assert unlabelled(root) == ["a/x/1.jpg", "a/x/to/2.jpg", "a/y/2.jpg", "a/y/to/1.jpg"]


@each("target", [".", "..", "../..", "deep"])
def test_a_loop_of_links_ends(folder: Make, target: str) -> None:
    root = folder({"cat/deep/1.jpg": 1, "dog/2.jpg": 2})
    (root / "cat" / "deep" / "deep").symlink_to(target)
    rows, found = labelled(root)
    assert set(rows) == {"cat/deep/1.jpg", "dog/2.jpg"}
    assert sorted(unlabelled(root)) == ["cat/deep/1.jpg", "dog/2.jpg"]
    assert not found.failures


def test_what_cannot_be_read_is_a_failure(folder: Make) -> None:
    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2})
    (root / "cat" / "3.jpg").symlink_to("nowhere.jpg")
    rows, found = labelled(root)
    assert len(rows) == 2
    [failure] = found.failures
    assert failure.path == str(root / "cat" / "3.jpg")
    assert failure.code == "unreadable"
    assert "broken link" in failure.message

    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2}, name="second")
    (root / "cat" / "3.jpg").symlink_to("3.jpg")
    [failure] = labelled(root)[1].failures
    assert (failure.path, failure.code) == (str(root / "cat" / "3.jpg"), "unreadable")

    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2}, name="third")
    os.mkfifo(root / "cat" / "3.jpg")
    os.mkfifo(root / "cat" / "pipe")
    rows, found = labelled(root)
    assert len(rows) == 2
    [failure] = found.failures
    assert (failure.path, failure.code) == (str(root / "cat" / "3.jpg"), "unreadable")
    assert "regular" in failure.message
    assert found.ignored == {"no suffix": 1}


# What is never scanned


@each("excluded", ["cache", "cat/cache", "cat/deep/cache"])
def test_an_excluded_folder_is_never_scanned(folder: Make, excluded: str) -> None:
    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2, f"{excluded}/3.jpg": 3, f"{excluded}/deep/4.jpg": 4})
    exclude = ((root / excluded).resolve(),)
    assert set(labelled(root, exclude)[0]) == {"cat/1.jpg", "dog/2.jpg"}
    assert unlabelled(root, exclude) == ["cat/1.jpg", "dog/2.jpg"]


def test_an_excluded_folder_is_neither_scanned_through_a_link_nor_a_class(folder: Make) -> None:
    far = folder({"3.jpg": 3}, name="far")
    root = folder({"cat/1.jpg": 1, "dog/2.jpg": 2})
    (root / "bird").symlink_to(far)
    (root / "cat" / "more").symlink_to(far)
    assert set(labelled(root, (far.resolve(),))[0]) == {"cat/1.jpg", "dog/2.jpg"}

    root = folder({"1.jpg": 1, "2.jpg": 2, "cache/3.jpg": 3}, name="second")
    assert labelled(root, ((root / "cache").resolve(),))[0] == {"1.jpg": (None, None), "2.jpg": (None, None)}


# What systems leave


@each(
    "name",
    [
        *(
            "@eaDir",
            "#recycle",
            "#snapshot",
            "@Recycle",
            "@Recently-Snapshot",
            "$RECYCLE.BIN",
            "RECYCLER",
            "lost+found",
        ),
        *("System Volume Information", "__MACOSX", "Network Trash Folder", "FOUND.000"),
    ],
)
def test_folders_that_systems_leave_are_ignored_and_their_files_counted(folder: Make, name: str) -> None:
    left = {f"{name}/9.jpg": 9, f"{name}/deep/er.jpg": 8, f"cat/{name}/a.jpg/7.jpg": 7}
    rows, found = labelled(folder({"cat/1.jpg": 1, "dog/2.jpg": 2, **left}))
    assert set(rows) == {"cat/1.jpg", "dog/2.jpg"}
    assert found.ignored == {f"in {name}": 3}
    assert found.empty_classes == []


@each("name", [".Trash-1000", ".AppleDouble", ".ipynb_checkpoints", ".@__thumb"])
def test_hidden_folders_that_systems_leave_are_ignored(folder: Make, name: str) -> None:
    rows, found = labelled(folder({"cat/1.jpg": 1, "dog/2.jpg": 2, f"{name}/3.jpg": 3, f"cat/{name}/4.jpg": 4}))
    assert set(rows) == {"cat/1.jpg", "dog/2.jpg"}
    assert found.ignored == {"hidden": 2}


def test_they_are_ignored_in_splits_and_without_labels(folder: Make) -> None:
    images = {"train/cat/1.jpg": 1, "train/dog/2.jpg": 2, "val/cat/3.jpg": 3, "val/dog/4.jpg": 4}
    left = {"@eaDir/5.jpg": 5, "train/@eaDir/6.jpg": 6, "val/dog/#recycle/7.jpg": 7}
    root = folder({**images, **left})
    rows, found = labelled(root)
    assert set(rows) == set(images)
    assert found.ignored == {"in @eaDir": 2, "in #recycle": 1}
    assert find_unlabelled(root, ()).ignored == {"in @eaDir": 2, "in #recycle": 1}


@each("name", ["#cats", "@home", "$1 note", "recycle", "found.objects", "snapshot"])
def test_a_class_may_have_a_name_like_theirs(folder: Make, name: str) -> None:
    rows, _ = labelled(folder({f"{name}/1.jpg": 1, "dog/2.jpg": 2}))
    assert set(rows) == {f"{name}/1.jpg", "dog/2.jpg"}

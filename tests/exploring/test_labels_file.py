import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import OutputError
from bottleneck.exploring import labels_file
from bottleneck.exploring.labels_file import LabelsFile
from bottleneck.images.dataset import Dataset
from bottleneck.images.scan import scan
from tests.conftest import photo, write
from tests.variants import each

TABLE, LOG = Path("labels.csv"), Path("labels.csv.log")
NAMES = ("a/0.jpg", "a/1.jpg", "b/2.jpg", "b/3.jpg")


@pytest.fixture
def dataset() -> Dataset:
    for number, name in enumerate(NAMES):
        write(Path("images") / name, photo(number))
    return scan("images")


def edited(dataset, *edits):
    file = LabelsFile(TABLE, dataset)
    for edit in edits:
        file.edit(*edit)
    file.close()
    return file


def labels_of(table=TABLE):
    found = scan(table)
    return {Path(path).name: label for path, label in zip(found.paths, found.labels, strict=True)}


def test_the_table_is_what_fit_reads(dataset):
    edited(dataset, ("label", "c", [0]), ("exclude", None, [1]), ("label", None, [3]), ("tag", "night", [2]))
    found = scan(TABLE)
    assert labels_of() == {"0.jpg": "c", "2.jpg": "b"}
    assert dict(zip(found.paths, found.splits, strict=True)) == {
        path: split for path, split in zip(dataset.paths, dataset.splits, strict=True) if path in found.paths
    }
    assert "night" in TABLE.read_text()


@each(
    "label", ["=1+1", "a,b", 'a "b"', "'a", "<script>", "\u0645\u0631\u062d\u0628\u0627", "\u8766 \u87f9", "-", "a;b"]
)
def test_any_label_comes_back_from_the_table(label):
    write(Path("images/a/0.jpg"), photo(0))
    write(Path("images/b/1.jpg"), photo(1))
    edited(scan("images"), ("label", label, [0]), ("tag", "=a", [0]))
    assert labels_of()["0.jpg"] == label


def test_a_group_stays(dataset):
    grouped = replace(dataset, groups=("x", "x", "y,z", "y"))
    edited(grouped, ("label", "b", [0]))
    assert scan(TABLE).groups == ("x", "x", "y,z", "y")


def test_nothing_is_left_if_nothing_is_edited(dataset):
    edited(dataset)
    assert not TABLE.exists()
    assert not LOG.exists()


def test_the_next_session_continues_and_can_undo(dataset):
    edited(dataset, ("label", "b", [0]), ("label", "c", [1]))
    file = LabelsFile(TABLE, dataset)
    assert file.annotations.labels == ["b", "c", "b", "b"]
    assert file.undo() == ("label 1 image c", (1,))
    file.close()
    assert labels_of()["1.jpg"] == "a"
    file = LabelsFile(TABLE, dataset)
    assert file.redo() == ("label 1 image c", (1,))
    assert file.redo() is None
    file.close()
    assert labels_of()["1.jpg"] == "c"


@each("table", ["old", "missing"])
def test_a_table_that_is_behind_its_log_is_brought_up_to_date(table):
    for number, name in enumerate(NAMES):
        write(Path("images") / name, photo(number))
    dataset = scan("images")
    edited(dataset, ("label", "b", [0]), ("label", "c", [1]))
    old = TABLE.read_bytes()
    edited(dataset, ("label", "c", [0]))
    newest = TABLE.read_bytes()
    TABLE.unlink()
    if table == "old":
        TABLE.write_bytes(old)
    assert edited(dataset).annotations.labels == ["c", "c", "b", "b"]
    assert TABLE.read_bytes() == newest


def test_corrections_by_hand_are_continued(dataset):
    edited(dataset, ("label", "b", [0]), ("exclude", None, [1]))
    lines = TABLE.read_text().splitlines(keepends=True)
    changed = [line.replace(",b,", ",z,") if "0.jpg" in line else line for line in lines if "3.jpg" not in line]
    TABLE.write_text("".join(changed))
    file = LabelsFile(TABLE, dataset)
    assert file.annotations.labels[0] == "z"
    assert file.annotations.excluded.tolist() == [False, True, False, True]
    assert file.undo() == ("exclude 1 image", (3,))
    file.close()
    LOG.unlink()
    assert edited(dataset).annotations.labels == ["z", "a", "b", "b"]


def test_corrections_by_hand_while_it_runs_are_not_overwritten(dataset):
    file = LabelsFile(TABLE, dataset)
    file.edit("label", "c", [3])
    TABLE.write_text("".join(line.replace(",a,", ",z,") for line in TABLE.open() if "1.jpg" not in line))
    assert file.edit("label", "d", [2]) == (0, 1, 2)
    assert file.annotations.labels == ["z", "a", "d", "c"]
    assert file.undo() == ("label 1 image d", (2,))
    assert labels_of() == {"0.jpg": "z", "2.jpg": "b", "3.jpg": "c"}
    TABLE.write_text("my notes")
    with pytest.raises(OutputError, match="expected a table of labels"):
        file.edit("label", "d", [2])
    assert TABLE.read_text() == "my notes"
    file.close()


@each(
    "correct, labels, tags",
    [
        (lambda text: text.replace(",a,", ",,", 1), [None, "a", "b", "b"], [(), (), ("x",), ()]),
        (lambda text: text.replace(",\n", ",night; x\n", 1), None, None),
        (lambda text: text.replace(",x\n", ",\n"), ["a", "a", "b", "b"], [(), (), (), ()]),
        (lambda text: "\ufeff" + text, ["a", "a", "b", "b"], [(), (), ("x",), ()]),
    ],
)
def test_each_kind_of_correction_by_hand_is_an_edit(correct, labels, tags):
    for number, name in enumerate(NAMES):
        write(Path("images") / name, photo(number))
    file = LabelsFile(TABLE, scan("images"))
    file.edit("tag", "x", [2])
    TABLE.write_text(correct(TABLE.read_text()))
    file.edit("tag", "y", [3])
    file.edit("untag", "y", [3])
    known = file.annotations
    file.close()
    assert known.labels == (labels or ["a", "a", "b", "b"])
    assert known.tags == (tags or [("night", "x"), (), ("x",), ()])


@each(
    "correct, message",
    [
        (
            lambda text: re.sub(",(train|val|test),", ",other,", text, count=1),
            "expected the split '[a-z]+' of images/a/0.jpg",
        ),
        (
            lambda text: text.replace(",a,", f",{'a' * 300},", 1),
            "correction of images/a/0.jpg in labels",
        ),
    ],
)
def test_corrections_that_cannot_be_taken_over_are_refused_and_stay(correct, message):
    for number, name in enumerate(NAMES):
        write(Path("images") / name, photo(number))
    file = LabelsFile(TABLE, scan("images"))
    file.edit("tag", "x", [2])
    by_hand = correct(TABLE.read_text())
    TABLE.write_text(by_hand)
    for _ in range(2):
        with pytest.raises(OutputError, match=message):
            file.edit("tag", "y", [3])
    file.close()
    assert TABLE.read_text() == by_hand


def test_a_table_that_was_set_back_by_hand_is_a_correction(dataset):
    edited(dataset, ("label", "c", [0]))
    before = TABLE.read_bytes()
    edited(dataset, ("label", "d", [1]), ("label", "e", [2]))
    TABLE.write_bytes(before)
    file = edited(dataset)
    assert file.annotations.labels == ["c", "a", "b", "b"]
    assert TABLE.read_bytes() == before


def test_a_row_that_is_written_again_includes_its_image(dataset):
    file = LabelsFile(TABLE, dataset)
    file.edit("tag", "x", [2])
    whole = TABLE.read_bytes()
    file.edit("exclude", None, [0])
    TABLE.write_bytes(whole)
    file.edit("tag", "y", [3])
    assert file.undo() is not None
    assert not file.annotations.excluded.any()
    assert file.undo() is not None
    assert file.annotations.excluded.tolist() == [True, False, False, False]
    count = file.annotations.count
    file.close()
    assert LabelsFile(TABLE, dataset).annotations.count == count


def test_a_log_that_was_moved_takes_no_edits(dataset):
    file = LabelsFile(TABLE, dataset)
    file.edit("tag", "x", [2])
    LOG.rename("moved")
    with pytest.raises(OutputError, match="moved or deleted: nothing was changed"):
        file.edit("tag", "y", [3])
    file.close()
    assert file.annotations.tags[3] == ()
    assert "y" not in TABLE.read_text()


def test_corrections_by_hand_are_not_lost_if_the_process_is_killed_while_it_takes_them_over(dataset, monkeypatch):
    edited(dataset, ("label", "c", [3]))
    text = TABLE.read_text().replace(",a,", ",z,").replace(",b,", ",y,")
    TABLE.write_text(text)
    made = []

    def killed(file, edit, **options):
        if made:
            raise KeyboardInterrupt
        made.append(edit)
        make(file, edit, **options)

    make = LabelsFile._make
    with monkeypatch.context() as patch:
        patch.setattr(LabelsFile, "_make", killed)
        with pytest.raises(KeyboardInterrupt):
            LabelsFile(TABLE, dataset)
    assert edited(dataset).annotations.labels == ["z", "z", "y", "c"]


@each(
    "text, message",
    [
        ("path,label\na.jpg,x\n", "expected a table of labels from `explore`"),
        ("my notes", "expected a table of labels from `explore`"),
        (f"path,digest,label,split,tagged\nx.jpg,{'0' * 64},x,train,\n", "found none of them"),
        ("path,digest,label,split,tagged\nx.jpg,x\n", "cannot read"),
    ],
)
def test_a_foreign_table_is_refused_and_left(text, message):
    write(Path("images/0.jpg"), photo(0))
    TABLE.write_text(text)
    with pytest.raises(OutputError, match=message):
        LabelsFile(TABLE, scan("images", labels=False))
    assert TABLE.read_text() == text
    assert not LOG.exists()


def test_the_log_of_other_images_is_refused(dataset):
    edited(dataset, ("label", "b", [0]))
    TABLE.unlink()
    other = replace(dataset, digests=np.flip(dataset.digests, axis=1).copy())
    with pytest.raises(OutputError, match="expected edits of these images"):
        LabelsFile(TABLE, other)
    assert LOG.exists()


def test_images_that_are_gone_do_not_stop_the_rest(dataset):
    edited(dataset, ("label", "c", [0, 3]))
    assert edited(dataset.subset([2, 3])).annotations.labels == ["b", "c"]
    assert edited(dataset).annotations.labels == ["c", "a", "b", "c"]


def test_a_table_that_cannot_be_written_is_reported_and_the_edit_kept(dataset, monkeypatch):
    def full(path, write):
        raise OutputError("no space left")

    file = LabelsFile(TABLE, dataset)
    with monkeypatch.context() as patch:
        patch.setattr(labels_file, "write_output", full)
        assert file.edit("label", "b", [0]) == (0,)
        assert file.problem == "no space left. All edits are in labels.csv.log"
    file.edit("label", "c", [1])
    assert file.problem is None
    file.close()
    assert labels_of() == {"0.jpg": "b", "1.jpg": "c", "2.jpg": "b", "3.jpg": "b"}

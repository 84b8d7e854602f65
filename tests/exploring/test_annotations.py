import pytest

from bottleneck.errors import ImagesError
from bottleneck.exploring.annotations import Annotations, Edit
from tests.variants import each


@pytest.fixture
def known():
    return Annotations(["ant", "bee", None])


def edit(action, value, *rows):
    return Edit.checked(action, value, list(rows), 3)


def test_edits_change_rows_and_are_taken_back_in_their_order(known):
    assert known.apply(edit("label", "bee", 0, 1, 2)) == (0, 2)
    assert known.apply(edit("exclude", None, 1)) == (1,)
    assert known.labels == ["bee", "bee", "bee"]
    assert known.excluded.tolist() == [False, True, False]
    assert known.undo() == (edit("exclude", None, 1), (1,))
    assert known.undo()[1] == (0, 2)
    assert known.labels == ["ant", "bee", None]
    assert known.undo() is None
    assert known.redo()[1] == (0, 2)
    assert known.count == 1
    assert known.can_redo
    known.apply(edit("label", None, 0))
    assert not known.can_redo
    assert known.labels == [None, "bee", "bee"]
    assert known.classes == ("bee",)


def test_an_edit_that_changes_nothing_is_not_kept(known):
    assert known.apply(edit("label", "ant", 0)) == ()
    assert known.apply(edit("include", None, 0)) == ()
    assert known.count == 0


def test_tags_are_added_and_removed(known):
    known.apply(edit("tag", "blurred", 0, 1))
    known.apply(edit("tag", "night", 0))
    assert known.tags == [("blurred", "night"), ("blurred",), ()]
    assert known.is_edited(0)
    assert known.apply(edit("untag", "blurred", 0, 2)) == (0,)
    assert known.tags[0] == ("night",)


def test_names_are_normalised_and_texts_say_what_an_edit_does():
    assert edit("label", " cafe\u0301 ", 2, 0, 2) == Edit("label", "caf\u00e9", (0, 2))
    assert edit("label", "ant", 0, 1).text == "label 2 images ant"
    assert edit("label", None, 0).text == "remove the label of 1 image"
    assert edit("exclude", "ignored", 0).text == "exclude 1 image"


@each(
    "action, value, rows",
    [
        ("delete", "ant", [0]),
        (None, "ant", [0]),
        ("label", "", [0]),
        ("label", "  ", [0]),
        ("label", "a\nb", [0]),
        ("label", "a\x1b[31m", [0]),
        ("label", "a\u009b31m", [0]),
        ("label", "\u202e", [0]),
        ("label", "\udcff", [0]),
        ("label", "a" * 201, [0]),
        ("label", 3, [0]),
        ("tag", None, [0]),
        ("tag", "a;b", [0]),
        ("label", "ant", [3]),
        ("label", "ant", [-1]),
        ("label", "ant", [True]),
        ("label", "ant", ["0"]),
        ("label", "ant", 0),
    ],
)
def test_invalid_edits_are_refused(action, value, rows):
    with pytest.raises(ImagesError, match="expected"):
        Edit.checked(action, value, rows, 3)

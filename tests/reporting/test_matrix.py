"""The confusion matrix of few and of many classes."""

from bottleneck.reporting.held_out import HeldOutImage, HeldOutImages
from bottleneck.reporting.matrix import PAIRS, TABLE_CLASSES, matrix_view


def images(*cells):
    """Return an image for each (label, prediction)."""
    made = [
        HeldOutImage(digest=f"{place:064x}", label=a, predicted=b, probability=0.9, top=((b, 0.9),))
        for place, (a, b) in enumerate(cells)
    ]
    return HeldOutImages(tuple(made))


def test_few_classes_are_a_table():
    found = matrix_view(["a", "b", "c"], images(("a", "a"), ("a", "b"), ("a", "b"), ("b", "b")))
    assert [[cell.count for cell in row] for row in found.rows] == [[1, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert found.rows[0][1].share == 2 / 3
    assert found.picture is None
    assert [(pair.label, pair.predicted, pair.count) for pair in found.pairs] == [("a", "b", 2)]
    assert [cell.key for cell in found.opened] == ["cell-0-1", "cell-0-0", "cell-1-1"]
    assert found.rows[1][0].key == ""


def test_the_images_of_a_cell_are_those_with_its_label_and_prediction():
    tested = images(("a", "b"), ("b", "a"), ("a", "b"))
    found = matrix_view(["a", "b"], tested)
    cell = next(cell for cell in found.opened if cell.key == "cell-0-1")
    assert [one.digest for one in found.images_of(cell, tested)] == [tested[0].digest, tested[2].digest]


def test_many_classes_are_a_picture_with_the_most_confused_pairs():
    names = [f"class {number:04d}" for number in range(1000)]
    wrong = [(names[place], names[-1 - place]) for place in range(200)]
    found = matrix_view(names, images(*wrong, wrong[7], *((name, name) for name in names)))
    assert found.rows == ()
    assert "<svg" in found.picture
    assert len(found.picture) < 300_000
    assert (len(found.pairs), found.pairs[0].label, found.pairs[0].count) == (PAIRS, "class 0007", 2)
    assert len(found.opened) == PAIRS
    assert len(names) > TABLE_CLASSES


def test_a_label_that_is_no_class_has_a_row():
    assert matrix_view(["a"], images(("new", "a"))).classes == ("a", "new")

"""A dataset in a notebook."""

from pathlib import Path

from bottleneck.images.dataset_html import dataset_html
from tests.images.test_dataset import dataset
from tests.markup import tables, text_in


def test_images_are_counted_by_class_and_split():
    labels, splits = ["<a>", "<a>", "b", None], ["train", "test", "train", "train"]
    html = dataset_html(Path("/secret/bugs"), labels, splits, 2)

    assert tables(html) == [
        [["class", "train", "test", "all"], ["<a>", "1", "1", "2"], ["b", "1", "0", "1"], ["no label", "1", "0", "1"]]
    ]
    assert text_in(html).startswith("bugs 4 images, 2 classes")
    assert "2 images could not be read" in text_in(html)
    assert "secret" not in html


def test_many_classes_are_left_out_and_counted():
    assert "and 3 more" in text_in(dataset_html(Path("x"), list("abcde"), ["train"] * 5, 0, most=2))


def test_a_dataset_shows_it():
    assert text_in(dataset("ab", ["x", "y"])._repr_html_()).startswith("images 2 images, 2 classes")
    assert text_in(dataset("")._repr_html_()) == "images 0 images, 0 classes"

from pathlib import Path

from bottleneck.images.naming import examples, from_images


def test_a_path_is_shown_relative_to_the_images_or_the_folder_of_the_table(tmp_path: Path) -> None:
    (tmp_path / "photos.v2").mkdir()
    assert from_images(f"{tmp_path}/photos.v2/a/1.jpg", tmp_path / "photos.v2") == "a/1.jpg"
    assert from_images("photos/a/1.jpg", Path("photos").absolute()) == "a/1.jpg"
    assert from_images("lists/../photos/1.jpg", Path("all.csv").absolute()) == "photos/1.jpg"
    assert from_images("/elsewhere/1.jpg", tmp_path / "photos.v2") == "/elsewhere/1.jpg"


def test_examples_are_few_and_short_and_escaped() -> None:
    assert examples(["a"]) == "a"
    assert examples(str(n) for n in range(7)) == "0, 1, 2, 3 and 3 more"
    assert examples(["x" * 200, "y"]) == "x" * 200 + " and 1 more"
    assert examples(["a" * 50, "b" * 50, "c"]) == "a" * 50 + " and 2 more"
    assert examples(["\x1b[31m", "b"], most=1) == r"\x1b[31m and 1 more"

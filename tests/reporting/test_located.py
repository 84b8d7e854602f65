"""Where images are, and what a page may say of it."""

import shutil
from pathlib import Path

from bottleneck.images.scan import scan
from bottleneck.reporting.located import LocatedImages, locate
from bottleneck.runs.run import load_run
from tests.variants import each


def only_run(project):
    (folder,) = (project / "runs").iterdir()
    return load_run(folder)


def name_of(row):
    return "/".join(Path(row["path"]).parts[-2:])


def test_images_are_found_by_digest(project):
    run = only_run(project)
    found = locate(run, Path("cache"), Path("runs"))
    row = run.predictions[0]
    assert found.paths(row["digest"]) == [str(project / "images" / name_of(row))]
    assert found.label(row["digest"]) == row["label"]
    assert found.name(row["digest"]) == name_of(row)
    assert found.digest(row["path"]) == row["digest"]


def test_images_that_moved_with_their_run_are_found(project, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(project, moved)
    found = locate(only_run(moved), moved / "cache", moved / "runs")
    assert found.source == moved / "images"
    assert len(found.dataset) == 48


def test_images_that_are_gone_keep_their_names(project):
    run = only_run(project)
    shutil.rmtree("images")
    shutil.rmtree("cache")
    found, row = locate(run, Path("cache"), Path("runs")), run.predictions[0]
    assert found.dataset is None
    assert found.paths(row["digest"]) == []
    assert found.label(row["digest"]) is None
    assert found.digest(row["path"]) is None
    assert found.name(row["digest"]) == name_of(row)
    assert found.name("ab" * 32) == "abababababab"


def test_the_longest_known_end_of_a_path_names_an_image(folder):
    root = folder({"a/1.jpg": 1, "train/a/1.jpg": 2})
    found = LocatedImages(root, scan(root, labels=False))
    (first,) = [found.digest(path) for path in ["/old/place/images/a/1.jpg"]]
    assert found.name(first) == "a/1.jpg"
    assert found.name(found.digest("../images/train/a/1.jpg")) == "train/a/1.jpg"
    assert found.digest("/old/place/2.jpg") is None


@each(
    "path, shown",
    [
        ("/home/me/secret/photos/ants/1.jpg", "ants/1.jpg"),
        ("/home/me/other/bees/1.jpg", "bees/1.jpg"),
        ("../../private/x/y.jpg", "x/y.jpg"),
        ("y.jpg", "y.jpg"),
    ],
)
def test_names_have_no_private_folder(path, shown):
    assert LocatedImages(Path("/home/me/secret/photos"), None).shown(path) == shown

"""The report of a run: what is in the page, and what it says if something is missing."""

import re
import shutil
from pathlib import Path

import pytest

from bottleneck.errors import OutputError, RunError
from bottleneck.reporting.report import default_name, report
from bottleneck.runs.run import load_run
from tests.reporting.conftest import CLASSES
from tests.variants import each


@pytest.fixture(scope="session")
def text(made, tmp_path_factory):
    """Return the whole report."""
    out = tmp_path_factory.mktemp("pages") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        found = report(out=out)
    assert found.audited
    assert found.missing == 0
    assert found.bytes == out.stat().st_size
    return out.read_text(encoding="utf-8")


SECTIONS = (
    "trained",
    "confusion",
    "mistakes",
    "uncertain",
    "classes",
    "confidence",
    "unfamiliar",
    "data",
    "training",
    "again",
)


@each("section", SECTIONS)
def test_each_section_is_there_and_in_the_navigation(section, text):
    assert f'<h2 id="{section}">' in text
    assert f'<a href="#{section}">' in text


def test_the_page_begins_with_the_accuracy_in_words(text):
    assert re.search(r'<p class="lead">Of 100 new pictures like these, about \d+ are classified correctly', text)


def test_names_of_classes_are_text(text):
    assert "<script>alert" not in text
    assert "<bdi>&lt;script&gt;alert(1)&lt;</bdi>" in text
    for name in CLASSES[1:]:
        assert f"<bdi>{name}</bdi>" in text


def test_each_picture_is_in_the_page_once_however_often_it_is_shown(text):
    rules = re.findall(r"\.p(\d+)\{background-image:url\((data:image/jpeg;base64,[^)]+)\)\}", text)
    shown = re.findall(r'class="picture [^"]*\bp(\d+)"', text)
    assert len({data for _, data in rules}) == len(rules) == text.count("data:image/jpeg")
    assert {number for number, _ in rules} == set(shown)
    assert len(shown) > len(rules)


def test_there_is_no_private_path(text, made):
    assert str(made) not in text
    assert str(made.parent) not in text
    assert "images/" not in re.sub(r"data:image/\w+", "", text)


def test_the_most_similar_training_images_and_their_labels_are_shown(text):
    mistakes = text[text.index('id="mistakes"') : text.index('id="uncertain"')]
    assert mistakes.count("Most similar training images") == mistakes.count('<span class="wrong">')
    assert "picture small p" in mistakes


def test_the_confusion_matrix_links_to_the_pictures_of_its_cells(text):
    links = set(re.findall(r'href="#(cell-\d+-\d+)"', text))
    assert links
    assert links == set(re.findall(r'id="(cell-\d+-\d+)"', text))


def copied(project: Path):
    (folder,) = (project / "runs").iterdir()
    return load_run(folder)


def test_without_features_the_page_says_what_is_missing(project):
    run = copied(project)
    shutil.rmtree(project / "cache")
    found = report(run, pictures=20)
    text = found.path.read_text()
    assert (found.audited, found.pictures, str(found.path)) == (False, 20, default_name(run))
    assert "The features of the held-out images are not in the cache." in text
    assert "similar ones are not shown" in text
    assert "could not be audited" in text


def test_without_images_the_page_has_names(project):
    run = copied(project)
    shutil.rmtree(project / "images")
    shutil.rmtree(project / "cache")
    found = report(run, "names.html")
    text = found.path.read_text()
    assert found.pictures == 0
    assert found.missing > 0
    assert "missing: the file was deleted or has changed" in text
    assert "this report has no pictures" in text
    assert Path(run.predictions[0]["path"]).name in text


def test_a_report_without_pictures_and_audit(project):
    found = report("./" + str(copied(project).path.relative_to(project)), "x.html", pictures=0, audit=False)
    assert (found.pictures, found.missing, found.audited) == (0, 0, False)
    assert "The images were not audited" in found.path.read_text()
    assert found.to_json()["report"] == "x.html"
    assert "x.html" in repr(found)


def test_a_run_that_lacks_what_later_versions_record(project, other):
    run = other(
        uncertainty=None, uncertainty_sha256=None, coverage=None, leaks=None, search={"cv_accuracy": 0.5}, engines=None
    )
    text = report(run, project / "old.html", pictures=0, audit=False).path.read_text()
    assert "does not record how familiar images are" in text
    assert "does not record whether its splits share images" in text
    assert "No hyperparameter was searched" in text


def test_leaks_are_shown_as_pairs_of_pictures(project, other, run):
    train, held = "images/蜂と蟻/32.jpg", run.predictions[0]["path"]
    leaks = {"counts": {"near_duplicates": 9, "two_labels": 1}, "near_threshold": 0.9}
    leaks["near_duplicates"] = [[train, held, 0.97], ["old/gone.jpg", held, 0.95]]
    text = report(other(leaks=leaks), project / "leaks.html", audit=False).path.read_text()
    leaked = text[text.index("Between training and held-out images") :]
    assert "The first 2 are shown" in leaked
    assert leaked.count("picture  p") >= 2
    assert "old/gone.jpg" in leaked
    assert "1 image with two labels, which was left out" in leaked


@each("pictures", [-1, 1.5, "many"])
def test_an_invalid_number_of_pictures_is_refused(pictures, run):
    with pytest.raises(RunError, match="pictures"):
        report(run, pictures=pictures)


def test_a_page_is_not_written_through_a_link(project):
    (project / "page.html").symlink_to(project / "target.html")
    with pytest.raises(OutputError, match="link"):
        report(copied(project), "page.html", pictures=0, audit=False)
    assert not (project / "target.html").exists()

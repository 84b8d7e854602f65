from dataclasses import replace
from pathlib import Path

import pytest

from bottleneck.demo.download import ARCHIVES
from bottleneck.demo.tour import examples, prepare
from bottleneck.errors import DownloadError
from bottleneck.runs.run import Run
from tests.variants import each

ROWS = [("a1", "a", "a", 0.9), ("a2", "a", "b", 0.6), ("b1", "b", "b", 0.8), ("b2", "b", "b", 0.7)]


@pytest.fixture
def run(tmp_path):
    lines = ["path,digest,split,label,predicted,probability"]
    lines += [f"{path},00,test,{label},{predicted},{share}" for path, label, predicted, share in ROWS]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n")
    return Run(tmp_path, {})


def test_examples_are_evenly_spaced_and_include_a_mistake(run):
    assert [example.path for example in examples(run, 2)] == ["a1", "b1", "a2"]


def test_no_mistake_is_shown_twice(run):
    assert [example.path for example in examples(run, 4)] == ["a1", "a2", "b1", "b2"]


def test_a_set_that_cannot_be_downloaded_is_an_error():
    nowhere = {"hymenoptera": replace(ARCHIVES["hymenoptera"], url="http://127.0.0.1:9/hymenoptera_data.zip")}
    with pytest.raises(DownloadError, match=r"hymenoptera_data\.zip cannot be reached"):
        prepare("hymenoptera", Path("demo"), archives=nowhere)


@each("place", ["digits", "digits/0"])
def test_digits_are_not_written_through_a_link(tmp_path, place):
    (tmp_path / "home").mkdir()
    link = tmp_path / "demo" / place
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "home")
    with pytest.raises(DownloadError, match="found a link"):
        prepare("digits", tmp_path / "demo")

    assert list((tmp_path / "home").iterdir()) == []

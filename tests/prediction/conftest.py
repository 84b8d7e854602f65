"""A run on small images with features of the tiny backbone, made once and copied for each test."""

import shutil
from pathlib import Path

import pytest

from bottleneck.extraction.extract import extract
from bottleneck.fitting.fit import fit
from bottleneck.runs.run import Run, list_runs
from tests import tiny
from tests.conftest import photo, write

IMAGES = {f"{name}/{number}.jpg": 100 * ord(name) + number for name in "ab" for number in range(30)}


def fitted(root: Path, images: dict[str, int], **options: object) -> Path:
    """Write images into a folder, with a cache of their features and a run."""
    for name, seed in images.items():
        write(root / "images" / name, photo(seed))
    with pytest.MonkeyPatch.context() as patch:
        tiny.use(patch)
        patch.chdir(root)
        extract("images")
        fit(**options)
    return root


def copied(root: Path) -> Run:
    """Copy what `fitted` made into the current folder, and return the run."""
    for name in ("images", "cache", "runs"):
        shutil.copytree(root / name, name)
    extract("images")  # makes the copies the default images
    (found,) = list_runs("runs")
    return found


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("original"), IMAGES)


@pytest.fixture
def run(original, monkeypatch) -> Run:
    """Return a run in the current folder, which has its images and their features."""
    tiny.use(monkeypatch)
    return copied(original)

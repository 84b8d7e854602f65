"""A project with features and a run, made once by the bundled network on small pictures, and copied for each test."""

import shutil
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from bottleneck.cli.main import cli
from bottleneck.errors import BottleneckWarning
from tests.conftest import photo, write

CLASSES = {f"{name}/{number}.jpg": 100 * place + number for place, name in enumerate("ab") for number in range(8)}
SMALL = ("--engine", "torch", "--precision", "fp32", "--resize", "32", "--crop", "32")  # as little work as it takes
EXTRACT = ("extract", *SMALL)


def run(*words: object, code: int = 0) -> tuple[str, str]:
    """Run a command in this process; return stdout and stderr."""
    found = CliRunner().invoke(cli, [str(word) for word in words])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, their features and a run."""
    root = tmp_path_factory.mktemp("cli")
    for name, seed in CLASSES.items():
        write(root / "images" / name, photo(seed))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", BottleneckWarning)
        patch.chdir(root)
        run(*EXTRACT, "images")
        run("fit", "--split", "60/0/40", "--head", "logistic", "--C", "1")
    return root


@pytest.fixture
def extracted(original: Path, tmp_path: Path) -> Path:
    """Return the current folder with images and their features."""
    for name in ("images", "cache"):
        shutil.copytree(original / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def fitted(original: Path, extracted: Path) -> Path:
    """Return the current folder with images, their features and a run."""
    shutil.copytree(original / "runs", extracted / "runs")
    return extracted

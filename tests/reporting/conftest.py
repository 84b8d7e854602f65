"""A run on small pictures, whose classes have names that pages must show as they are; made once for all tests."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bottleneck.backbones.spec import Spec
from bottleneck.fitting.fit import fit
from bottleneck.images.preprocessing import Preprocessing
from bottleneck.runs.run import Run, load_run
from tests.auditing.conftest import cache_features, class_features

CLASSES = ("<script>alert(1)<", "نملة سوداء", "蜂と蟻")
PER_CLASS = 16


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with images, their features, and a run that makes mistakes.

    It has moved since: a run whose images are still where they were would find them, and not those of its copy.
    """
    root = tmp_path_factory.mktemp("report") / "first"
    root.mkdir()
    spec = Spec(
        backbone="resnet18",
        weights="0" * 64,
        layer="fc:input",
        pooling="avg",
        preprocessing=Preprocessing(
            resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0.4, 0.4, 0.4), std=(0.2, 0.2, 0.2)
        ),
        transform_input=False,
        precision="fp32",
        decoder=1,
    )
    codes = [code for code in range(len(CLASSES)) for _ in range(PER_CLASS)]
    names = [f"{CLASSES[code]}/{number:02d}.jpg" for number, code in enumerate(codes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        cache_features(spec, names, class_features(codes, spread=9.0))
        fit(split="50/0/50", C=(0.001, 0.01), folds=3, seed=1)
    return root.rename(root.with_name("moved"))


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """Return the current folder with a copy that a test may damage."""
    for name in ("images", "cache", "runs"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def run(made: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the run; the current folder is that of its images, in which a test must not write."""
    monkeypatch.chdir(made)
    (folder,) = (made / "runs").iterdir()
    return load_run(folder)


@pytest.fixture
def other(run: Run) -> Callable[..., Run]:
    """Return a function that returns the run with other entries of its card; None removes one."""

    def make(**entries: Any) -> Run:
        card = {name: value for name, value in (run.card | entries).items() if value is not None}
        return replace(run, card=card)

    return make

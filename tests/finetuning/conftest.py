"""A small network with a fitted head on small pictures, made once and copied for each test."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bottleneck.cache.feature_cache import FeatureCache
from bottleneck.cache.last import Last, save_last
from bottleneck.errors import BottleneckWarning
from bottleneck.extraction.extract import extract
from bottleneck.finetuning.finetune import finetune
from bottleneck.finetuning.recipe import Recipe
from bottleneck.fitting.fit import fit
from bottleneck.runs.run import Run, list_runs, load_run
from tests.conftest import write

MODEL, CROP = "timm/test_resnet", 32
CLASSES = ("blue", "green", "red")
COUNTS = {"train": 12, "val": 6, "test": 6}
SHORT = Recipe(unfreeze=("layer4",), epochs=1, batch_size=8, views=2, precision="fp32", lr=1e-3)
LEARNS = Recipe(unfreeze=("layer4",), epochs=2, batch_size=8, views=1, precision="fp32", lr=1e-3, augment="none")


class Seen:
    """Records the events that it receives."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    def only(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Killed(BaseException):
    """Simulates a kill."""


def picture(label: str, seed: int) -> bytes:
    """Return a PNG of noise with a tint by class, so that heads can learn."""
    import io

    random = np.random.default_rng((CLASSES.index(label) if label in CLASSES else 9, seed))
    pixels = random.integers(0, 200, (12, 12, 3))
    pixels[..., CLASSES[::-1].index(label) if label in CLASSES else 0] += 30
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((40, 36), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def make_images(root: Path, counts: dict[str, int] = COUNTS, classes: tuple[str, ...] = CLASSES) -> Path:
    """Write ``root/split/label/number.png``."""
    for place, (split, count) in enumerate(counts.items()):
        for label in classes:
            for number in range(count):
                write(root / split / label / f"{number:02}.png", picture(label, 1000 * place + number))
    return root


def fitted(root: Path, images: Path, head: str = "logistic", model: str = MODEL, **options: object) -> Run:
    """Extract and fit in a folder."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        warnings.simplefilter("ignore", BottleneckWarning)
        extract(
            images, model=model, weights="none", crop=CROP, resize=CROP, engine="torch", precision="fp32",
            cache=root / "cache", runs=root / "runs",
        )  # fmt: skip
        return fit(head=head, cache=root / "cache", runs=root / "runs", **options)


@pytest.fixture(autouse=True)
def no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curves, which takes half as long as the trainings here; what is made once for all tests has them."""
    monkeypatch.setattr("bottleneck.finetuning.curves.plot", lambda *_, **__: b"not drawn")


def remember(images: Path) -> None:
    """Record images with features in ``cache`` as the last extraction in the current folder."""
    (store,) = FeatureCache("cache").stores()
    save_last(Path("cache"), Last(str(images), True, store.name))


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fitted")
    fitted(root, make_images(root / "images"))
    return root


def copied(source: Path, target: Path, images: Path) -> None:
    """Copy a cache and runs into the current folder."""
    for name in ("cache", "runs"):
        shutil.copytree(source / name, target / name)
    remember(images)
    warnings.filterwarnings("ignore", message=".*random weights", category=BottleneckWarning)


@pytest.fixture
def home(original, tmp_path, monkeypatch) -> Path:
    """Return a temporary folder with a cache and a run, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    copied(original, tmp_path, original / "images")
    return tmp_path


class Finished:
    """A copy of a run and of its fine-tuning, in the current folder, with the events of that."""

    def __init__(self, folder: Path, seen: Seen) -> None:
        self.folder, self.seen = folder, seen
        by_kind = {run.is_tuned: run for run in list_runs(folder / "runs")}
        self.head, self.run = by_kind[False], by_kind[True]


def finished(original: Path, root: Path, recipe: Recipe, **options: Any) -> tuple[Path, Seen]:
    """Fine-tune in a folder; return it, and the events."""
    seen = Seen()
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        copied(original, root, original / "images")
        finetune(recipe=recipe, watch=seen, **options)
    return root, seen


@pytest.fixture(scope="session")
def finished_from_head(original, tmp_path_factory) -> tuple[Path, Seen]:
    return finished(original, tmp_path_factory.mktemp("from-head"), SHORT)


@pytest.fixture(scope="session")
def finished_from_weights(original, tmp_path_factory) -> tuple[Path, Seen]:
    return finished(original, tmp_path_factory.mktemp("from-weights"), LEARNS, begin="weights")


def copy_of(shared: tuple[Path, Seen], original: Path, folder: Path) -> Finished:
    """Copy a finished fine-tuning of the session, so that a test may change it."""
    root, seen = shared
    copied(root, folder, original / "images")
    return Finished(folder, seen)


@pytest.fixture
def tuned(finished_from_head, original, tmp_path, monkeypatch) -> Finished:
    """Return a fine-tuning by `SHORT` that started from the head."""
    monkeypatch.chdir(tmp_path)
    return copy_of(finished_from_head, original, tmp_path)


@pytest.fixture
def learned(finished_from_weights, original, tmp_path, monkeypatch) -> Finished:
    """Return a fine-tuning by `LEARNS` that started from a random layer, and whose last epochs are better."""
    monkeypatch.chdir(tmp_path)
    return copy_of(finished_from_weights, original, tmp_path)


@pytest.fixture
def run(home) -> Run:
    """Return the run whose head is handed back."""
    (found,) = (home / "runs").iterdir()
    return load_run(found)


def change_card(run: Run, **values: object) -> None:
    """Write other values into the card of a run."""
    file = run.path / "card.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

"""Small real files for all tests, and the real photographs if a checkout has them."""

import builtins
import gc
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from bottleneck.backbones.spec import Spec
from bottleneck.images.clock import _in_memory as in_memory
from bottleneck.images.preprocessing import Preprocessing
from tests.browser import Open, chromium, visits
from tests.faults import Wrap

_SUPPRESSED = [HealthCheck.function_scoped_fixture]
_PROFILE = settings(derandomize=True, deadline=None, database=None, max_examples=25, suppress_health_check=_SUPPRESSED)
settings.register_profile("tests", _PROFILE)
settings.load_profile("tests")

SHARED = Path(__file__).parents[2] / "shared" / "data" / "hymenoptera"


def pytest_collection() -> None:
    """Import libraries without garbage collection, which would take a quarter of the time of collecting the tests."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what is imported out of garbage collection, which would look at a million objects each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def photo(seed: int, size: tuple[int, int] = (64, 48), kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of a small picture that no other seed gives: coloured noise, enlarged smoothly."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def write(path: Path, data: bytes, age: float = 60) -> Path:
    """Write a file that was last modified `age` seconds ago, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    past = path.stat().st_mtime - age
    os.utime(path, (past, past))
    return path


@pytest.fixture(autouse=True)
def remembered_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let digests of files in memory be remembered, too: on some systems the temporary folder is there."""
    monkeypatch.setattr("bottleneck.images.clock._in_memory", lambda device: False)


@pytest.fixture
def wrap(monkeypatch: pytest.MonkeyPatch) -> Wrap:
    """Return a function that replaces a call by a wrapper, which gets the replaced function and its arguments.

    It is for faults of the system, which no argument can bring about.
    """

    def install(target: object, name: str, wrapper: Callable[..., object]) -> None:
        call = getattr(target, name, None) or getattr(builtins, name)
        monkeypatch.setattr(target, name, lambda *args, **options: wrapper(call, *args, **options), raising=False)

    return install


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the digests of files that were written just now be remembered, too."""
    monkeypatch.setattr("bottleneck.images.digest.FRESH_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes ``{relative path: bytes or seed}`` below a new folder and returns it."""

    def make(files: dict[str, bytes | int], name: str = "images") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        for relative, content in files.items():
            write(root / relative, photo(content) if isinstance(content, int) else content)
        return root

    return make


@pytest.fixture
def preprocessing() -> Preprocessing:
    return Preprocessing(
        resize=32,
        crop=28,
        interpolation="bilinear",
        antialias=True,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


@pytest.fixture
def spec(preprocessing: Preprocessing) -> Spec:
    return Spec(
        backbone="tiny",
        weights="0" * 64,
        layer="fc:input",
        pooling="avg",
        preprocessing=preprocessing,
        transform_input=False,
        precision="fp32",
        decoder=1,
    )


@pytest.fixture(scope="session")
def hymenoptera() -> Path:
    """Return the folder of real photographs of ants and bees."""
    if not SHARED.is_dir():
        pytest.skip("the real photographs are not beside this checkout (../shared/data/hymenoptera)")
    return SHARED


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in a folder of its own: nothing is left in the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it


@pytest.fixture
def disk() -> Iterator[Path]:
    """Return a temporary folder on a disk: memory maps of files in memory leave no trace in time stamps."""
    with TemporaryDirectory() as folder:
        if in_memory(os.stat(folder).st_dev):
            pytest.skip("the temporary folder of the system is in memory")
        yield Path(folder).resolve()


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Run headless Chromium for all tests of a process."""
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: object) -> Iterator[Open]:
    """Return a function that opens an address or a file in Chromium, see `tests.browser.visits`."""
    with visits(browser) as opening:
        yield opening

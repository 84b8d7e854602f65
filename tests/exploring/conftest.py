"""Small images with made-up features, explored in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from bottleneck.backbones.spec import Spec
from bottleneck.exploring.app import create_app
from bottleneck.exploring.server import open_session
from bottleneck.exploring.session import ExplorerSession
from bottleneck.images.preprocessing import Preprocessing
from tests.auditing.conftest import cache_features, with_wrong_labels

PORT = 8766
TOKEN = "the-token"
NAMES, FEATURES = with_wrong_labels(40)

Explored = Callable[..., ExplorerSession]


def here(function: Callable[..., Any], *arguments: Any, report: Callable[[float], None]) -> Any:
    """Run what a child process would run in this one."""
    return function(*arguments, report)


@pytest.fixture
def images(spec: Spec) -> None:
    """Write images of two classes, with features, into the current folder."""
    cache_features(spec, NAMES, FEATURES)


@pytest.fixture
def explored() -> Iterator[Explored]:
    """Return a function that opens a session on ``images/``; all are closed in the end."""
    opened = []

    def make(images: object = "images", **options: Any) -> ExplorerSession:
        session = open_session(images, **{"run_child": here, "tsne": False, "head": "ridge", **options})
        opened.append(session)
        return session

    yield make
    for session in opened:
        for task in (*session.tasks.values(), *session.maps.tasks.values()):
            task.wait()
        session.close()


@pytest.fixture
def session(images: None, explored: Explored) -> ExplorerSession:
    """Return a session whose maps and predictions are ready."""
    found = explored()
    found.start()
    for task in (*found.maps.tasks.values(), found.tasks["refit"]):
        task.wait()
    return found


@pytest.fixture
def client(session: ExplorerSession) -> TestClient:
    """Return a browser that knows the token."""
    return browser(session)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExplorerSession]:
    """Return a session that several tests use, because they change nothing."""
    root = tmp_path_factory.mktemp("shown")
    pixels = Preprocessing(
        resize=32, crop=28, interpolation="bilinear", antialias=True, mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0)
    )
    spec = Spec(
        backbone="tiny",
        weights="0" * 64,
        layer="fc:input",
        pooling="avg",
        preprocessing=pixels,
        transform_input=False,
        precision="fp32",
        decoder=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        cache_features(spec, NAMES, FEATURES)
    session = open_session(
        root / "images", cache=root / "cache", labels=root / "labels.csv", run_child=here, tsne=False, head="ridge"
    )
    session.start()
    for task in (*session.maps.tasks.values(), session.tasks["refit"]):
        task.wait()
    yield session
    session.close()


@pytest.fixture
def page(shown: ExplorerSession) -> TestClient:
    """Return a browser for tests that change nothing."""
    return browser(shown)


def browser(session: ExplorerSession, static: Path = Path("static")) -> TestClient:
    """Return a browser that knows the token of a server without a network."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    app = create_app(session, TOKEN, PORT, static=static)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers=headers, raise_server_exceptions=False)


def cosines(rows: NDArray[np.float32], row: int) -> NDArray[np.float64]:
    """Return the cosine similarity of one row with all, by NumPy."""
    exact = rows.astype(np.float64)
    units = exact / np.linalg.norm(exact, axis=1)[:, None]
    return units @ units[row]

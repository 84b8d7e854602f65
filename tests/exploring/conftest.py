"""Small images with made-up features, explored in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from bottleneck.backbones.spec import Spec
from bottleneck.exploring.app import create_app
from bottleneck.exploring.server import open_session
from bottleneck.exploring.session import ExplorerSession
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
        session = open_session(images, **{"run_child": here, "tsne": False, **options})
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
def client(session: ExplorerSession, tmp_path: Path) -> TestClient:
    """Return a browser that knows the token."""
    app = create_app(session, TOKEN, PORT, static=tmp_path / "static")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers=headers, raise_server_exceptions=False)


def cosines(rows: "np.typing.NDArray[np.float32]", row: int) -> "np.typing.NDArray[np.float64]":
    """Return the cosine similarity of one row with all, by NumPy."""
    exact = rows.astype(np.float64)
    units = exact / np.linalg.norm(exact, axis=1)[:, None]
    return units @ units[row]

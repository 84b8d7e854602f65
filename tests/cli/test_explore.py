import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import ImageError
from bottleneck.exploring.searching import PictureEmbedder
from bottleneck.exploring.server import open_session
from tests.cli.conftest import run


@pytest.fixture
def stopped(monkeypatch):
    """Let the server stop at once, as by Ctrl-C; return the addresses that the browser would open."""
    opened = []

    def interrupted(server, sockets):
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.Server.run", interrupted)
    monkeypatch.setattr("click.launch", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    return opened


def test_the_address_is_printed_and_opened_and_nothing_is_left(extracted, stopped):
    out, err = run("explore")
    assert out == ""
    (address,) = stopped
    assert address.startswith("http://127.0.0.1:")
    assert f"open {address}" in err
    assert "images: images" in err
    assert "labels: labels-images.csv" in err
    out, err = run("explore", "images", "--no-open", "--labels", "mine.csv", "--json")
    found = json.loads(out)
    assert found["url"].partition("?token=")[0].startswith("http://127.0.0.1:")
    assert found["labels"] == "mine.csv"
    assert len(stopped) == 1
    assert not list(Path().glob("*.csv*"))


def test_what_cannot_be_explored_is_said(extracted):
    Path("notes.csv").write_text("my notes\n")
    for words, code, message in (
        ("nowhere", 1, "nowhere"),
        ("images --port 70000", 2, "70000"),
        ("images --labels mine.txt", 1, "expected a table FILE.csv"),
        ("images --labels notes.csv", 1, "expected a table of labels from `explore`"),
        ("run:none", 1, "none"),
        ("images --model resnet18", 1, "bottleneck extract"),
    ):
        assert message in run("explore", *words.split(), "--no-open", code=code)[1], words


def test_missing_libraries_are_named_with_the_line_that_installs_them(extracted, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    assert "pip install 'bottleneck-vision[explore]'" in run("explore", code=1)[1]


def test_a_picture_that_is_searched_has_the_features_that_were_extracted(extracted):
    session = open_session("images", tsne=False)
    embedder = PictureEmbedder(session.store, None, session.cache)
    data = Path(session.images.paths[3]).read_bytes()
    expected, found = session.features.take(slice(3, 4))[0], embedder(data)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert session.features.nearest(found, 1)[0][0] == 3
    with pytest.raises(ImageError):
        embedder(data[:200])
    embedder.close()
    session.close()

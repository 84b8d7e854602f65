"""``bottleneck report``."""

import json
import sys
from pathlib import Path

import click

from tests.cli.conftest import run
from tests.variants import each


def test_a_page_is_written_beside_the_runs(fitted):
    (name,) = [folder.name for folder in Path("runs").iterdir()]
    _, said = run("report", "--no-audit", "--pictures", 3)
    page = Path(f"report-{name}.html")
    assert page.read_text().startswith("<!doctype html>")
    assert f"{page}: " in said
    assert "3 pictures" in said
    assert "the only run" in said


def test_the_result_is_one_json_object(fitted):
    (name,) = [folder.name for folder in Path("runs").iterdir()]
    found = json.loads(run("report", f"run:{name}", "--out", "page.html", "--json")[0])
    assert found["report"] == "page.html"
    assert found["bytes"] == Path("page.html").stat().st_size
    assert (found["audited"], found["missing"]) == (True, 0)


@each(
    "words, code, message",
    [
        (("--out", "page.csv"), 2, "expected --out FILE.html"),
        (("--pictures", "-1"), 2, "pictures"),
        (("nothing",), 1, "expected a run"),
        (("--out", "runs/"), 2, "expected --out FILE.html"),
    ],
)
def test_what_cannot_be_done_is_said(words, code, message, fitted):
    assert message in "".join(run("report", *words, code=code))
    assert list(Path().glob("*.html")) == []


def test_the_page_is_opened_on_request_if_there_is_a_display(fitted, wrap, monkeypatch):
    opened = []
    wrap(click, "launch", lambda call, address: opened.append(address))
    monkeypatch.setenv("DISPLAY", ":0")
    run("report", "--no-audit", "--out", "page.html", "--open")
    assert opened == ["page.html"]
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    _, err = run("report", "--no-audit", "--out", "page.html", "--open")
    assert len(opened) == 1 + (sys.platform != "linux")
    assert "no browser is opened" in err or sys.platform != "linux"

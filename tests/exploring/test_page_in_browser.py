"""The explorer's page in Chromium, on the real server: what people do with it, and what it must not do."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

import bottleneck
from bottleneck.backbones.spec import Spec
from bottleneck.exploring.app import create_app
from bottleneck.exploring.server import bound_socket
from bottleneck.exploring.session import ExplorerSession
from tests.auditing.conftest import cache_features, class_features
from tests.browser import Open, needs_chromium, overflow, serious_faults
from tests.exploring.conftest import NAMES, TOKEN, Explored, cosines

pytestmark = [needs_chromium, pytest.mark.browser]

Served = Callable[[ExplorerSession], str]
MARGIN = 0.05  # of the window, around the map


@pytest.fixture
def served() -> Iterator[Served]:
    """Return a function that serves a session in a thread, and returns its address."""
    running: list[tuple[uvicorn.Server, threading.Thread, Any]] = []

    def start(session: ExplorerSession) -> str:
        listening = bound_socket(0)
        port = listening.getsockname()[1]
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(session, TOKEN, port), log_level="error", lifespan="off", timeout_graceful_shutdown=1
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        return f"http://127.0.0.1:{port}/?token={TOKEN}"

    yield start
    for server, thread, listening in running:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture
def page(session: ExplorerSession, served: Served, visit: Open) -> Any:
    """Return the page of 80 images of two classes, when the map is there."""
    return ready(visit(served(session)))


def ready(page: Any) -> Any:
    page.wait_for_selector("#layouts button[aria-pressed=true]")
    page.wait_for_selector("#legend li", state="attached")  # it is folded on phones
    return page


def on_screen(session: ExplorerSession, page: Any) -> np.ndarray:
    """Return where the page shows each image, as pixels of the window ``(n, 2)``: all of the map, in the middle."""
    box = page.locator("#above").bounding_box()
    points = session.maps.layouts["pca"].points
    low, high = points.min(axis=0), points.max(axis=0)
    window = np.array([box["width"], box["height"]])
    scale = (window / (high - low)).min() * (1 - 2 * MARGIN)
    return (points - (low + high) / 2) * scale + window / 2 + [box["x"], box["y"]]


def accuracy(page: Any) -> float:
    return float(page.locator("#model strong").inner_text().removesuffix(" %"))


def labels_in(table: Path) -> list[str]:
    with table.open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def message(page: Any, text: str) -> None:
    page.locator("#messages", has_text=text).wait_for()


def open_card(page: Any, session: ExplorerSession, row: int) -> None:
    """Click an image on the map, alone in its neighbourhood or not, and wait for the card."""
    page.mouse.click(*on_screen(session, page)[row].tolist())
    page.locator("#panel-image .path").wait_for()


def test_the_lasso_selects_the_images_inside_of_it(page: Any, session: ExplorerSession) -> None:
    places = on_screen(session, page)
    left, right = places[:, 0].min() - 5, float(np.median(places[:, 0]))
    top, bottom = places[:, 1].min() - 5, places[:, 1].max() + 5
    inside = int((places[:, 0] < right).sum())

    page.keyboard.press("l")
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom)):
        page.mouse.move(*corner)
    page.mouse.up()

    page.locator("#selected-count", has_text=f"{inside} images").wait_for()
    assert 10 < inside < 70
    assert 0 < page.locator(".cell").count() <= inside


def test_the_neighbours_on_a_card_are_those_that_numpy_computes(page: Any, session: ExplorerSession) -> None:
    open_card(page, session, 33)
    path = page.locator("#panel-image .path").inner_text()
    row = [session.file_of(row) for row in range(80)].index(path)
    by_cosine = np.argsort(-cosines(session.features.take(slice(None)), row), kind="stable")

    shown = [int(one.get_attribute("data-row")) for one in page.locator(".neighbours button").all()]
    assert shown == [other for other in by_cosine.tolist() if other != row][:12]


def test_labels_are_edited_undone_and_redone_by_the_keyboard_alone(page: Any, session: ExplorerSession) -> None:
    page.keyboard.press("a")
    page.locator("#selected-count", has_text="80 images").wait_for()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#panel-image .path").wait_for()
    page.locator("#selected-count", has_text="1 image").wait_for()  # what is opened is selected alone
    page.keyboard.press("a")
    page.keyboard.press("r")
    page.keyboard.type("wasp")
    page.keyboard.press("Enter")
    message(page, "80 images labelled wasp. Saved.")
    assert labels_in(session.labels_file.path) == ["wasp"] * 80

    page.keyboard.press("Control+z")
    message(page, "Undone: label 80 images wasp.")
    assert sorted(set(session.annotations.labels), key=str) == ["ant", "bee"]
    page.keyboard.press("Control+Shift+z")
    message(page, "Done again: label 80 images wasp.")
    page.keyboard.press("Control+z")
    message(page, "Undone")
    page.keyboard.press("x")
    message(page, "80 images excluded. Saved.")
    assert session.annotations.excluded.all()


def test_a_finding_is_opened_and_its_label_accepted(page: Any, session: ExplorerSession) -> None:
    page.keyboard.press("g")
    line = page.locator("#panel-findings details", has_text="Probable label errors").locator("li").first
    line.wait_for(timeout=20_000)
    line.locator("button.thumb").first.click()
    card = page.locator("#panel-image")
    card.locator(".finding").wait_for()
    was = card.locator("dd").first.inner_text()
    card.locator(".finding button").click()
    message(page, "1 image labelled")
    card.locator("dd", has_text=f"was {was}").wait_for()
    assert {session.annotations.original[row] for row in range(80) if session.annotations.is_edited(row)} == {was}


def test_a_head_is_trained_on_the_edited_labels(page: Any, session: ExplorerSession) -> None:
    wrong = [row for row, path in enumerate(session.images.paths) if path[-7:-4] in ("010", "020", "050")]
    before = accuracy(page)
    for row in wrong:
        other = {"ant": "bee", "bee": "ant"}[str(session.images.labels[row])]
        session.edit("label", other, [row])
    page.keyboard.press("f")
    message(page, "Accuracy")
    assert len(wrong) == 3
    assert accuracy(page) > before
    assert f"Accuracy {accuracy(page)} %" in page.locator("#messages").inner_text()


def test_filters_hide_categories_and_numbers(page: Any, session: ExplorerSession) -> None:
    ants = sum(label == "ant" for label in session.images.labels)
    page.locator("#legend li", has_text="bee").locator("input").uncheck()
    page.keyboard.press("a")
    page.locator("#selected-count", has_text=f"{ants} images").wait_for()
    page.locator("#show-all").click()
    page.keyboard.press("a")
    page.locator("#selected-count", has_text="80 images").wait_for()
    page.locator("#colour-by").select_option("confidence")
    assert session.guesses is not None
    middle = float(np.median(session.guesses.shares[:, 0]))
    page.locator("#legend input[type=range]").first.fill(str(middle))
    page.locator("#select-visible").click()
    assert 36 <= int(page.locator("#selected-count").inner_text().split()[0]) <= 44  # the slider has steps


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(360, 740), (1920, 1080)])
def test_the_page_is_accessible_at_each_size_in_light_and_dark(
    session: ExplorerSession, served: Served, visit: Open, size: tuple[int, int], scheme: str
) -> None:
    page = ready(visit(served(session), size, scheme=scheme))
    assert overflow(page) <= 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 23, 26)") == (scheme == "dark")
    page.keyboard.press("a")
    page.locator(".cell").first.click()
    page.locator("#panel-image .neighbours button").first.wait_for()
    assert serious_faults(page) == []
    page.keyboard.press("?")
    assert serious_faults(page) == []


def test_names_of_classes_are_text_in_any_script(spec: Spec, explored: Explored, served: Served, visit: Open) -> None:
    # A folder cannot have a slash in its name; a label that is typed can.
    names = ("<script>alert(1)<", "نمل & نحل", "蚂蚁")
    codes = [number % 3 for number in range(30)]
    cache_features(spec, [f"{names[code]}/{number}.jpg" for number, code in enumerate(codes)], class_features(codes))
    session = explored()
    session.start()
    session.maps.tasks["pca"].wait()
    page = ready(visit(served(session)))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))

    assert {one.inner_text() for one in page.locator("#legend li bdi").all()} == set(names)
    page.keyboard.press("a")
    page.locator(".cell").first.click()
    page.keyboard.press("r")
    page.keyboard.type("<img src=x onerror=alert(2)>")
    page.keyboard.press("Enter")
    message(page, "<img src=x onerror=alert(2)>")
    assert page.locator("script").count() == 1
    page.locator("#panel-image dd", has_text="<img src=x onerror=alert(2)>").wait_for()
    assert page.locator("#panel-image dd img").count() == 0


def test_a_file_that_is_no_picture_is_refused_in_words(
    session: ExplorerSession, served: Served, browser: Any, tmp_path: Path
) -> None:
    page = browser.new_page()  # not by `visit`, for the browser logs each request that is refused
    page.goto(served(session))
    ready(page)
    (tmp_path / "not.jpg").write_text("no picture")
    page.locator("#picture-file").set_input_files(tmp_path / "not.jpg")
    message(page, "Cannot search by this file")
    assert page.locator("#messages.problem").count() == 1
    page.close()


def test_an_edit_survives_the_death_of_the_server_and_is_read_by_fit(images: None, browser: Any) -> None:
    command = [sys.executable, "-m", "bottleneck", "explore", "images", "--no-open", "--json", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(bottleneck.__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as server:
        try:
            started = label_ants_as_wasps_and_kill(server, browser)
        finally:
            server.kill()

    ants = sum(name.startswith("ant/") for name in NAMES)
    assert sorted(labels_in(Path(started["labels"]))) == ["bee"] * (80 - ants) + ["wasp"] * ants
    run = bottleneck.fit(started["labels"], head="centroid")
    assert run.card["dataset"]["labels"] == {"bee": 80 - ants, "wasp": ants}


def label_ants_as_wasps_and_kill(server: "subprocess.Popen[bytes]", browser: Any) -> dict[str, str]:
    """Return what the server printed when it started."""
    assert server.stdout is not None
    started: dict[str, str] = json.loads(server.stdout.readline())
    page = browser.new_page()  # not by `visit`, for the browser logs that the server is gone
    page.goto(started["url"])
    ready(page)
    page.locator("#legend li", has_text="bee").locator("input").uncheck()
    page.keyboard.press("a")
    page.keyboard.press("r")
    page.keyboard.type("wasp")
    page.keyboard.press("Enter")
    message(page, "labelled wasp. Saved.")
    server.send_signal(signal.SIGKILL)
    server.wait()
    page.keyboard.press("Control+z")
    page.locator("#gone").wait_for()
    message(page, "Not saved")
    page.close()
    return started

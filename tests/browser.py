"""Pages in headless Chromium, driven by Playwright: none may log an error or send a request to another origin."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
EXECUTABLE = os.environ.get("BOTTLENECK_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
# Chromium's own requests would find no network, and its sandbox cannot start for root.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)
SIZE = (1280, 900)
SERIOUS = ("serious", "critical")

needs_chromium = pytest.mark.skipif(
    EXECUTABLE is None or find_spec("playwright") is None,
    reason="needs Chromium and playwright: `apt-get install chromium`, `pip install -e '.[dev]'`",
)


@dataclass
class Visit:
    """What a page did that it must not do."""

    origin: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def watch(self, page: Any) -> None:
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._is_own(request.url) or self.foreign.append(request.url))

    def _is_own(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in ("data", "blob") or url.startswith(self.origin)


Open = Callable[..., Any]


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; it is closed in the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=EXECUTABLE, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visits(browser: Any) -> Iterator[Open]:
    """Yield a function that opens an address or a file as a page, and check in the end what the pages did."""
    seen: list[tuple[Any, Visit]] = []

    def visit(address: str | Path, size: Sequence[int] = SIZE, *, scheme: str = "light", **options: Any) -> Any:
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        parts = urlsplit(url)
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        page = context.new_page()
        done = Visit(url if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}/")
        done.watch(page)
        seen.append((context, done))
        page.goto(url)
        return page

    try:
        yield visit
    finally:
        for context, _ in seen:
            context.close()
    assert {error for _, done in seen for error in done.errors} == set()
    assert {url for _, done in seen for url in done.foreign} == set()


def serious_faults(page: Any) -> list[str]:
    """Return what axe-core calls serious or critical, as ``rule: the first element``."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS]


def overflow(page: Any) -> int:
    """Return by how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

"""Make the pictures of the README: the real report and the real explorer, of the digits that come with scikit-learn.

``make pictures`` works in a temporary folder, opens both pages in Chromium, and writes docs/assets/report.png and
docs/assets/explore.png.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bottleneck.demo.digits import write_digits  # noqa: E402
from tests.browser import chromium  # noqa: E402

ASSETS = ROOT / "docs" / "assets"
SIZE = {"width": 1200, "height": 750}
COLOURS = 128  # of a picture, so that it is small
DIGIT = 7  # whose card is shown
COMMAND = [sys.executable, str(ROOT / "cli.py")]


def main() -> None:
    """Write both pictures."""
    with TemporaryDirectory() as home, chromium() as browser:
        write_digits(Path(home) / "digits")
        for command in (["extract", "digits"], ["fit"], ["report", "--out", "report.html"]):
            subprocess.run([*COMMAND, *command], cwd=home, check=True)
        page = browser.new_page(viewport=SIZE)
        page.goto((Path(home) / "report.html").as_uri())
        page.locator("h2", has_text="Mistakes").scroll_into_view_if_needed()
        page.mouse.wheel(0, 350)
        save(page, "report.png")
        with explorer(home) as address:
            page.goto(address)
            explore(page)
            save(page, "explore.png")


@contextmanager
def explorer(home: str) -> Iterator[str]:
    """Serve the digits, and yield the address."""
    command = [*COMMAND, "explore", "digits", "--no-open", "--json", "--port", "0"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()


def explore(page: Any) -> None:
    """Wait for the map by t-SNE, colour it by label, and open the card of a digit."""
    page.locator("#layouts button[aria-pressed=true]", has_text="t-SNE").wait_for(timeout=120_000)
    page.locator("#model strong").wait_for(timeout=60_000)
    line = page.locator("#legend li").nth(DIGIT)
    line.hover()
    line.get_by_text("select").click()
    page.locator(".cell").first.click()
    page.locator(".neighbours img").first.wait_for()
    page.locator("#action-clear").click()
    page.mouse.move(0, 0)
    page.wait_for_timeout(2000)


def save(page: Any, name: str) -> None:
    """Write what a page shows as a small PNG."""
    page.wait_for_timeout(500)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(ASSETS / name, optimize=True)


if __name__ == "__main__":
    main()

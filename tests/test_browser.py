"""The harness itself: a page that logs an error or asks another origin is found."""

from pathlib import Path

import pytest

from tests.browser import needs_chromium, overflow, serious_faults, visits
from tests.variants import each

pytestmark = [needs_chromium, pytest.mark.browser]


@each(
    "script",
    {
        "an error": "throw new Error('wrong')",
        "a logged error": "console.error('wrong')",
        "a foreign picture": "new Image().src = 'http://127.0.0.1:9/x.png'",
    },
)
def test_pages_that_do_what_they_must_not_are_found(tmp_path: Path, browser: object, script: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><html lang='en'><title>t</title><script>{script}</script>")
    with pytest.raises(AssertionError), visits(browser) as visit:
        visit(page).wait_for_timeout(100)


def test_faults_of_accessibility_and_width_are_found(tmp_path: Path, browser: object) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>t</title><img src='data:,' style='width: 2000px; height: 9px'>")
    with visits(browser) as visit:
        opened = visit(page, (360, 640))
        assert [fault.partition(":")[0] for fault in serious_faults(opened)] == ["html-has-lang", "image-alt"]
        assert overflow(opened) > 1600

"""The page of a comparison in Chromium: at every width, in both schemes, with any names."""

import pytest

from bottleneck.reporting.comparison import comparison_page
from tests.browser import needs_chromium, overflow, serious_faults
from tests.comparison.boards import HOSTILE

pytestmark = [needs_chromium, pytest.mark.browser]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "comparison.html"
    path.write_text(comparison_page(HOSTILE), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1920, "light")])
def test_it_fits_and_is_accessible(visit, file, width, scheme):
    page = visit(file, (width, 800), scheme=scheme)

    assert overflow(page) == 0
    assert serious_faults(page) == []
    assert page.locator("script").count() == 1


def test_the_table_is_sorted_with_the_keyboard(visit, file):
    page = visit(file)
    button = page.get_by_role("button", name="held-out")
    button.focus()
    page.keyboard.press("Enter")

    assert page.locator("tbody tr").first.locator("td").nth(2).inner_text() == "50.0%"

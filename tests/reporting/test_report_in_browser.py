"""The report in Chromium: by keyboard, at any width, in light and dark, on paper, and without a script."""

import pytest

from bottleneck.reporting.report import report
from tests.browser import needs_chromium, overflow, serious_faults
from tests.reporting.conftest import CLASSES

pytestmark = [needs_chromium, pytest.mark.browser]


@pytest.fixture(scope="session")
def written(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("pages") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        report(out=out)
    return out


def wrong_cell(page):
    return page.locator(".matrix td.bad a").first


def test_a_cell_of_the_confusion_matrix_opens_its_pictures(written, visit):
    page = visit(written)
    assert page.locator(".opened:visible").count() == 0
    count = int(wrong_cell(page).inner_text())
    wrong_cell(page).click()
    (opened,) = page.locator(".opened:visible").all()
    assert opened.locator(".frame .picture").count() == count
    assert f"{count} image" in opened.locator("h3").inner_text()
    shown = opened.locator(".frame .picture").first
    assert "data:image/jpeg" in shown.evaluate("one => getComputedStyle(one).backgroundImage")
    assert min(shown.bounding_box()["width"], shown.bounding_box()["height"]) > 60
    opened.get_by_text("Close").click()
    assert page.locator(".opened:visible").count() == 0


def test_everything_is_reached_by_keyboard(written, visit):
    page = visit(written)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"
    wrong_cell(page).focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator(".opened:visible").count() == 1
    assert page.evaluate("document.activeElement.className") == "opened"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.innerText") == "Close"


def test_tables_are_sorted_by_their_headings(written, visit):
    page = visit(written)
    recall = page.locator("table.sortable th button", has_text="recall")
    for order in ("ascending", "descending"):
        recall.press("Enter")
        shares = page.locator("table.sortable tbody td:nth-child(4)").evaluate_all(
            "all => all.map(one => +one.dataset.value)"
        )
        assert shares == sorted(shares, reverse=order == "descending")
        assert page.locator("table.sortable th:nth-child(4)").get_attribute("aria-sort") == order


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_needs_scrolling_sideways_and_axe_finds_no_serious_fault(scheme, written, visit):
    page = visit(written, (360, 800), scheme=scheme)
    wrong_cell(page).click()
    assert overflow(page) == 0
    page.set_viewport_size({"width": 1920, "height": 1000})
    assert overflow(page) == 0
    assert serious_faults(page) == []


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_page_follows_the_system_and_can_be_switched(written, visit):
    page = visit(written, scheme="dark")
    dark = ground(page)
    page.get_by_role("button", name="Light", exact=True).click()
    light = ground(page)
    assert dark != light
    page.emulate_media(media="print")
    assert ground(page) == light


def test_names_of_classes_do_nothing_and_are_shown_as_they_are(written, visit):
    page = visit(written)
    page.on("dialog", lambda dialog: pytest.fail("a name of a class was run as a script"))
    headings = page.locator(".matrix tbody th bdi").all_inner_texts()
    assert sorted(headings) == sorted(CLASSES)
    arabic = page.locator(".matrix tbody th bdi", has_text=CLASSES[1])
    assert arabic.evaluate("one => getComputedStyle(one).direction") == "rtl"
    assert page.locator("script").count() == 1


def test_on_paper_pictures_are_printed_and_controls_are_not(written, visit):
    page = visit(written, scheme="dark")
    dark = ground(page)
    page.emulate_media(media="print")
    assert ground(page) != dark
    assert page.locator(".theme:visible, nav:visible").count() == 0
    picture = page.locator(".frame .picture").first
    assert picture.evaluate("one => getComputedStyle(one).printColorAdjust") == "exact"
    assert page.pdf()[:5] == b"%PDF-"


def test_without_scripts_the_page_is_complete(written, visit):
    page = visit(written, java_script_enabled=False)
    wrong_cell(page).click()
    assert page.locator(".opened:visible").count() == 1
    assert page.locator(".theme").count() == 0

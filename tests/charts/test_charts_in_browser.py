"""Charts in Chromium: texts are inside, do not cover each other, and small pictures are shown."""

import numpy as np
import pytest

from bottleneck.charts.heatmap import heatmap
from bottleneck.charts.line import MarkedPoint, Series, line_chart
from bottleneck.charts.reliability import ReliabilityBin, reliability_chart
from bottleneck.charts.rows import ChartRow, interval_chart
from bottleneck.charts.scatter import ScatterPoint, scatter_chart
from bottleneck.images.scan import scan
from tests.browser import needs_chromium, overflow, serious_faults
from tests.conftest import photo, write

pytestmark = [needs_chromium, pytest.mark.browser]

LONG = "mobilenet_v3_small@none · logistic regression of many WORDS"
NAMES = ["ants", "شجرة التفاح", "<script>alert(1)</script>", LONG, "MMMMMMMMMMMM", "w" * 40, "ijlijlijl", "0123456789"]
ROWS = [ChartRow(label=name, estimate=0.5, low=0.4, high=0.6, note="not told apart", tone="strong") for name in NAMES]
CHARTS = {
    "lines": line_chart(
        [
            Series(name, np.geomspace(1e-6, 100, 9), np.linspace(0.8, 0.999, 9) - 0.05 * i)
            for i, name in enumerate(NAMES)
        ],
        title="t",
        x_label="C",
        y_label="cross-validated accuracy",
        log_x=True,
        marks=[MarkedPoint(1.0, 0.9, "the smallest C within one standard error of the best")],
    ),
    "large numbers": line_chart(
        [Series("a", [0, 123_456_789], [-1e6, 2e6])], title="t", x_label=LONG, y_label=LONG, percent_y=False
    ),
    "intervals": interval_chart(ROWS, title="t", x_label="accuracy"),
    "points": scatter_chart(
        [ScatterPoint(name, 10.0**i, 0.9 + 0.01 * i, True) for i, name in enumerate(NAMES)],
        title="t",
        x_label="seconds",
        y_label="accuracy",
        log_x=True,
    ),
    "matrix": heatmap([(i, j, 12 if i == j else 1) for i in range(8) for j in range(8)], NAMES, title="t"),
    "reliability": reliability_chart([ReliabilityBin(0.9, 0.8, 9)], title="t"),
}
# The texts that are outside of their chart, or cover another text of it by more than a pixel.
FAULTS = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const box = one => one.getBoundingClientRect();
  const frame = box(svg), texts = [...svg.querySelectorAll('text')];
  const out = texts.filter(one => box(one).left < frame.left - 1 || box(one).right > frame.right + 1
    || box(one).top < frame.top - 1 || box(one).bottom > frame.bottom + 1);
  const covers = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
  const over = texts.filter((one, i) => texts.slice(i + 1).some(other => covers(box(one), box(other))));
  return [...out.map(one => 'outside: ' + one.textContent), ...over.map(one => 'covers another: ' + one.textContent)]
    .map(text => svg.parentElement.id + ': ' + text);
})"""
STYLE = "body{font-family:'DejaVu Sans',sans-serif;color:#222;background:#fff}main>div{margin:1rem 0}"


def document(body: str) -> str:
    head = f"<meta charset='utf-8'><title>charts</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body><main><h1>charts</h1>{body}</main></body></html>"


def test_texts_are_inside_of_their_chart_and_do_not_cover_each_other(visit, tmp_path):
    page = tmp_path / "charts.html"
    body = "".join(f"<div id='{name}'>{chart}</div>" for name, chart in CHARTS.items())
    page.write_text(document(body), encoding="utf-8")
    wide, narrow = visit(page), visit(page, (360, 640))

    assert wide.evaluate(FAULTS) == []
    assert overflow(narrow) == 0
    assert serious_faults(narrow) == []


def test_the_pictures_of_a_contact_sheet_are_shown(visit, tmp_path):
    for number in range(3):
        write(tmp_path / "images" / f"{number}.jpg", photo(number))
    page = tmp_path / "sheet.html"
    page.write_text(document(scan(tmp_path / "images", labels=False).show(size=64).to_html()), encoding="utf-8")
    shown = visit(page, (360, 640))

    assert shown.evaluate("[...document.images].map(one => [one.naturalWidth, one.naturalHeight])") == [[64, 48]] * 3
    assert shown.get_by_text("1", exact=True).is_visible()
    assert overflow(shown) == 0
    assert serious_faults(shown) == []

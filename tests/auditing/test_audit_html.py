"""Audits and suggestions in a notebook."""

from bottleneck.auditing.audit_html import findings_html
from bottleneck.auditing.findings import Finding
from bottleneck.utils.files import sha256_hex
from tests.conftest import photo, write
from tests.markup import parsed, tables, text_in


def finding(path, data, **changes):
    made = {"kind": "label error", "split": "train", "label": "<a>", "suggested": "b", "score": 1.0, "reason": "why"}
    return Finding(path=str(path), digest=sha256_hex(data), **{**made, **changes})


def test_findings_are_counted_and_the_first_are_shown_with_their_reasons(tmp_path):
    found = [finding(write(tmp_path / f"{seed}.jpg", photo(seed)), photo(seed)) for seed in range(8)]
    gone = finding(tmp_path / "gone.jpg", b"", kind="outlier", label=None, suggested=None)
    html = findings_html([*found, gone])

    assert tables(html)[0][1:] == [
        ["label error", "8"], ["exact duplicate", "0"], ["near duplicate", "0"], ["outlier", "1"], ["bad picture", "0"],
    ]  # fmt: skip
    assert len(list(parsed(html).iter("img"))) == 6
    assert "<a> → b" in text_in(html)
    assert "2 more images left out" in text_in(html)
    assert "unreadable" in text_in(html)
    assert f"{tmp_path / '0.jpg'}: why" in {figure.attrib["title"] for figure in parsed(html).iter("figure")}

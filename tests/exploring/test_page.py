"""The built page belongs to its sources, and is all that is shipped."""

import hashlib
import re
from pathlib import Path

import bottleneck.exploring
from bottleneck.exploring.app import STATIC

SOURCES = Path(bottleneck.exploring.__file__).parent / "page" / "src"


def test_the_built_page_is_that_of_its_sources() -> None:
    """`make page` builds it again."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    built = (STATIC / "index.html").read_text()
    assert re.findall('name="sources" content="(.*?)"', built) == [digest.hexdigest()]


def test_the_page_asks_nobody_else_and_makes_no_markup_of_texts() -> None:
    built = "".join(file.read_text() for file in STATIC.iterdir())
    assert sorted(file.name for file in STATIC.iterdir()) == ["index.html", "main.js", "style.css"]
    assert set(re.findall(r"https?://[^\"'\s)]*", built)) == set()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", built)


def test_sources_are_short() -> None:
    assert max(len(file.read_text().splitlines()) for file in SOURCES.iterdir()) <= 400

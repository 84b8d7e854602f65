"""The frame of all pages: what users wrote is text, and nothing is loaded."""

import base64
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from jinja2 import DictLoader, TemplateRuntimeError, UndefinedError

from bottleneck.reporting import page as pages
from bottleneck.reporting.page import page, percent, thousands

_TEMPLATE = (
    '{% extends "base.html" %}{% block title %}T{% endblock %}{% block main %}<p title="MORE">MORE</p>{% endblock %}'
)


@contextmanager
def template(body: str) -> Iterator[str]:
    """Add a template whose main part has this expression, also in an attribute; yield its name."""
    environment = pages._environment()
    loader = environment.loader
    text = _TEMPLATE.replace("MORE", body)
    environment.loader = DictLoader({"base.html": loader.get_source(environment, "base.html")[0], "new.html": text})
    environment.cache.clear()
    try:
        yield "new.html"
    finally:
        environment.loader = loader
        environment.cache.clear()


def test_texts_of_users_are_escaped_in_every_template() -> None:
    with template("{{ name }}") as name:
        found = page(name, name='"><script>alert(1)</script>\x1b[2J\u202e\udcff')
    assert '<p title="&#34;&gt;&lt;script&gt;' in found
    assert "<script>alert" not in found
    assert r"\x1b[2J\u202e\xff" in found


def test_markup_of_charts_stays_markup() -> None:
    class Chart(str):
        def __html__(self) -> str:
            return str(self)

    with template("{{ chart }}") as name:
        assert '<p title="<svg>\u200f</svg>' in page(name, chart=Chart("<svg>\u200f</svg>"))


def test_a_variable_that_is_missing_is_an_error() -> None:
    with template("{{ nothing }}") as name, pytest.raises(UndefinedError, match="nothing"):
        page(name)


def test_a_page_allows_its_own_script_only_and_loads_nothing() -> None:
    with template("text") as name:
        found = page(name)
    (script,) = re.findall(r"<script>(.*?)</script>", found, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src &#39;none&#39;; img-src data:" in found
    assert f"script-src &#39;sha256-{digest}&#39;" in found
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", found)


def test_a_page_needs_a_title_and_a_main_part() -> None:
    with template("x") as name:
        environment = pages._environment()
        environment.loader.mapping[name] = '{% extends "base.html" %}'
        with pytest.raises(TemplateRuntimeError, match="title"):
            page(name)


def test_numbers_are_formatted_as_in_the_terminal() -> None:
    assert [percent(0.9534), percent(None), percent(0.9, 0)] == ["95.3%", "–", "90%"]
    assert [thousands(1234), thousands(117.8), thousands(4.0)] == ["1,234", "117.8", "4"]

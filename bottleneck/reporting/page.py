"""Self-contained HTML pages: one file without any request, in which text from users cannot be markup."""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bottleneck._version import __version__
from bottleneck.errors import printable

_SCRIPT = "page.js"
_STYLES = ("style.css",)
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{}'; base-uri 'none'; "
    "form-action 'none'"
)


def page(template: str, /, *, styles: tuple[str, ...] = (), **contents: Any) -> str:
    """Return a page with its styles and its script in it.

    Parameters
    ----------
    template : str
        A file of ``templates/`` that extends ``base.html`` and sets its blocks ``title`` and ``main``.
    styles : tuple of str
        Files of ``templates/`` whose rules follow those of ``style.css``.
    **contents
        The variables of the template. Texts are escaped, their control characters too; an object with ``__html__``,
        such as a chart, is markup.

    Raises
    ------
    jinja2.UndefinedError
        If a variable is missing.
    """
    script = _file(_SCRIPT)
    return (
        _environment()
        .get_template(template)
        .render(
            policy=_POLICY.format(_sha256(script)),
            script=Markup(script),  # its own file, not text of a user
            style=Markup("\n".join(map(_file, (*_STYLES, *styles)))),
            version=__version__,
            **contents,
        )
    )


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage, ``95.3%``, or a dash if there is none."""
    return "–" if share is None else f"{share:.{digits}%}"


def thousands(count: float) -> str:
    """Return a count with separators; one that is a mean has a decimal place: ``1,234``, ``117.8``."""
    return f"{count:,.1f}".removesuffix(".0")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("bottleneck.reporting", "templates"),
        autoescape=True,  # of every template, whatever its name
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(percent=percent, thousands=thousands)
    return made


def _finalize(value: Any) -> Any:
    """Escape the control characters of a text: a page shows them, and obeys none."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _file(name: str) -> str:
    return (resources.files("bottleneck.reporting") / "templates" / name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

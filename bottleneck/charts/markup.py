"""Markup as text: elements, escaped text, and a string that templates and notebooks use as it is."""

from html import escape
from typing import Final

from bottleneck.errors import printable

ISOLATES = "\u2068\u2069"  # the beginning and the end of an isolate
_CLOSED: Final = frozenset({"line", "rect", "circle", "path", "img", "br", "col"})  # elements that have no content


class Markup(str):
    """HTML or SVG that is complete and escaped, so that Jinja and notebooks do not escape it again."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return str(self)


def text_of(value: object) -> str:
    """Return a value as text for a page: markup is escaped, and so are characters that cannot be printed.

    The characters that isolate a name from the direction of the text around it are kept.
    """
    return escape(printable(str(value), keep=ISOLATES))


def markup(*children: object) -> Markup:
    """Return children one after the other; those that are not `Markup` are escaped, and None is left out."""
    return Markup(
        "".join(child if isinstance(child, Markup) else text_of(child) for child in children if child is not None)
    )


def element(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
    *children : object
        As for `markup`.
    **attributes : object
        Underscores become hyphens, and one at the end is removed (``class_``). Numbers are rounded to hundredths. An
        attribute that is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _CLOSED and not children:
        return Markup(f"<{name}{given}/>")
    return Markup(f"<{name}{given}>{markup(*children)}</{name}>")


def number(value: float) -> str:
    """Return a coordinate, rounded to hundredths."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(value: object) -> str:
    return number(value) if isinstance(value, float) else text_of(value)

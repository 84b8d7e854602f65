"""Blocks of HTML for notebooks: their colours are those of the notebook, in light and dark."""

from collections.abc import Collection, Iterable, Sequence

from bottleneck.charts.markup import Markup, element

_BLOCK = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:14px;line-height:1.45;color:inherit"
_TABLE = "border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums;font-size:13px"
_LINE = "1px solid var(--jp-border-color2,rgba(127,127,127,.35))"
_QUIET = "opacity:.75"


def block(title: str, *parts: object) -> Markup:
    """Return parts below a title, as the whole output of a cell."""
    head = element("div", element("bdi", title), style="font-weight:600;font-size:15px")
    return element("div", head, *parts, style=_BLOCK)


def note(*children: object) -> Markup:
    """Return a short paragraph that is less important."""
    return element("div", *children, style=f"{_QUIET};margin:.2em 0;max-width:48em")


def line(*children: object) -> Markup:
    """Return a short paragraph."""
    return element("div", *children, style="margin:.2em 0;max-width:48em")


def side_by_side(*parts: object) -> Markup:
    """Return parts beside each other, where there is room."""
    cells = [element("div", part, style="flex:1 1 300px;max-width:440px;min-width:0") for part in parts]
    return element("div", *cells, style="display:flex;flex-wrap:wrap;gap:16px 32px;margin:.5em 0")


def html_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Collection[str] = (), more: int = 0
) -> Markup:
    """Return a table.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequence
        Cells; those that are not `Markup` are text, and None is an empty cell.
    numbers : collection of str
        The columns whose cells are aligned at the right.
    more : int
        Number of rows that are left out, which a note below tells.
    """
    aligned = ["right" if name in numbers else "left" for name in header]
    head = [
        element("th", name, scope="col", style=f"{_cell(side)};font-weight:500;{_QUIET}")
        for name, side in zip(header, aligned, strict=True)
    ]
    body = [element("tr", *(_td(cell, side) for cell, side in zip(row, aligned, strict=True))) for row in rows]
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *body), style=_TABLE, class_="bottleneck"
    )
    scrolled = element("div", table, style="overflow-x:auto")
    return scrolled if not more else element("div", scrolled, note(f"and {more:,} more"))


def _td(cell: object, side: str) -> Markup:
    content = cell if cell is None or isinstance(cell, Markup) else element("bdi", cell)
    return element("td", content, style=_cell(side))


def _cell(side: str) -> str:
    return f"text-align:{side};padding:2px 14px 2px 0;border-bottom:{_LINE};background:none;vertical-align:top"

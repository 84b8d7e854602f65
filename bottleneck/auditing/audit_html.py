"""An audit in a notebook: the number of findings of each kind, and pictures of the first."""

from collections.abc import Sequence

from bottleneck.auditing.findings import KINDS, Finding, Kind
from bottleneck.charts.html import html_table, line
from bottleneck.charts.markup import Markup, markup
from bottleneck.images.contact_sheet import ContactSheet, Tile
from bottleneck.utils.text import counted

_PICTURES = 6  # of each kind
_SIDE = 112  # pixels


def findings_html(findings: Sequence[Finding]) -> Markup:
    """Return the number of findings of each kind, and the first of each with pictures and reasons."""
    groups = {kind: [found for found in findings if found.kind == kind] for kind in KINDS}
    rows = [[kind, f"{len(group):,}"] for kind, group in groups.items()]
    counts = html_table(("finding", "images"), rows, numbers=("images",))
    return markup(counts, *(_pictures(kind, group) for kind, group in groups.items() if group))


def _pictures(kind: Kind, group: Sequence[Finding]) -> Markup:
    sheet = ContactSheet(map(_tile, group[:_PICTURES]), left_out=max(0, len(group) - _PICTURES), size=_SIDE)
    return markup(line(f"{counted(len(group), kind)}, the most suspicious first:"), sheet.to_html())


def _tile(found: Finding) -> Tile:
    label = found.label or ""
    caption = label if found.suggested is None else f"{label} → {found.suggested}"
    return Tile(found.path, caption, bytes.fromhex(found.digest), f"{found.path}: {found.reason}")

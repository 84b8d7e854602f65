"""Read the HTML of notebooks as XML, which it must also be."""

from xml.etree.ElementTree import Element, fromstring


def parsed(html: str) -> Element:
    """Parse HTML that must be well-formed, and may contain several elements."""
    return fromstring(f"<div>{html}</div>")


def text_in(html: str) -> str:
    """Return the text of HTML without the hidden parts of charts, on one line."""
    root = parsed(html)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("title", "desc"):
                parent.remove(child)
    return " ".join(" ".join(root.itertext()).split())


def tables(html: str) -> list[list[list[str]]]:
    """Return the cells of each table."""
    rows = [[list(row) for row in table.iter("tr")] for table in parsed(html).iter("table")]
    return [[["".join(cell.itertext()) for cell in row] for row in table] for table in rows]

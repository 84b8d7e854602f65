"""Read charts as XML, and strategies for what they are made of."""

import re
from xml.etree.ElementTree import Element, fromstring

from hypothesis import strategies as st

SPACE = "{http://www.w3.org/2000/svg}"

numbers = st.one_of(st.none(), st.floats(), st.floats(0, 1), st.integers(-3, 10**6))
names = st.one_of(
    st.text(max_size=60), st.sampled_from(["", "</svg><script>alert(1)</script>", "شجرة", "蜂" * 40, "a&b\x00\udcff"])
)


def read(chart: str) -> Element:
    """Parse a chart; it must be well-formed XML, and an image with a name and a description."""
    root = fromstring(chart)
    assert root.tag == f"{SPACE}svg"
    assert [child.tag for child in root[:2]] == [f"{SPACE}title", f"{SPACE}desc"]
    return root


def checked(chart: str) -> Element:
    """Parse a chart whose marks must all be inside of it; no name may become an element."""
    root = read(chart)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for one in root.iter():
        assert one.tag.removeprefix(SPACE) in (
            "svg",
            "title",
            "desc",
            "text",
            "g",
            "a",
            "line",
            "rect",
            "circle",
            "path",
        )
        for name, most in (("x", width), ("cx", width), ("x1", width), ("x2", width), ("y", height), ("cy", height)):
            value = float(one.attrib.get(name, 0))
            assert -1 <= value <= most + 1, (one.tag, one.attrib)
        assert not re.search("nan|inf", one.attrib.get("d", ""))
    return root


def all_of(root: Element, name: str) -> list[Element]:
    """Return the elements of a name."""
    return list(root.iter(SPACE + name))


def texts(root: Element) -> list[str]:
    """Return the visible texts, without tooltips."""
    return [(one.text or "") + "".join(child.tail or "" for child in one) for one in all_of(root, "text")]


def tooltips(root: Element) -> list[str]:
    """Return the tooltips, without the title of the chart."""
    return [one.text or "" for one in all_of(root, "title")[1:]]

"""How messages name images, classes and groups: from IMAGES on, a few of many, and escaped."""

import os
from collections.abc import Iterable
from pathlib import Path

from bottleneck.errors import printable

_MOST = 4  # names that a message shows
_ROOM = 90  # characters of them


def from_images(path: str, images: Path) -> str:
    """Return a path as seen from the folder IMAGES, or from the folder of the table IMAGES; elsewhere as it is."""
    home = os.path.abspath(images if images.is_dir() or not images.suffix else images.parent)
    full = os.path.abspath(path)
    return os.path.relpath(full, home) if full.startswith(os.path.join(home, "")) else path


def examples(names: Iterable[str], most: int = _MOST) -> str:
    """Return the first of some names, as many as fit in a line, and how many more there are."""
    shown: list[str] = []
    count = 0
    for name in names:
        count += 1
        text = printable(name)
        if not shown or (count == len(shown) + 1 <= most and len(", ".join([*shown, text])) <= _ROOM):
            shown.append(text)
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")

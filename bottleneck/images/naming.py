"""Names of images, classes and groups in messages: relative to IMAGES, abbreviated and escaped."""

import os
from collections.abc import Iterable
from pathlib import Path

from bottleneck.errors import printable

_MAX_NAMES = 4  # in a message
_MAX_CHARS = 90  # of all names in a message


def from_images(path: str, images: Path) -> str:
    """Return a path relative to the folder or table IMAGES; unchanged if it is elsewhere."""
    home = os.path.abspath(images if images.is_dir() or not images.suffix else images.parent)
    full = os.path.abspath(path)
    return os.path.relpath(full, home) if full.startswith(os.path.join(home, "")) else path


def examples(names: Iterable[str], most: int = _MAX_NAMES) -> str:
    """Return the first names, as many as fit on a line, and the number of the remaining ones."""
    shown: list[str] = []
    count = 0
    for name in names:
        count += 1
        text = printable(name)
        if not shown or (count == len(shown) + 1 <= most and len(", ".join([*shown, text])) <= _MAX_CHARS):
            shown.append(text)
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")

"""Images are written below the current folder, which each variant of a test has for itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import photo, write


@pytest.fixture
def folder() -> Callable[..., Path]:
    """Return a function that writes ``{relative path: bytes or seed}`` below a folder and returns it."""

    def make(files: dict[str, bytes | int], name: str = "images") -> Path:
        root = Path.cwd() / name
        root.mkdir(exist_ok=True)
        for relative, content in files.items():
            write(root / relative, photo(content) if isinstance(content, int) else content)
        return root

    return make

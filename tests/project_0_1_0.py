"""A project of version 0.1.0: images, weights, a cache and runs; tests/data/v0_1_0/make.py wrote it."""

import json
import lzma
import shutil
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent / "data" / "v0_1_0"


def unpacked(folder: Path) -> Path:
    """Copy the project to a new folder and decompress its weights."""
    shutil.copytree(HOME / "project", folder)
    for packed in folder.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()
    return folder


def recorded(name: str) -> Any:
    """Return ``expected`` (what is read from the project) or ``interface`` (what users of 0.1.0 rely on)."""
    return json.loads((HOME / f"{name}.json").read_text(encoding="utf-8"))

"""The kinds of files by name; those that need torch are imported only where they are wanted."""

from importlib import import_module
from pathlib import Path

from tests.fuzz.target import Target

KINDS = {
    "images": "targets:Images",
    "shards": "targets:Shards",
    "json": "targets_of_runs:Json",
    "safetensors": "targets_of_runs:Safetensors",
    "weights": "targets_of_runs:Weights",
    "csv": "targets:Tables",
    "sqlite": "targets:Memos",
}

_TRAP = {"trap": "trap:Trap"}  # for the tests of the fuzzer itself


def class_of(kind: str) -> type[Target]:
    """Return the class of a kind."""
    module, name = {**KINDS, **_TRAP}[kind].split(":")
    found: type[Target] = getattr(import_module(f"tests.fuzz.{module}"), name)
    return found


def target_of(kind: str, folder: Path) -> Target:
    """Return a kind whose readers may use a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return class_of(kind)(folder)

"""What users and programs rely on, read from the library itself: options, keys of JSON, columns, public names."""

import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

import bottleneck
from bottleneck.cli.main import cli

TINY = "--model timm/test_convnext --weights ./tiny.safetensors --resize 32 --crop 32 --precision fp32 --engine torch"

# Run in this order in a copy of the project of tests/data/v0_1_0.
COMMANDS = {
    "extract": f"extract photos {TINY}",
    "extract, another folder": f"extract new --cache other {TINY}",
    "extract, failures": f"extract broken --max-failures 100% {TINY}",
    "fit": "fit photos --head logistic",
    "fit, final": "fit photos --head ridge --final",
    "compare": "compare photos --heads ridge,centroid --learning-curve",
    "predict": "predict broken --run {0}",
    "evaluate": "evaluate photos/test --run {0} --against {1}",
    "finetune": "finetune photos --run {0} --last 0 --epochs 1 --views 1 --augment none",
    "models": "models timm/test_convnext",
    "models, all weights": "models timm/test_convnext.*",
    "inspect": "inspect timm/test_convnext",
    "inspect, checkpoint": "inspect tiny.safetensors",
    "inspect, checkpoint and model": "inspect tiny.safetensors --against timm/test_convnext",
    "cache info": "cache info",
    "cache verify": "cache verify",
    "cache merge": "cache merge other",
    "cache compact": "cache compact",
    "cache export": "cache export photos --out features.npz",
    "cache rm": "cache rm features/efficientnet_lite0",
    "cache gc": "cache gc --days 0",
    "error": "fit nowhere",
}
FAILING = ("error",)
TABLES = {
    "predict": "predict photos/test --run {0} --format csv",
    "evaluate": "evaluate photos/test --run {0} --format csv",
    "compare": "compare photos --heads ridge,centroid --format csv",
}


def run(words: str, *, code: int = 0) -> str:
    """Run a command in this process; return what it writes to stdout."""
    found = CliRunner().invoke(cli, words.split())
    assert found.exit_code == code, (words, found.output)
    return str(found.stdout)


def json_paths(value: Any, before: str = "") -> Iterator[str]:
    """Yield the path of each key: ``metrics.per_class.rose.f1``, ``points[].C``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{before}{key}"
            yield from json_paths(inner, f"{before}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from json_paths(inner, f"{before.removesuffix('.')}[].")


def keys(text: str) -> list[str]:
    """Return the paths of the keys of one JSON object, or of one a line."""
    return sorted({path for line in text.splitlines() for path in json_paths(json.loads(line))})


def json_keys(runs: list[str]) -> dict[str, list[str]]:
    """Run all commands with ``--json`` in the current folder, and return the keys that each prints.

    Parameters
    ----------
    runs : list of str
        Names of two runs of `fit`.
    """
    shutil.copytree("new", "broken")
    Path("broken", "rose", "1.jpg").write_bytes(b"<html>")
    return {
        name: keys(run(f"{words.format(*runs)} --json", code=int(name in FAILING))) for name, words in COMMANDS.items()
    }


def table_columns(runs: list[str]) -> dict[str, list[str]]:
    """Return the header of each table that a command prints as CSV."""
    return {name: run(words.format(*runs)).splitlines()[0].split(",") for name, words in TABLES.items()}


def result_attributes(run: str) -> dict[str, list[str]]:
    """Return the public attributes of what each public function returns, in the current folder."""
    extraction = bottleneck.extract(
        "photos", model="timm/test_convnext", weights="./tiny.safetensors", resize=32, crop=32, precision="fp32"
    )
    predictions = bottleneck.predict("photos/test", run=run)
    results = {
        "compare": bottleneck.compare("photos", heads=["centroid"]),
        "describe": bottleneck.describe("timm/test_convnext"),
        "evaluate": bottleneck.evaluate("photos/test", run=run),
        "extract": extraction,
        "load_run": bottleneck.load_run(Path("runs", run)),
        "models": bottleneck.models("timm/test_convnext")[0],
        "predict": predictions,
        "predict()[0]": predictions[0],
        "scan": extraction.dataset,
    }
    return {name: attributes(type(value)) for name, value in results.items()}


def commands_of(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield each command and its name: ``cache info``."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def options() -> dict[str, dict[str, Any]]:
    """Return of each command its options and arguments, with the choices and the default of each."""
    return {name: dict(sorted(_parameters(command))) for name, command in commands_of(cli)}


def _parameters(command: click.Command) -> Iterator[tuple[str, dict[str, Any]]]:
    for parameter in command.params:
        kind = parameter.type
        choices = list(kind.choices) if isinstance(kind, click.Choice) else []
        default = parameter.default if isinstance(parameter.default, (str, int, float)) else None
        for name in (*parameter.opts, *parameter.secondary_opts):
            yield name, {"choices": choices, "default": default, "required": parameter.required}


def public_names() -> dict[str, Any]:
    """Return the names that ``bottleneck`` exports: parameters of functions, attributes of classes."""
    return {name: _shape(getattr(bottleneck, name)) for name in sorted(bottleneck.__all__)}


def _shape(value: object) -> dict[str, Any]:
    shape: dict[str, Any] = {}
    if callable(value):
        shape["parameters"] = {
            name: parameter.default is inspect.Parameter.empty
            for name, parameter in inspect.signature(value).parameters.items()
        }
    if inspect.isclass(value):
        shape["attributes"] = attributes(value)
    if inspect.ismodule(value):
        classes = inspect.getmembers(value, inspect.isclass)
        shape["classes"] = {
            name: sorted(base.__name__ for base in found.__mro__) for name, found in classes if _is_ours(found)
        }
    return shape


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("bottleneck") and not kind.__name__.startswith("_")


def attributes(kind: type) -> list[str]:
    """Return the public attributes of a class, fields of a dataclass among them."""
    fields = getattr(kind, "__dataclass_fields__", {})
    return sorted(name for name in {*dir(kind), *fields} if not name.startswith("_"))

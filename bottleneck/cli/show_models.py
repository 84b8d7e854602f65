"""Format models and checkpoints as tables and lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bottleneck.cli.layout import Column, TextTable, right
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.backbones.catalogue_table import ModelEntry
    from bottleneck.backbones.describe import Description
    from bottleneck.backbones.restore import Restored
    from bottleneck.backbones.weights import Checkpoint

_ROWS = 80  # of a module tree without --depth
_WEIGHTS = 4
_MISMATCHES = 8  # of each kind, in an error


def models_table(entries: Sequence[ModelEntry], *, with_weights: bool = False) -> TextTable:
    """Return a table with a row per model, or per weights of a model."""
    rows = [
        (
            entry.name,
            (entry.weights or "-") if with_weights else entry.source,
            "?" if entry.parameters is None else count(entry.parameters),
            _shape(entry.input_size),
            "?" if entry.dim is None else str(entry.dim),
            _availability(entry),
        )
        for entry in entries
    ]
    second = Column("--weights") if with_weights else Column("source", optional=True)  # which the name contains, too
    table = TextTable("model", second, *right("params", "images", "features"), "weights")
    for row in rows:
        table.add_row(*row)
    return table


def _availability(entry: ModelEntry) -> str:
    if entry.is_here:
        return "here"
    if not entry.weights:
        return "unpublished"
    return "by pip" if entry.source == "bundled" else "download"


def description_lines(found: Description) -> tuple[list[str], list[str]]:
    """Return the lines before the module tree and the lines after it."""
    preprocessing = found.preprocessing
    size = _pixels(preprocessing.crop_size)
    weights = [f"{entry.weights} ({_availability(entry)})" for entry in found.weights[:_WEIGHTS]]
    more = f" and {len(found.weights) - _WEIGHTS} more" if len(found.weights) > _WEIGHTS else ""
    pooled = f", {found.pooling} over its positions" if found.pooling != "none" else ""
    resize = _pixels(preprocessing.resize_size) if isinstance(preprocessing.resize, tuple) else preprocessing.resize
    side = {"center": "the shorter side", "squash": "each side", "border": "the longer side"}[preprocessing.mode]
    before = [
        f"{found.model} ({found.source}): {count(found.parameters)} parameters, "
        f"{count(found.macs)} multiply-adds (MACs)",
        f"features: {found.dim} from {found.layer}{pooled}",
        f"weights: {', '.join(weights) or 'none are published'}{more}"
        + ("; the first is DEFAULT" if weights[1:] else ""),
        f"images: {side} to {resize} ({preprocessing.interpolation}), centre {size}, "
        f"mean {_numbers(preprocessing.mean)}, std {_numbers(preprocessing.std)}"
        + (", then transform_input" if found.transform_input else ""),
    ]
    after = [
        f"stages: {', '.join(found.stages)}",
        "--layer takes a name (the output of the module) or NAME:input (its input); --unfreeze takes names",
    ]
    return before, after


def modules_table(found: Description, depth: int | None) -> TextTable:
    """Return the module tree with `depth` levels; 0 is all, None as many as fit on a page or two."""
    levels = _levels(found, depth)
    rows = [
        (
            module.name,
            module.kind,
            _shape(module.output) if module.output else "-",
            count(module.parameters) if module.parameters else "",
            count(module.macs) if module.macs else "",
        )
        for module in found.modules
        if module.depth <= levels
    ]
    table = TextTable("module", Column("kind", optional=True), *right("output", "params", "MACs"))
    for row in rows:
        table.add_row(*row)
    return table


def hidden_levels(found: Description, depth: int | None) -> list[str]:
    """Return a line about the modules that are not shown."""
    levels, deepest = _levels(found, depth), max((module.depth for module in found.modules), default=0)
    hidden = sum(module.depth > levels for module in found.modules)
    shown = f"{levels} of {counted(deepest, 'level')}"
    return [f"{shown}; --depth all shows {counted(hidden, 'more module')}"] if hidden else []


def _levels(found: Description, depth: int | None) -> int:
    deepest = max((module.depth for module in found.modules), default=1)
    if depth == 0:
        return deepest
    if depth:
        return depth
    fitting = [
        level for level in range(1, deepest + 1) if sum(module.depth <= level for module in found.modules) <= _ROWS
    ]
    return max(fitting, default=1)


def tensors_table(checkpoint: Checkpoint) -> TextTable:
    """Return a table with a row per tensor of a checkpoint."""
    table = TextTable("tensor", *right("shape"), "dtype")
    for name, value in checkpoint.tensors.items():
        table.add_row(name, _shape(tuple(value.shape)), str(value.dtype).removeprefix("torch."))
    return table


def checkpoint_line(checkpoint: Checkpoint) -> str:
    """Return a summary of a checkpoint."""
    values: list[Any] = list(checkpoint.tensors.values())
    numbers, size = sum(value.numel() for value in values), sum(value.nbytes for value in values)
    remarks = "".join(f"; {remark}" for remark in checkpoint.remarks)
    tensors = counted(len(values), "tensor")
    return f"{checkpoint.source}: {tensors}, {count(numbers)} numbers, {size / 1e6:,.1f} MB{remarks}"


def restored_table(found: Restored, *, whole: bool = False) -> TextTable:
    """Return a table of tensors, mismatches last; restored ones are listed if `whole`, else counted."""
    table = _tensor_table()
    if whole:
        for name in found.restored:
            table.add_row(name, "restored", "", "")
    else:
        table.add_row(counted(len(found.restored), "tensor"), "restored", "", "")
    for word, names in {"excluded": found.excluded, "not needed": found.unneeded}.items():
        for name in names:
            table.add_row(name, word, "", "")
    _add_mismatches(table, found, None)
    return table


def mismatch_table(found: Restored) -> TextTable:
    """Return the first mismatches of each kind, and the number of restored tensors."""
    table = _tensor_table()
    table.add_row(counted(len(found.restored), "tensor"), "restored", "", "")
    _add_mismatches(table, found, _MISMATCHES)
    return table


def _tensor_table() -> TextTable:
    return TextTable("tensor", "status", *right("expected", "found"))


def _add_mismatches(table: TextTable, found: Restored, most: int | None) -> None:
    shapes = {
        name: (_shape(expected), "integers" if expected == have else _shape(have))
        for name, (expected, have) in found.misshapen.items()
    }
    groups: dict[str, Sequence[str]] = {
        "missing": found.missing,
        "unexpected": found.unexpected,
        "wrong shape": list(shapes),
    }
    for word, names in groups.items():
        for name in names[:most]:
            table.add_row(name, word, *shapes.get(name, ("", "")))
        if most and len(names) > most:
            table.add_row(f"and {len(names) - most} more", word, "", "")


def count(number: int) -> str:
    """Return a large number with three digits and a unit: ``25.6M``."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        value = number / size
        if value >= 0.9995:  # three digits show it as 1.00
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"
    return str(number)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)

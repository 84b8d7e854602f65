"""``bottleneck models`` and ``bottleneck inspect``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bottleneck.cli.common import command, give_up
from bottleneck.cli.output import put_json, say, show
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import counted

if TYPE_CHECKING:
    from bottleneck.backbones.catalogue_table import ModelEntry
    from bottleneck.backbones.restore import Restored


@command("models", short_help="Which backbones there are.")
@click.argument("pattern", default="")
def models(pattern: str, as_json: bool, cache: str, runs: str) -> None:
    """List the models with their parameters, images, features, and whether their weights are on this machine.

    PATTERN is a part of the name (resnet50), or a pattern ('timm/convnext*'); with a dot it asks for all weights of a
    model ('timm/resnet50.*').
    """
    from bottleneck.backbones.catalogue import models as look
    from bottleneck.cli.show_models import models_table

    found = look(pattern)
    if as_json:
        put_json({"models": [entry.to_json() for entry in found]})
        return
    show(models_table(found, with_weights=_asks_for_weights(pattern, found)))
    here = sum(entry.is_here for entry in found)
    say(f"{counted(len(found), 'model')}, the weights of {here} on this machine")


def _asks_for_weights(pattern: str, found: Sequence[ModelEntry]) -> bool:
    return "." in pattern or len({entry.name for entry in found}) < len(found)


@command("inspect", short_help="What a model, or a checkpoint, consists of.")
@click.argument("thing", metavar="MODEL|CHECKPOINT")
@click.option("--depth", metavar="N|all", help="How deep the tree of modules goes.  [default: a page or two]")
@click.option("--against", metavar="MODEL", help="Of a checkpoint: what this model would take.")
@click.option(
    "--restore-exclude", multiple=True, metavar="PATTERN", help="With --against: tensors that are not to be restored."
)
def inspect(
    thing: str,
    depth: str | None,
    against: str | None,
    restore_exclude: tuple[str, ...],
    as_json: bool,
    cache: str,
    runs: str,
) -> None:
    """Show the modules of a model: output shapes, parameters, multiply-adds at the size of its images.

    Their names are what --layer and --unfreeze take. Of a CHECKPOINT (.pth, .pt, .safetensors) show the tensors, or
    with --against what MODEL would take of them; exit with 1 if they do not fit.
    """
    from bottleneck.backbones.request import TIMM, looks_like_file
    from bottleneck.errors import ModelError

    levels = _levels(depth)
    if restore_exclude and not against:
        raise click.UsageError("--restore-exclude goes with --against MODEL")
    if looks_like_file(thing) and not thing.startswith(TIMM):
        _checkpoint(expanded(thing), against, restore_exclude, levels, as_json)
        return
    if against:
        raise ModelError(f"--against is about a checkpoint, expected a file, got {thing!r}")
    _model(thing, levels, as_json)


def _levels(depth: str | None) -> int | None:
    """Return how deep to go: 0 for all the way, None to choose."""
    if depth is None or (depth.isdigit() and int(depth) > 0):
        return int(depth) if depth else None
    if depth == "all":
        return 0
    raise click.BadParameter(f"expected a number from 1, or all, got {depth!r}", param_hint="--depth")


def _model(name: str, depth: int | None, as_json: bool) -> None:
    from bottleneck.backbones.describe import describe
    from bottleneck.cli.show_models import description_lines, modules_table, too_deep

    found = describe(name)
    if as_json:
        put_json(found.to_json())
        return
    before, after = description_lines(found)
    show(*before, modules_table(found, depth), *too_deep(found, depth), *after)


def _checkpoint(path: Path, against: str | None, exclude: tuple[str, ...], depth: int | None, as_json: bool) -> None:
    from bottleneck.backbones.describe import compare
    from bottleneck.backbones.restore import misfit
    from bottleneck.backbones.weights import read_checkpoint
    from bottleneck.cli.show_models import checkpoint_line, restored_table, tensors_table

    found: Restored | None = None
    if against:
        checkpoint, found = compare(path, against, exclude)
    else:
        checkpoint = read_checkpoint(path)
    if as_json:
        report = {**found.to_json(), "model": against, "complete": found.complete} if found else None
        put_json({**checkpoint.to_json(), "against": report})
    elif found:
        show(restored_table(found, whole=depth == 0), found.summary())
    else:
        show(tensors_table(checkpoint), checkpoint_line(checkpoint))
    if against and found and not found.complete:
        give_up(misfit(found, against))

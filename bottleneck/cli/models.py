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


@command("models", short_help="List the available backbones.")
@click.argument("pattern", default="")
def models(pattern: str, as_json: bool, cache: str, runs: str) -> None:
    """List models with parameters, image size, number of features, and whether their weights are on this machine.

    PATTERN is part of a name (resnet50) or a pattern ('timm/convnext*'). A pattern with a dot lists all weights of a
    model ('timm/resnet50.*').
    """
    from bottleneck.backbones.catalogue import models as look
    from bottleneck.cli.show_models import models_table

    found = look(pattern)
    if as_json:
        put_json({"models": [entry.to_json() for entry in found]})
        return
    show(models_table(found, with_weights=_lists_weights(pattern, found)))
    here = sum(entry.is_here for entry in found)
    say(f"{counted(len(found), 'model')}; the weights of {here} are on this machine")


def _lists_weights(pattern: str, found: Sequence[ModelEntry]) -> bool:
    return "." in pattern or len({entry.name for entry in found}) < len(found)


@command("inspect", short_help="Show the modules of a model, or the tensors of a checkpoint.")
@click.argument("thing", metavar="MODEL|CHECKPOINT")
@click.option(
    "--depth", metavar="N|all", help="Levels of the module tree.  [default: depends on the number of modules]"
)
@click.option("--against", metavar="MODEL", help="For a checkpoint: show which tensors this model would restore.")
@click.option(
    "--restore-exclude", multiple=True, metavar="PATTERN", help="With --against: do not restore these tensors."
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
    """Show the modules of a model with their output shapes, parameters and multiply-adds for one image.

    --layer and --unfreeze take the names of modules. For a CHECKPOINT (.pth, .pt, .safetensors), show its tensors. With
    --against, show which of them MODEL would restore, and exit with 1 if they do not match.
    """
    from bottleneck.backbones.request import TIMM, looks_like_file
    from bottleneck.errors import ModelError

    levels = _levels(depth)
    if restore_exclude and not against:
        raise click.UsageError("--restore-exclude needs --against MODEL")
    if looks_like_file(thing) and not thing.startswith(TIMM):
        _checkpoint(expanded(thing), against, restore_exclude, levels, as_json)
        return
    if against:
        raise ModelError(f"expected a checkpoint file with --against, got {thing!r}")
    _model(thing, levels, as_json)


def _levels(depth: str | None) -> int | None:
    """Return the number of levels: 0 for all, None to choose it by the size of the page."""
    if depth is None or (depth.isdigit() and int(depth) > 0):
        return int(depth) if depth else None
    if depth == "all":
        return 0
    raise click.BadParameter(f"expected a number from 1, or all, got {depth!r}", param_hint="--depth")


def _model(name: str, depth: int | None, as_json: bool) -> None:
    from bottleneck.backbones.describe import describe
    from bottleneck.cli.show_models import description_lines, hidden_levels, modules_table

    found = describe(name)
    if as_json:
        put_json(found.to_json())
        return
    before, after = description_lines(found)
    show(*before, modules_table(found, depth), *hidden_levels(found, depth), *after)


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

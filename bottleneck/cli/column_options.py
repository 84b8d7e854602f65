"""The options that name the columns of a table of images."""

from collections.abc import Callable
from typing import Any

import click

_HELP = {
    "path": "Column of a table that holds the paths.  [default: path]",
    "label": "Column of the labels.  [default: label]",
    "split": "Column of the splits; is_valid and the like may say yes or no.  [default: split]",
    "group": "Column of the groups, which are never divided.  [default: group]",
}


def column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--path-column``, ``--label-column``, ``--split-column`` and ``--group-column`` to a command."""
    for role, text in reversed(_HELP.items()):
        command = click.option(f"--{role}-column", metavar="NAME", help=text)(command)
    return command

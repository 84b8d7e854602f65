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


Command = Callable[..., Any]


def column_options(*roles: str) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--path-column`` and so on to a command: for some roles, or for all."""

    def decorate(command: Command) -> Command:
        for role in reversed(roles or tuple(_HELP)):
            command = click.option(f"--{role}-column", metavar="NAME", help=_HELP[role])(command)
        return command

    return decorate

"""The options that name the columns of an image table."""

from collections.abc import Callable
from typing import Any

import click

_HELP = {
    "path": "Column of a table with the paths.  [default: path]",
    "label": "Column with the labels.  [default: label]",
    "split": "Column with the splits, or with yes and no, such as is_valid.  [default: split]",
    "group": "Column with the groups; images of one group stay in one split.  [default: group]",
}


Command = Callable[..., Any]


def column_options(*roles: str) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--ROLE-column`` to a command for the given roles, or for all."""

    def decorate(command: Command) -> Command:
        for role in reversed(roles or tuple(_HELP)):
            command = click.option(f"--{role}-column", metavar="NAME", help=_HELP[role])(command)
        return command

    return decorate

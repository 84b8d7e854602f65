"""The options that name the columns of an image table."""

from collections.abc import Callable
from typing import Any

import click

_HELP = {
    "path": "Column of the paths in a table.  [default: path]",
    "label": "Column of the labels.  [default: label]",
    "split": "Column of the splits, which may also be yes/no, such as is_valid.  [default: split]",
    "group": "Column of the groups, which are kept in one split.  [default: group]",
}


Command = Callable[..., Any]


def column_options(*roles: str) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--ROLE-column`` to a command for the given roles, or for all."""

    def decorate(command: Command) -> Command:
        for role in reversed(roles or tuple(_HELP)):
            command = click.option(f"--{role}-column", metavar="NAME", help=_HELP[role])(command)
        return command

    return decorate

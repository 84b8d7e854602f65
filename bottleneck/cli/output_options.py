"""The options --out and --format: where a command writes its data, and in which format."""

from collections.abc import Callable, Iterable
from typing import Any

import click

from bottleneck.cli.common import at_home

Command = Callable[..., Any]


def output_options(
    layouts: Iterable[str], out: str, layout: str = "Format of the output."
) -> Callable[[Command], Command]:
    """Return a decorator that adds ``--format`` and ``--out`` to a command; see `bottleneck.cli.common.layout_of`.

    Parameters
    ----------
    layouts : iterable of str
        The values of ``--format``; the first is the default.
    out, layout : str
        Help texts of the two options.
    """
    names = tuple(dict.fromkeys(layouts))
    default = f"[default: by the ending of --out, else {names[0]}]"

    def decorate(command: Command) -> Command:
        path = click.Path(dir_okay=False, readable=False)
        command = click.option("--out", type=path, callback=at_home, metavar="FILE", help=out)(command)
        return click.option("--format", "layout", type=click.Choice(names), help=f"{layout}  {default}")(command)

    return decorate

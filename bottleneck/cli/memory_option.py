"""The option that says how much memory a command may take."""

from collections.abc import Callable
from typing import Any

import click

from bottleneck.utils.memory import parse_size, shown_size

_Command = Callable[..., Any]


def memory_option(text: str, *, of_images: bool = False) -> Callable[[_Command], _Command]:
    """Add ``--memory SIZE`` to a command, which gets bytes.

    Parameters
    ----------
    text : str
        What it is for.
    of_images : bool
        Whether images are decoded in it and nothing else: less than that takes is then refused.
    """

    def read(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
        if value is None:
            return None
        from bottleneck.extraction.memory import LEAST_MEMORY

        try:
            size = parse_size(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, parameter) from None
        if of_images and size < LEAST_MEMORY:
            raise click.BadParameter(f"expected {shown_size(LEAST_MEMORY)} or more, got {value}", ctx, parameter)
        return size

    return click.option("--memory", callback=read, metavar="SIZE", help=text)


images_memory = memory_option(
    "What images may take while they are read and decoded, such as 2G or 500M; one that needs more is listed as "
    "failed.  [default: by what is free]",
    of_images=True,
)

"""The option --memory."""

from collections.abc import Callable
from typing import Any

import click

from bottleneck.utils.memory import parse_size, shown_size

_Command = Callable[..., Any]


def memory_option(text: str, *, of_images: bool = False) -> Callable[[_Command], _Command]:
    """Return a decorator that adds ``--memory SIZE`` to a command, which receives bytes.

    Parameters
    ----------
    text : str
        The help text.
    of_images : bool
        Whether it limits the decoding of images alone: values below `LEAST_MEMORY` are then refused.
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
    "Memory for reading and decoding images, such as 2G or 500M; an image that needs more is reported as failed.  "
    "[default: depends on the free memory]",
    of_images=True,
)

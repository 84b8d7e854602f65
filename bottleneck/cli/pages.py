"""Options that name an HTML page, and opening it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from bottleneck.cli.common import check_out, write_data
from bottleneck.cli.output import say, show

_ENDINGS = (".html", ".htm")


def check_page(option: str, path: str | None, images: str | None = None, out: str | None = None) -> None:
    """Refuse the name of a page that does not end in .html, or that must not be overwritten.

    Raises
    ------
    click.UsageError
        If it ends differently, or is that of the other output, `out`.
    OutputError
        See `bottleneck.cli.common.check_out`.
    """
    if path is None:
        return
    if Path(path).suffix.lower() not in _ENDINGS:
        raise click.UsageError(f"expected {option} FILE.html, got {path!r}")
    if out is not None and Path(out).absolute() == Path(path).absolute():
        raise click.UsageError(f"expected another file for {option} than for --out, got {path!r} for both")
    check_out(path, [images] if images else [])


def write_page(path: str, page: str) -> None:
    """Write a page, and print where it is."""
    write_data(path, lambda target: target.write(page))
    show(f"page: {path}")


def open_in_browser(address: str) -> None:
    """Open an address or a file in the browser; without a display, say that there is none."""
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        say("no browser is opened, because there is no display here")
        return
    click.launch(address)

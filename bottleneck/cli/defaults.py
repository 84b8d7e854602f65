"""The first line of a command that is given no IMAGES: what it takes instead, and why."""

from __future__ import annotations

import os
from pathlib import Path

from bottleneck.cli.output import say


def images_line(images: object, cache: str | os.PathLike[str], model: str | None = None) -> None:
    """Say which images are taken where none are named, and with which features; say nothing where they are named.

    Parameters
    ----------
    images : object
        As the user named them; None or empty where they did not.
    cache : path
    model : str, optional
        As the user named it.

    Raises
    ------
    CacheError
        If nothing was extracted in the current folder.
    """
    from bottleneck.fitting.inputs import default_images

    if images:
        return
    last = default_images(Path(cache))
    features = "" if model or last.store is None else f", features of {last.store[:-56]}"
    why = "last extracted in this folder" if last.finished else "last extracted in this folder, not to the end"
    say(f"images: {last.shown}{features} ({why})")


def head_line(images: str | None, runs: str | os.PathLike[str]) -> None:
    """Say which head is handed back where no run is named, and why.

    Raises
    ------
    TuningError, RunError
        If there is none.
    """
    from bottleneck.finetuning.initial import default_head

    say(f"head: {default_head(runs, images)}")


def extracted_line(images: object, cache: str | os.PathLike[str]) -> None:
    """Say which images are extracted where none are named."""
    from bottleneck.cache.last import load_last

    if images:
        return
    last = load_last(Path(cache))
    if last:
        say(f"images: {last.shown} (last extracted in this folder)")
    else:
        say(f"images: {Path.cwd()} (the current folder: nothing was extracted in it before)")

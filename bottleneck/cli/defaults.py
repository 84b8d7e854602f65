"""The first line of a command without IMAGES: which default it uses, and why."""

from __future__ import annotations

import os
from pathlib import Path

from bottleneck.cli.output import say


def images_line(images: object, cache: str | os.PathLike[str], model: str | None = None) -> None:
    """Print which images and features are used by default; print nothing if the user names images.

    Parameters
    ----------
    images : object
        The IMAGES of the command; None or empty if there are none.
    cache : path
    model : str, optional
        The value of ``--model``.

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
    why = "last extracted in this folder" if last.finished else "last extracted in this folder, not completed"
    say(f"images: {last.shown}{features} ({why})")


def head_line(images: str | None, runs: str | os.PathLike[str]) -> None:
    """Print which head initialises the fine-tuning by default, and why.

    Raises
    ------
    TuningError, RunError
        If there is none.
    """
    from bottleneck.finetuning.initial import default_head

    say(f"head: {default_head(runs, images)}")


def extracted_line(images: object, cache: str | os.PathLike[str]) -> None:
    """Print which images are extracted by default."""
    from bottleneck.cache.last import load_last

    if images:
        return
    last = load_last(Path(cache))
    if last:
        say(f"images: {last.shown} (last extracted in this folder)")
    else:
        say(f"images: {Path.cwd()} (the current folder, because nothing was extracted in it before)")

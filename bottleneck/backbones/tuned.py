"""Fine-tuned weights: where they are, and the metadata in their file. This module does not import torch."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bottleneck.backbones.request import looks_like_file
from bottleneck.errors import CacheError, WeightsUnavailable
from bottleneck.utils.files import open_regular, parse_json
from bottleneck.utils.names import RUN, run_below, written
from bottleneck.utils.paths import expanded
from bottleneck.utils.schema import Finite, checked
from bottleneck.utils.tree import Tree, memo

WEIGHTS = "model.safetensors"  # in the folder of a run
_KEY = "bottleneck"
_RECORD = "tuned.json"
_LARGEST_HEADER = 16 << 20  # bytes; a header of 20,000 tensors has 3 MB


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Metadata in the weights file of a fine-tuned network.

    Parameters
    ----------
    model : str
        The backbone.
    weights : str
        The weights it started from; for torchvision's networks they decide the preprocessing.
    options : dict of str to int or bool
        Fields of the `Request` that differ from their defaults: ``resize``, ``crop``, ``fast_jpeg``.
    dataset : str
        Digest of the images, labels and splits that it was trained on.
    score : float
        See `bottleneck.runs.run.Run.score`.
    """

    model: str
    weights: str
    options: dict[str, int | bool]
    dataset: str
    score: Finite

    def metadata(self) -> dict[str, str]:
        """Return the metadata of the safetensors file."""
        return {_KEY: json.dumps(vars(self), sort_keys=True)}


def read_tuned(path: Path) -> Tuned | None:
    """Return the metadata of a fine-tuned weights file; None for other files, and if it cannot be read."""
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    with suppress(OSError, ValueError, SafetensorError):
        check_header(path)
        with safe_open(path, "numpy") as file:
            said = (file.metadata() or {}).get(_KEY)
            return None if said is None else checked(parse_json(said), Tuned, closed=True)
    return None


def check_header(path: Path) -> None:
    """Refuse a safetensors file that is not a regular file, or whose header is larger than any network needs.

    Raises
    ------
    OSError
        If it cannot be opened, or is not a regular file.
    ValueError
        If its header is too large.
    """
    with open(path, "rb", opener=open_regular) as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _LARGEST_HEADER:
        raise ValueError(f"expected a header of at most {_LARGEST_HEADER:,} bytes, found one of {size:,}")


def weights_of_run(name: str | os.PathLike[str], runs: str | os.PathLike[str]) -> str:
    """Return the weights file of a fine-tuned run, given as ``run:NAME`` or as its folder; other weights unchanged.

    Raises
    ------
    WeightsUnavailable
        If ``run:NAME`` is not in `runs`, or has no weights.
    """
    text = written(name)
    if text.startswith(RUN):
        file = run_below(runs, text) / WEIGHTS
        if not file.is_file():
            raise WeightsUnavailable(f"expected a fine-tuned run in {file.parent}, found no {WEIGHTS}")
        return written(file)
    if looks_like_file(text) and (file := expanded(text) / WEIGHTS).is_file():
        return written(file)
    return text


def record_tuned(store: Path, found: Tuned) -> None:
    """Record the metadata of a fine-tuned network with its features, so that it is available without the weights file.

    Raises
    ------
    CacheError
        If it cannot be written.
    """
    try:
        Tree.above(store, 2).write_json(store / _RECORD, vars(found))
    except OSError as error:
        raise CacheError(f"cannot write to the cache {store}: {error.strerror or error}") from error


def has_tuned(store: Path) -> bool:
    """Return whether there is a record of a fine-tuned network, readable or not."""
    return os.path.lexists(store / _RECORD)


def recorded_tuned(store: Path) -> Tuned | None:
    """Return the metadata saved by `record_tuned`; None for features of a network that was not fine-tuned."""
    with memo(ValueError):
        return checked(Tree.above(store, 2).read_json(store / _RECORD), Tuned, closed=True)
    return None

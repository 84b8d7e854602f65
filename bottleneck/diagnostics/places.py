"""The folders that bottleneck writes to: whether it may, and how much room they have. Nothing is written."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bottleneck.diagnostics.diagnosis import NOTE, OK, WRONG, Symptom
from bottleneck.diagnostics.probe import Probe
from bottleneck.utils.memory import shown_size
from bottleneck.utils.paths import expanded

_LITTLE = 10**9  # bytes; the weights of a large network
_NO_BYTES = 10**7  # bytes; not even a few shards


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


@dataclass(frozen=True)
class Places:
    """The folders that bottleneck writes to.

    Parameters
    ----------
    cache, runs : str
    paths : bool
        Whether to show where they are.
    free : callable
        Returns the free bytes of the file system that has a folder.
    may_write : callable
        Returns whether this process may create files in a folder.
    """

    cache: str
    runs: str
    paths: bool = False
    free: Callable[[Path], int] = _free
    may_write: Callable[[Path], bool] = _may_write

    def probes(self) -> list[Probe]:
        """Return what looks at each folder."""
        return [
            Probe("cache folder", partial(self._folder, "cache folder", lambda: expanded(self.cache), "--cache")),
            Probe("runs folder", partial(self._folder, "runs folder", lambda: expanded(self.runs), "--runs")),
            Probe("temporary folder", partial(self._folder, "temporary folder", _temporary, "TMPDIR"), _SET_TMPDIR),
            Probe("torch weights", partial(self._weights, "torch weights", _torch_weights, "TORCH_HOME"), state=NOTE),
            Probe("hub weights", partial(self._weights, "hub weights", _hub_weights, "HF_HOME"), state=NOTE),
        ]

    def _folder(self, name: str, where: Callable[[], Path], setting: str, needed: str = WRONG) -> Iterator[Symptom]:
        place = where().absolute()
        shown = f" at {place}" if self.paths else ""
        parent = existing(place)
        if not parent.is_dir():
            yield Symptom(name, f"expected a folder{shown}, found a file", needed, f"Choose another with {setting}.")
            return
        if not self.may_write(parent):
            found = f"not writable{shown}" if parent == place else f"does not exist and cannot be created{shown}"
            yield Symptom(name, found, needed, f"Change its permissions, or choose another with {setting}.")
            return
        free = self.free(parent)
        found = f"{'writable' if parent == place else 'not there yet, can be created'}, {shown_size(free)} free{shown}"
        state = OK if free >= _LITTLE else NOTE if free >= _NO_BYTES else needed
        yield Symptom(name, found, state, "" if state == OK else f"Free some space, or choose another with {setting}.")

    def _weights(self, name: str, where: Callable[[], Path], setting: str) -> Iterator[Symptom]:
        yield from self._folder(name, where, setting, NOTE)


def existing(place: Path) -> Path:
    """Return an absolute path, or the nearest one above it that exists."""
    return next((path for path in (place, *place.parents) if os.path.lexists(path)), place)


_SET_TMPDIR = "Set TMPDIR to a folder that you can write to."


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _torch_weights() -> Path:
    from bottleneck.backbones.catalogue_table import torch_checkpoints

    return torch_checkpoints()


def _hub_weights() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)

"""The table of edited labels, which `extract` and `fit` take as IMAGES."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bottleneck.auditing.table import path_in_table
from bottleneck.exploring.annotations import Annotations
from bottleneck.images.dataset import Dataset
from bottleneck.utils.csv_text import csv_lines

# The name `tags` would be taken for a column of labels.
_HEADER = ("path", "digest", "label", "split", "group", "tagged")


class LabelsTable:
    """Makes the table of a dataset; what edits cannot change is formatted once.

    Parameters
    ----------
    images : Dataset
        Each image once.
    path : Path
        Where the table is written. Paths of images below its folder are relative to it, others are absolute.
    """

    def __init__(self, images: Dataset, path: Path) -> None:
        self._images, self._path = images, path
        self._grouped = any(images.groups)
        self.header = tuple(name for name in _HEADER if self._grouped or name != "group")
        self._lock = threading.Lock()
        self._fixed: tuple[list[str], list[str]] | None = None

    def prepare(self) -> None:
        """Format what edits cannot change."""
        with self._lock:
            if self._fixed is None:
                self._fixed = list(self._before()), list(self._after())

    def to_bytes(self, annotations: Annotations) -> bytes:
        """Return the table: a row for each image that has a label and is not excluded."""
        self.prepare()
        assert self._fixed is not None
        before, after = self._fixed
        cells: dict[str, str] = {}
        lines = [next(csv_lines([self.header]))]
        for row in np.flatnonzero(~annotations.excluded).tolist():
            label, tags = annotations.labels[row], annotations.tags[row]
            if label is None:
                continue
            for text in (label, tags and "; ".join(tags)):
                if text and text not in cells:
                    cells[str(text)] = _cell(str(text))
            lines.append(f"{before[row]},{cells[label]},{after[row]},{cells['; '.join(tags)] if tags else ''}\n")
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _before(self) -> Iterator[str]:
        for path, digest in zip(self._images.paths, self._images.digests, strict=True):
            yield next(csv_lines([[path_in_table(path, self._path), digest.tobytes().hex()]])).rstrip("\n")

    def _after(self) -> Iterator[str]:
        for split, group in zip(self._images.splits, self._images.groups, strict=True):
            yield split if not self._grouped else f"{split},{_cell(group or '')}"


def _cell(text: str) -> str:
    """Return a text as a cell of CSV; an empty one needs no quotation marks beside others."""
    return next(csv_lines([[text, ""]]))[:-2]

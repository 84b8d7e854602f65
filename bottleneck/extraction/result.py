"""The result of an extraction."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.cache.store import Store
from bottleneck.charts.html import block, line, note
from bottleneck.errors import ImagesError
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.failures import by_reason, none_usable
from bottleneck.utils.text import counted, one_line

if TYPE_CHECKING:
    from bottleneck.backbones.restore import Restored
    from bottleneck.engines.records import Check

_SHOWN = 5  # failures in a notebook


@dataclass(frozen=True)
class Note:
    """A remark on an image that was used, such as that its file has several frames."""

    path: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """The result of `bottleneck.extract`.

    Of ``images`` paths, some are among the ``failures`` and some are ``copies`` of others. The features of the rest
    were ``computed`` now or ``reused`` from the cache.
    """

    dataset: Dataset
    store: Store
    dim: int
    computed: int
    reused: int
    copies: int
    failures: tuple[Failure, ...]
    failures_table: Path | None  # the CSV that lists them, if there are any
    notes: tuple[Note, ...]  # on images whose features were computed now
    seconds: float
    engine: str | None = None  # None if nothing had to be computed
    check: "Check | None" = None  # how close the features of the engine are to torch in fp32
    remarks: tuple[str, ...] = ()  # on the choice of the engine
    restored: "Restored | None" = None  # the tensors of a weights file, if the network was built from one

    def __repr__(self) -> str:
        done = f"{self.computed:,} computed", f"{self.reused:,} reused", f"{len(self.failures):,} failed"
        return one_line(self, counted(self.images, "image"), *done, f"{self.dim} features", self.store.short_name)

    def _repr_html_(self) -> str:
        return block(
            f"Features of {self.dataset.source.name}",
            line(f"{self.dim} features of {counted(self.images, 'image')} by {self.store.short_name}"),
            line(f"{self.computed:,} computed in {self.seconds:.1f} s, {self.reused:,} reused, {self.copies:,} copies"),
            *(note(f"{failure.path}: {failure.message}") for failure in self.failures[:_SHOWN]),
            note(f"{counted(len(self.failures), 'image')} failed") if self.failures else None,
            *map(note, self.remarks),
        )

    @property
    def usable(self) -> Dataset:
        """The part of the dataset that has features."""
        return self.dataset.subset(np.flatnonzero(self.store.has(self.dataset.digests)).tolist())

    @property
    def images(self) -> int:
        """Number of image files, including unreadable ones."""
        return len(self.dataset) + len(self.dataset.failures)

    @property
    def unique(self) -> int:
        """Number of distinct images that could be read."""
        return len(self.dataset.first_rows())

    @property
    def ignored(self) -> int:
        """Number of files that were skipped."""
        return sum(self.dataset.ignored.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        spec = self.store.spec
        return {
            "images": self.images,
            "unique": self.unique,
            "copies": self.copies,
            "computed": self.computed,
            "reused": self.reused,
            "failed": len(self.failures),
            "ignored": self.ignored,
            "model": spec.backbone,
            "layer": spec.layer,
            "pooling": spec.pooling,
            "dim": self.dim,
            "fingerprint": spec.fingerprint,
            "seconds": round(self.seconds, 3),
            "engine": self.engine,
            "precision": spec.precision,
            "cosine": self.check.lowest if self.check else None,
            "remarks": list(self.remarks),
            "restored": self.restored.to_json() if self.restored else None,
            "failures": [vars(failure) for failure in self.failures],
            "failures_table": str(self.failures_table) if self.failures_table else None,
            "notes": [vars(note) for note in self.notes],
        }


class NothingUsable(ImagesError):
    """None of the images can be used.

    Parameters
    ----------
    done : Extraction
        Its failures give the reason for each image.
    """

    def __init__(self, done: Extraction) -> None:
        counts = ", ".join(f"{len(group)} {code}" for code, group in by_reason(done.failures).items())
        shown = "; ".join(f"{failure.path}: {failure.message}" for failure in done.failures[:3])
        listed = f". {done.failures_table} lists all failures" if done.failures_table else ""
        super().__init__(f"{none_usable(len(done.failures))} ({counts}): {shown}{listed}")
        self.done = done

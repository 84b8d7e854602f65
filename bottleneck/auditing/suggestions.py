"""The images to label next, with the reason for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck.auditing.pool import Pool
from bottleneck.auditing.table import path_in_table
from bottleneck.charts.html import block, line, note
from bottleneck.images.contact_sheet import MOST, ContactSheet, Tile
from bottleneck.images.dataset import Dataset
from bottleneck.utils.frames import as_frame
from bottleneck.utils.text import counted, one_line

_HEADER = (
    "path",
    "digest",
    "label",
    "suggested",
    "probability",
    "second",
    "margin",
    "familiarity",
    "nearest_labelled",
    "reason",
)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """An image to label.

    Parameters
    ----------
    path : str
        As it was given.
    file : str
        Path of the file, relative to the current folder.
    digest : str
        SHA-256 of the image's bytes, hexadecimal.
    suggested : str or None
        The most probable class; None without a head.
    probability : float or None
        Its probability.
    second : str or None
        The next class.
    margin : float or None
        The difference of their probabilities.
    familiarity : float or None
        See `bottleneck.evaluation.familiarity.Familiarity`.
    nearest_labelled : float or None
        Cosine similarity to the nearest labelled image, of centred features; None if there is none.
    reason : str
    """

    path: str
    file: str
    digest: str
    suggested: str | None
    probability: float | None
    second: str | None
    margin: float | None
    familiarity: float | None
    nearest_labelled: float | None
    reason: str

    @classmethod
    def of(
        cls, pool: Pool, row: int, strategy: str, alike: int, nearest: float | None, *, familiar: bool = True
    ) -> "Suggestion":
        """Return the suggestion of a row of a pool.

        Parameters
        ----------
        pool : Pool
        row : int
        strategy : str
        alike : int
            The number of unfamiliar images like this one; 0 if it was not chosen for that.
        nearest : float, optional
            See `nearest_labelled`.
        familiar : bool
            Whether the image is like the training images of the run.
        """
        common: dict[str, Any] = {
            "path": pool.names[row],
            "file": pool.files[row],
            "digest": pool.digests[row].tobytes().hex(),
            "familiarity": None if pool.familiarity is None else float(pool.familiarity[row]),
            "nearest_labelled": nearest,
        }
        special = _special_reason(alike, familiar=familiar or strategy == "random_sampling")
        if pool.probabilities is None or pool.run is None:
            reason = special or REASONS[strategy]
            return cls(**common, reason=reason, suggested=None, probability=None, second=None, margin=None)
        shares, classes = pool.probabilities[row], pool.run.head.classes
        best, next_best = np.argsort(-shares, kind="stable")[:2].tolist()
        doubt = f"{classes[best]} or {classes[next_best]}, margin {shares[best] - shares[next_best]:.2f}"
        return cls(
            **common,
            reason=special or (doubt if strategy in _UNCERTAIN else REASONS[strategy]),
            suggested=classes[best],
            probability=float(shares[best]),
            second=classes[next_best],
            margin=float(shares[best] - shares[next_best]),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return dict(vars(self))


UNLIKE = "unlike the labelled images"
_UNCERTAIN = ("margin_sampling", "entropy")
REASONS = {
    "margin_sampling": "the two most probable classes are nearly equally probable",
    "entropy": "the probabilities are spread over several classes",
    "core_set": "far from labelled images and other suggestions",
    "typi_clust": "typical of a cluster without a labelled image",
    "random_sampling": "drawn at random",
}


@dataclass(frozen=True, kw_only=True)
class Suggestions(Sequence[Suggestion]):
    """The images to label next, the most useful first: a sequence of `Suggestion`.

    Parameters
    ----------
    pool : Pool
    strategy : str
    budget : int
        The number of images to choose.
    items : tuple of Suggestion
    """

    pool: Pool
    strategy: str
    budget: int
    items: tuple[Suggestion, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __repr__(self) -> str:
        return one_line(self, f"{len(self)} of {counted(len(self.pool), 'image')}", self.strategy)

    def _repr_html_(self) -> str:
        tiles = [Tile(one.file, one.suggested or "?", bytes.fromhex(one.digest)) for one in self.items[:MOST]]
        return block(
            f"{len(self)} of {counted(len(self.pool), 'image')} to label next",
            line(f"chosen by {self.strategy.replace('_', ' ')}; below each picture, the most probable class"),
            ContactSheet(tiles, left_out=len(self) - len(tiles)).to_html(),
            *map(note, self.pool.remarks),
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        pool = self.pool
        return {
            "run": str(pool.run.path) if pool.run else None,
            "model": pool.model,
            "strategy": self.strategy,
            "budget": self.budget,
            "pool": len(pool),
            "labelled": len(pool.labelled),
            "left_out": {"labelled": pool.known, "copies": pool.copies},
            "suggestions": [item.to_json() for item in self.items],
            "remarks": list(pool.remarks),
            "failed": len(pool.failures),
            "failures": [vars(failure) for failure in pool.failures],
        }

    def to_rows(self, table: Path | None = None, labelled: Dataset | None = None) -> Iterator[list[object]]:
        """Yield the header and the rows of a table to label, whose column ``label`` is empty.

        Parameters
        ----------
        table : Path, optional
            Where the table is written. Paths of images below its folder are relative to it, others are absolute. By
            default, paths are as they were given.
        labelled : Dataset, optional
            Images with labels, which follow in additional rows. The table then has a column ``split``, in which
            suggestions are training images: difficult images would not be a fair test.
        """
        header = _HEADER if labelled is None else (*_HEADER, "split")
        yield list(header)
        for item in self.items:
            path = path_in_table(item.file, table) if table else item.path
            cells = {**vars(item), "label": None, "split": "train", "path": path}
            yield [f"{cell:.6f}" if isinstance(cell, float) else cell for cell in (cells[name] for name in header)]
        if labelled is not None:
            yield from (_labelled_row(labelled, row, table, header) for row in range(len(labelled)))

    def to_frame(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row for each suggestion, and its fields as columns.

        Raises
        ------
        BottleneckError
            If pandas is not installed.
        """
        names = [field.name for field in fields(Suggestion)]
        return as_frame([names, *([getattr(item, name) for name in names] for item in self.items)])


def _labelled_row(labelled: Dataset, row: int, table: Path | None, header: Sequence[str]) -> list[object]:
    path = labelled.paths[row]
    cells: dict[str, object] = {
        "path": path_in_table(path, table) if table else path,
        "digest": labelled.digests[row].tobytes().hex(),
        "label": labelled.labels[row],
        "split": labelled.splits[row],
    }
    return [cells.get(name) for name in header]


def _special_reason(alike: int, *, familiar: bool) -> str:
    """Return why an image that is not like the labelled ones is suggested; empty for others."""
    if alike:
        return f"{UNLIKE}, but like {counted(alike, 'other image')}: a new class?"
    return "" if familiar else f"{UNLIKE}; the pool has no others"

"""The result of a scan: path, digest, label, split and group of each image, and the failures."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bottleneck.errors import ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.contact_sheet import MOST, SIDE, ContactSheet, Tile, contact_sheet
from bottleneck.images.dataset_html import dataset_html
from bottleneck.images.keys import Digests, DigestSet
from bottleneck.images.splits import Shares, assign
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.files import canonical_json, sha256_hex
from bottleneck.utils.text import counted, one_line


@dataclass(frozen=True)
class Failure:
    """An image that cannot be used: listed, counted, never replaced."""

    path: str
    code: str
    message: str
    digest: str | None = None  # hexadecimal; None where the bytes could not be read


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The images of a folder, CSV or file, in the order of their paths.

    Parameters
    ----------
    source : Path
        Absolute path of the folder, CSV or file that was scanned.
    paths : sequence of str
        Several paths may contain the same image.
    digests : ndarray of uint8, shape (n, 32)
        SHA-256 of each file's bytes.
    labels, given_splits, groups : sequence of str or None
        From folders or the CSV; None if not given.
    shares : Shares
        How to split images without a given split.
    decided : sequence of str, optional
        For a subset: the splits that its images have in the full dataset.
    failures : sequence of Failure
        Images that could not be read.
    ignored : dict of str to int
        The number of skipped files, by reason.
    columns : Columns
        The named columns of a table.
    """

    source: Path
    paths: tuple[str, ...]
    digests: Digests
    labels: tuple[str | None, ...]
    given_splits: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    shares: Shares = field(default_factory=Shares)
    decided: tuple[str, ...] | None = None
    failures: tuple[Failure, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        classes = counted(len(self.classes), "class") if self.labelled else "no labels"
        failed = f"{len(self.failures):,} failed" if self.failures else ""
        return one_line(self, counted(len(self), "image"), classes, failed, str(self.source))

    def _repr_html_(self) -> str:
        return dataset_html(self.source, self.labels, self.splits, len(self.failures))

    def show(self, rows: Any = None, *, columns: int | None = None, size: int = SIDE, most: int = MOST) -> ContactSheet:
        """Return a contact sheet, which notebooks show: small pictures with the number of their row and their label.

        Parameters
        ----------
        rows : int, sequence of int, slice, or mask of bool, optional
            By default as many as `most`, evenly spread over the dataset.
        columns : int, optional
            By default as many as there is room for.
        size : int
            Length of the longer side of each picture, from 16 to 1024 pixels.
        most : int
            The largest number of pictures. The sheet tells how many images are left out.

        Returns
        -------
        ContactSheet
            The pictures are upright. One that cannot be read or decoded, or has changed, is shown as such.

        Raises
        ------
        ImagesError
            If there is no such row, or an argument is not one of these.
        """
        return contact_sheet(self._tile, len(self), rows, columns=columns, size=size, most=most)

    def _tile(self, row: int) -> Tile:
        label = self.labels[row]
        caption = str(row) if label is None else f"{row} · {label}"
        return Tile(self.paths[row], caption, self.digests[row].tobytes())

    @property
    def labelled(self) -> bool:
        """Whether every image has a label."""
        return bool(self.paths) and all(label is not None for label in self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, sorted."""
        return tuple(sorted({label for label in self.labels if label is not None}))

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The split of each image: the given one, or one derived from its digest or group."""
        if self.decided is not None:
            return self.decided
        return assign(self.digests, self.groups, self.given_splits, self.shares)

    def with_shares(self, shares: Shares) -> "Dataset":
        """Return the dataset with other shares for images without a given split."""
        return replace(self, shares=shares, decided=None)

    def subset(self, rows: Iterable[int]) -> "Dataset":
        """Return the dataset of the given rows, in that order, with unchanged splits.

        Failures and skipped files are not included.
        """
        index = list(rows)

        def pick(column: Sequence[str | None]) -> tuple[str | None, ...]:
            return tuple(column[i] for i in index)

        return replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            digests=self.digests[index],
            labels=pick(self.labels),
            given_splits=pick(self.given_splits),
            groups=pick(self.groups),
            decided=tuple(self.splits[i] for i in index),
            failures=(),
            ignored={},
        )

    def first_rows(self) -> NDArray[np.intp]:
        """Return the row of each image's first path, in the order of the paths."""
        return DigestSet(self.digests).rows

    def fingerprint(self) -> str:
        """Return the hash of the training information: the set of (digest, label, split, group)."""
        rows = zip(self.digests, self.labels, self.splits, self.groups, strict=True)
        return sha256_hex(canonical_json(sorted({(row.tobytes().hex(), a or "", b, c or "") for row, a, b, c in rows})))

    def content_digest(self) -> str:
        """Return the hash of the set of (digest, label), independent of splits."""
        rows = {(row.tobytes().hex(), label or "") for row, label in zip(self.digests, self.labels, strict=True)}
        return sha256_hex(canonical_json(sorted(rows)))


def as_images(images: object) -> str | Dataset | None:
    """Validate images passed by a caller: a dataset, None, or a path, which is returned as a string.

    Raises
    ------
    ImagesError
        If it is something else.
    """
    return images if images is None or isinstance(images, Dataset) else Arguments(ImagesError).path("images", images)


def two_labels(dataset: Dataset) -> dict[bytes, list[str]]:
    """Return digest -> paths of the images with more than one label."""
    return {dataset.digests[rows[0]].tobytes(): [dataset.paths[i] for i in rows] for rows in conflicting_rows(dataset)}


def conflicting_rows(dataset: Dataset) -> list[list[int]]:
    """Return the rows of each image with more than one label."""
    first = DigestSet(dataset.digests).find(dataset.digests)
    copies: defaultdict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(first != np.arange(len(first))).tolist():
        copies[int(first[row])].append(row)
    together = [[row, *others] for row, others in sorted(copies.items())]
    return [rows for rows in together if len({dataset.labels[i] for i in rows}) > 1]

"""The files of a source before they are read: paths, labels, and the digests known from the memo."""

import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.errors import ImageError, ImagesError, PathError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure, conflicting_rows
from bottleneck.images.digest import DigestMemo, Signature, signature
from bottleneck.images.folders import Found, find_labelled, find_unlabelled
from bottleneck.images.keys import as_digests
from bottleneck.images.listing import Listing
from bottleneck.images.naming import examples, from_images
from bottleneck.images.splits import Shares
from bottleneck.images.table import find_listed, is_table
from bottleneck.utils.arguments import Arguments
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import look_alikes
from bottleneck.utils.warn import warn

_BATCH = 1024


@dataclass
class FileIndex:
    """The image files of a source, with their digests as they become known.

    Parameters
    ----------
    source : Path
    found : Found
    shares : Shares
    memo : DigestMemo or None
    digests : list of bytes or None
        Digest of each path; None until the file is read.
    columns : Columns
        The named columns of a table.
    batch : int
        Number of files between two writes to the memo.
    """

    source: Path
    found: Found
    shares: Shares
    memo: DigestMemo | None
    digests: list[bytes | None]
    columns: Columns = field(default_factory=Columns)
    batch: int = _BATCH
    _failures: dict[int, Failure] = field(default_factory=dict)
    _read: list[tuple[str, Signature, bytes, float]] = field(default_factory=list)
    _recent: list[int] = field(default_factory=list)
    _given: Dataset | None = None
    _warned: bool = False  # whether the user was warned that digests cannot be stored

    @classmethod
    def of(cls, dataset: Dataset) -> "FileIndex":
        """Return the index of a dataset, of which every digest is known."""
        found = Found(paths=list(dataset.paths))
        return cls(
            dataset.source, found, dataset.shares, None, [row.tobytes() for row in dataset.digests], _given=dataset
        )

    @property
    def paths(self) -> list[str]:
        """The path of each file."""
        return self.found.paths

    def unknown(self) -> list[int]:
        """Return the rows whose files must be read to know their digests."""
        return [row for row, digest in enumerate(self.digests) if digest is None and row not in self._failures]

    def forget(self) -> None:
        """Discard all digests, so that every file is read again and the memo updated."""
        if self.memo:
            self.memo.forget(os.path.abspath(path) for path in self.paths)
            self.digests = [None] * len(self.paths)

    def record_digest(self, row: int, digest: bytes, found: Signature, when: float) -> None:
        """Record the digest of a file that was read at `when`, seconds since the epoch."""
        self.digests[row] = digest
        self._read.append((os.path.abspath(self.paths[row]), found, digest, when))
        if self.memo and not self.memo.settles(self._read[-1][0], found, when):
            self._recent.append(row)
        if len(self._read) >= self.batch:
            self.save()

    def record_failure(self, row: int, error: ImageError) -> None:
        """Record why a file cannot be read."""
        self._failures[row] = Failure(self.paths[row], error.code, str(error))

    def recent(self, now: float | None = None) -> "FileIndex":
        """Return an index of the files that were too recent for the memo when they were read, and are old enough now.

        `now` is in seconds since the epoch; by default the current time.
        """
        found, part, now = self.found, Found(), time.time() if now is None else now
        statuses = dict(_signatures([found.paths[row] for row in self._recent]))
        for row in self._recent:
            path = found.paths[row]
            if self.memo and path in statuses and self.memo.settles(path, statuses[path], now):
                part.add(path, found.labels[row], found.splits[row], found.groups[row])
        return FileIndex(self.source, part, self.shares, self.memo, [None] * len(part.paths), _warned=self._warned)

    def save(self) -> None:
        """Store new digests in the memo."""
        read, self._read = self._read, []
        if not self.memo or not read:
            return
        self.memo.remember(read)
        if not self.memo.is_writable and not self._warned:
            self._warned = True
            warn(
                f"{self.memo.path} cannot be written by this user, so each command reads the files again: make it and "
                f"its folder writable (chmod g+w), or use another --cache"
            )

    def dataset(self) -> Dataset:
        """Return the dataset of the files that could be read."""
        if self._given is not None:
            return self._given
        rows = [row for row, digest in enumerate(self.digests) if digest is not None]
        return Dataset(
            source=self.source.absolute(),
            paths=tuple(self.paths[row] for row in rows),
            digests=as_digests([digest for digest in self.digests if digest is not None]),
            labels=tuple(self.found.labels[row] for row in rows),
            given_splits=tuple(self.found.splits[row] for row in rows),
            groups=tuple(self.found.groups[row] for row in rows),
            shares=self.shares,
            failures=(*self.found.failures, *(self._failures[row] for row in sorted(self._failures))),
            ignored=dict(sorted(self.found.ignored.items())),
            columns=self.columns,
        )


def index_files(
    images: str | os.PathLike[str],
    *,
    labels: bool,
    shares: Shares,
    cache: str | os.PathLike[str] | None,
    exclude: Collection[str | os.PathLike[str]],
    columns: Columns | None = None,
) -> FileIndex:
    """Find the image files of a source and look up their digests, without reading images.

    Parameters, errors and warnings are those of `bottleneck.scan`.
    """
    try:
        source = expanded(images)
    except PathError as error:
        raise ImagesError(
            f"expected a folder of images, a CSV or an image; {images} does not exist: {error}"
        ) from error
    home = None if cache is None else expanded(cache)
    skipped = Arguments(ImagesError).paths("exclude", exclude)
    excluded = {folder.resolve() for folder in (*map(expanded, skipped), *([home] if home else []))}
    named = columns or Columns()
    if named and not is_table(source):
        raise ImagesError(f"expected a table with {named.options()}, such as images.csv; {source} is not a table")
    found = _find(source, labels, excluded, named)
    _check(found, source)
    return index_found(found, source, shares, home, named)


def index_listed(listing: Listing, *, shares: Shares, cache: str | os.PathLike[str] | None) -> FileIndex:
    """Index images that are listed in memory; errors and warnings are those of `bottleneck.scan`."""
    found = listing.found()
    _check(found, listing.source)
    home = None if cache is None else expanded(cache)
    return index_found(found, listing.source, shares, home, Columns())


def index_found(found: Found, source: Path, shares: Shares, cache: Path | None, columns: Columns) -> FileIndex:
    """Index the files that were found, with the digests that the memo holds."""
    memo = DigestMemo(cache / "digests.sqlite") if cache is not None else None
    full = [os.path.abspath(path) for path in found.paths]
    known = memo.lookup(dict(_signatures(full))) if memo else {}
    return FileIndex(source, found, shares, memo, [known.get(path) for path in full], columns)


def _find(source: Path, labels: bool, exclude: Collection[Path], columns: Columns) -> Found:
    if os.path.isdir(source):  # unlike Path.is_dir, no error for a name that is too long
        return find_labelled(source, exclude) if labels else find_unlabelled(source, exclude)
    if is_table(source):
        return find_listed(source, labelled=labels, columns=columns)
    if not os.path.lexists(source):
        raise ImagesError(f"expected a folder of images, a CSV or an image; {source} does not exist")
    found = Found()
    found.add(str(source), None)
    return found


def _signatures(paths: list[str]) -> Iterator[tuple[str, Signature]]:
    for path in paths:
        try:
            yield path, signature(os.stat(path))
        except (OSError, ValueError):
            continue  # reading the file will raise the error


def _check(found: Found, source: Path) -> None:
    if not found.paths and not found.failures:
        raise no_images(source, found)
    classes = sorted({label for label in found.labels if label is not None})
    if len(classes) == 1:
        raise ImagesError(
            f"expected at least two classes in {source}, found one: {classes[0]!r}. Put each class into its own "
            f"folder, or use --no-labels for images without labels"
        )
    for remark in (*found.remarks, *_remarks(found, source, classes)):
        warn(remark)


def _remarks(found: Found, source: Path, classes: list[str]) -> Iterator[str]:
    """Yield warnings about the names of classes and groups."""
    if empty := [from_images(folder, source) for folder in found.empty_classes]:
        yield f"{_count(empty, 'empty class folder')}: {examples(empty)}"
    if several := found.spellings.several():
        yield f"names in two forms of Unicode (composed and decomposed accents) count as one: {examples(several)}"
    if padded := found.spellings.padded():
        yield f"names with and without spaces around them count as one: {examples(padded)}"
    groups = {group for group in found.groups if group is not None}
    for kind, names in (("classes", classes), ("groups", groups)):
        if pairs := [" and ".join(alike) for alike in look_alikes(names)]:
            yield f"{kind} that differ only by case or spaces: {examples(pairs)}. Rename them if they are the same"


def conflicts(dataset: Dataset, listed: str) -> str | None:
    """Return a message about images with several labels; None if there are none.

    Parameters
    ----------
    dataset : Dataset
    listed : str
        A sentence on where all of them are listed.
    """
    ambiguous = conflicting_rows(dataset)
    if not ambiguous:
        return None
    which = "one image with two labels" if len(ambiguous) == 1 else f"{len(ambiguous)} images with two labels each"
    shown = examples((_with_labels(dataset, rows) for rows in ambiguous), most=2)
    return f"{which}, left out by fit: {shown}. {listed}"


def _with_labels(dataset: Dataset, rows: list[int]) -> str:
    """Return the first path for each label of an image, with that label."""
    first: dict[str, list[str]] = {}
    for label, row in {dataset.labels[row]: row for row in reversed(rows)}.items():
        first.setdefault(from_images(dataset.paths[row], dataset.source), []).append(str(label))
    return " and ".join(f"{path} ({', '.join(sorted(labels))})" for path, labels in sorted(first.items()))


def no_images(source: str | os.PathLike[str], found: Found) -> ImagesError:
    """Return the error for a source without images, with the skipped files."""
    return ImagesError(f"expected images in {source}, found none{_ignored(dict(sorted(found.ignored.items())))}")


def _ignored(ignored: dict[str, int]) -> str:
    if not ignored:
        return ""
    listed = ", ".join(f"{count} {reason}" for reason, count in ignored.items())
    return f"; skipped {listed}. Image files end in .jpg, .png, .webp, .tif, .bmp, .ppm or .pgm"


def _count(names: list[str], noun: str) -> str:
    return noun if len(names) == 1 else f"{len(names)} {noun}s"

"""Images in the order in which the user names them: one entry for each file or row of a table, with duplicates."""

import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bottleneck.errors import ImagesError, PathError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.file_index import FileIndex, index_found, no_images
from bottleneck.images.folders import Found, find_labelled, find_unlabelled
from bottleneck.images.listing import Listing
from bottleneck.images.splits import Shares
from bottleneck.images.table import ImageTable, is_table, read_table
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import normal

FOLDER, TABLE, FILE = "folder", "table", "file"


@dataclass(frozen=True)
class ImageArgument:
    """An argument that names images: a folder, a CSV, or a file.

    Parameters
    ----------
    name : str
        The argument.
    kind : str
        ``folder``, ``table`` or ``file``.
    labels : tuple of str or None
        Label of each entry: the class folder, or the cell of the label column.
    groups : tuple of str or None
        Group of each entry.
    problem : str or None
        Why the labels of a table cannot be used.
    """

    name: str
    kind: str
    labels: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    problem: str | None = None

    def __str__(self) -> str:
        named = {FOLDER: "the folders of", TABLE: "the column of labels of"}.get(self.kind, "the labels of")
        return f"{named} {self.name}"


@dataclass(frozen=True)
class Given:
    """Image files in the order of the arguments.

    Parameters
    ----------
    names : tuple of str, length n
        Each path as given: the cell of a CSV, the argument, or a path below it.
    files : tuple of str, length n
        Paths of the files, relative to the current folder.
    origins : tuple of ImageArgument
        The arguments; their entries are in the same order.
    failures : tuple of Failure
        Unreadable files, by their path in `files`.
    ignored : dict of str to int
        The number of skipped files in folders, by reason.
    """

    names: tuple[str, ...]
    files: tuple[str, ...]
    origins: tuple[ImageArgument, ...]
    failures: tuple[Failure, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each entry; None if it has none."""
        return tuple(label for origin in self.origins for label in origin.labels)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """The group of each entry; None if it has none."""
        return tuple(group for origin in self.origins for group in origin.groups)

    @property
    def source(self) -> Path:
        """The path of a single argument, for messages."""
        return Path(self.origins[0].name) if len(self.origins) == 1 else Path()

    def index(self, cache: str | os.PathLike[str] | None) -> FileIndex:
        """Return the index of the distinct files, with the digests known from the cache."""
        lost = {failure.path for failure in self.failures}
        paths = [path for path in dict.fromkeys(self.files) if path not in lost]
        found = Found(failures=list(self.failures), ignored=Counter(self.ignored))
        for path in paths:
            found.add(path, None)
        home = None if cache is None else expanded(cache)
        return index_found(found, self.source, Shares(), home, Columns())


def given_by(dataset: Dataset) -> Given:
    """Return the images of a scan in its order, followed by the files that could not be read."""
    names = (*dataset.paths, *(failure.path for failure in dataset.failures))
    lost = (None,) * len(dataset.failures)
    origin = ImageArgument(str(dataset.source), FILE, (*dataset.labels, *lost), (*dataset.groups, *lost))
    return Given(names, names, (origin,), tuple(dataset.failures))


def given_in_memory(listing: Listing) -> Given:
    """Return the rows of a DataFrame."""
    return Given(listing.paths, listing.paths, (ImageArgument("the table", TABLE, listing.labels, listing.groups),))


def list_given(
    images: Sequence[str],
    *,
    labelled: bool = True,
    columns: Callable[[Path], Columns] = lambda _: Columns(),
    exclude: Collection[str | os.PathLike[str]],
) -> Given:
    """Return the images of folders, tables and files, in the order of the arguments.

    Parameters
    ----------
    images : sequence of str
        A missing file is a failed image, unless it is the only argument.
    labelled : bool
        Whether to read labels, from class folders and label columns.
    columns : callable, optional
        Returns the columns of a table.
    exclude : collection of paths
        Folders to skip.

    Raises
    ------
    ImagesError
        If there is no argument, a folder contains no image, or a table is invalid.
    """
    if not images or not all(images):
        found = "an empty name" if images else "none"
        raise ImagesError(f"expected the path of a folder, a table or an image, got {found}")
    if len(images) == 1 and not os.path.lexists(expanded(images[0])):
        raise ImagesError(f"expected a folder of images, a table or an image; {images[0]} does not exist")
    skip = {expanded(folder).resolve() for folder in exclude}
    parts = [_list_one(name, labelled, columns, skip) for name in images]
    ignored: Counter[str] = Counter()
    for part in parts:
        ignored.update(part.ignored)
    return Given(
        tuple(name for part in parts for name in part.names),
        tuple(file for part in parts for file in part.files),
        tuple(origin for part in parts for origin in part.origins),
        tuple(dict.fromkeys(failure for part in parts for failure in part.failures)),
        dict(sorted(ignored.items())),
    )


def names_in_table(dataset: Dataset) -> dict[str, str]:
    """Return path -> cell for the images of a table, so that results can be joined with the table.

    For folders, and for a missing or invalid table, the result is empty.
    """
    if not is_table(dataset.source):
        return {}
    with suppress(ImagesError, OSError):
        rows = read_table(dataset.source, labelled=False, columns=dataset.columns).rows
        where = _Places()
        cells = {where.of(row.file): row.path for row in reversed(rows)}
        paths = (*dataset.paths, *(failure.path for failure in dataset.failures))
        return {path: cells[where.of(path)] for path in paths if where.of(path) in cells}
    return {}


class _Places:
    """Canonical paths of files; each folder is resolved only once."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def of(self, path: str) -> str:
        """Return the absolute path, with links in its folder resolved."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def _list_one(name: str, labelled: bool, columns: Callable[[Path], Columns], exclude: set[Path]) -> Given:
    try:
        place = expanded(name)
    except PathError as error:  # an unknown user: the image fails like a missing file
        return Given(
            (name,), (name,), (ImageArgument(name, FILE, (None,), (None,)),), (Failure(name, "unreadable", str(error)),)
        )
    if os.path.isdir(place):
        return _list_folder(name, place, labelled, exclude)
    if is_table(place):
        return _list_table(name, place, labelled, columns(place))
    return Given((name,), (str(place),), (ImageArgument(name, FILE, (None,), (None,)),))


def _list_folder(name: str, folder: Path, labelled: bool, exclude: set[Path]) -> Given:
    """Return every image below a folder, in the order of their paths, including those that cannot be read."""
    found = find_unlabelled(folder, exclude)
    files = sorted([*found.paths, *(failure.path for failure in found.failures)], key=lambda file: Path(file).parts)
    if not files:
        raise no_images(name, found)
    labels = _class_folders(folder, exclude) if labelled else {}
    above = len(folder.parts)
    return Given(
        tuple(os.path.join(name, *Path(file).parts[above:]) for file in files),
        tuple(files),
        (ImageArgument(name, FOLDER, tuple(labels.get(file) for file in files), (None,) * len(files)),),
        tuple(found.failures),
        dict(found.ignored),
    )


def _class_folders(folder: Path, exclude: set[Path]) -> dict[str, str | None]:
    """Return the class folder of each image; empty if subfolders are not classes."""
    try:
        found = find_labelled(folder, exclude)
    except ImagesError:
        return {}
    return dict(zip(found.paths, (None if label is None else normal(label) for label in found.labels), strict=True))


def _list_table(name: str, path: Path, labelled: bool, columns: Columns) -> Given:
    table, problem = _read(path, labelled, columns)
    if not table.rows:
        raise ImagesError(f"expected images in {name}, found a table without rows")
    return Given(
        tuple(row.path for row in table.rows),
        tuple(row.file for row in table.rows),
        (
            ImageArgument(
                name, TABLE, tuple(row.label for row in table.rows), tuple(row.group for row in table.rows), problem
            ),
        ),
    )


def _read(path: Path, labelled: bool, columns: Columns) -> tuple[ImageTable, str | None]:
    """Return a table with labels; if they are missing or invalid, without labels and with the reason."""
    if not labelled:
        return read_table(path, labelled=False, columns=columns), None
    try:
        return read_table(path, labelled=True, columns=columns, partly=True), None
    except ImagesError as error:
        return read_table(path, labelled=False, columns=columns), str(error)

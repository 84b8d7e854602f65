"""Images listed in memory: lists, arrays, Series and DataFrames of paths, labels, splits and groups."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bottleneck.errors import ImagesError
from bottleneck.images.columns import Columns, read_header
from bottleneck.images.dataset import Dataset
from bottleneck.images.folders import Found
from bottleneck.images.splits import split_named
from bottleneck.utils.arguments import abbreviated, plain
from bottleneck.utils.csv_text import csv_bytes, escape_cell
from bottleneck.utils.files import sha256_hex
from bottleneck.utils.paths import expanded
from bottleneck.utils.text import is_unicode

_COLUMNS = ("path", "label", "split", "group")
_Cell = TypeVar("_Cell")


class DataFrameLike(Protocol):
    """A table with named columns, such as a DataFrame of pandas or polars."""

    @property
    def columns(self) -> Iterable[Any]:
        """The names of the columns."""

    def __getitem__(self, name: Any, /) -> Any:
        """Return a column."""


Values = Iterable[Any]  # a list, tuple, array or Series
Images = str | os.PathLike[str] | Dataset | DataFrameLike | Values


@dataclass(frozen=True)
class Listing:
    """Images in the listed order, with duplicates.

    Parameters
    ----------
    paths : tuple of str, length n
        Relative to the current folder.
    labels, splits, groups : tuple of str or None, length n
    source : Path
        A path that identifies the list, derived from its contents. `table` may be written there.
    remark : str or None
        A message about the columns of a DataFrame.
    """

    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    groups: tuple[str | None, ...]
    source: Path = Path()
    remark: str | None = None

    def found(self) -> Found:
        """Return the images in the form in which a scan finds them."""
        found = Found(remarks=[self.remark] if self.remark else [])
        for row in zip(self.paths, self.labels, self.splits, self.groups, strict=True):
            found.add(*row)
        return found

    def table(self) -> bytes:
        """Return a CSV of the images with paths relative to the folder of `source`.

        If `escape_cell` changes a cell, an empty column ``digest`` marks the table as written by bottleneck.
        """
        columns = dict(zip(_COLUMNS, (self.paths, self.labels, self.splits, self.groups), strict=True))
        used = [name for name, cells in columns.items() if name == "path" or any(cell is not None for cell in cells)]
        home = os.path.realpath(self.source.parent)
        rows = [
            [_relative_path(home, str(path)), *(cell or "" for cell in cells)]
            for path, *cells in zip(*(columns[name] for name in used), strict=True)
        ]
        if any(escape_cell(cell) != cell for row in rows for cell in row):
            used, rows = [*used, "digest"], [[*row, ""] for row in rows]
        return csv_bytes([used, *rows], quote_all=True)


def listed(
    images: Images | None,
    *,
    paths: Values | DataFrameLike | None,
    labels: bool | Values,
    splits: Values | None,
    groups: Values | None,
    columns: Columns,
    cache: str | os.PathLike[str] | None,
) -> Listing | None:
    """Return the images listed in memory; None if `images` is a path or a dataset.

    Parameters
    ----------
    images : path, Dataset, list of paths or DataFrame, optional
    paths : list of paths, optional
        Or a tuple, an array, a Series of any index, or a DataFrame.
    labels : bool or list
        Labels of `paths`; or whether a DataFrame has labels.
    splits, groups : list, optional
        Splits and groups of `paths`; None and NaN mean none.
    columns : Columns
        Columns of a DataFrame.
    cache : path or None
        Where the list may be stored.

    Raises
    ------
    ImagesError
        If lists differ in length, a path or label is missing, or a split is unknown; the message names the row.
    """
    if images is not None and paths is not None:
        raise ImagesError("expected images or paths, got both")
    in_memory = images is not None and not isinstance(images, str | os.PathLike | Dataset)
    rows = images if in_memory else paths
    if rows is None:
        if isinstance(labels, str | bytes) or not (_is_flag(labels) or isinstance(labels, Iterable)):
            raise ImagesError(f"expected labels to be True or False, got {abbreviated(labels)}")
        if not _is_flag(labels) or splits is not None or groups is not None:
            raise ImagesError("expected paths= together with labels=, splits= or groups=, got none")
        return None
    if hasattr(rows, "columns") and hasattr(rows, "__getitem__"):
        if not _is_flag(labels) or splits is not None or groups is not None:
            raise ImagesError(
                "expected labels, splits and groups in columns of the table: name them with label_column=, "
                "split_column=, group_column="
            )
        found = _of_frame(rows, columns, labelled=bool(labels))
    else:
        if columns:
            raise ImagesError(f"expected a table with {columns.options()}, got a list of paths")
        found = _of_lists(rows, None if _is_flag(labels) else labels, splits, groups)
    if not found.paths:
        raise ImagesError("expected paths of images, got none")
    return _with_source(found, cache)


def listed_frame(frame: Any, columns: Columns) -> Listing:
    """Return the rows of a DataFrame, with labels if it has a label column.

    Raises
    ------
    ImagesError
        If it has no path column, or a path is missing; the message names the row.
    """
    try:
        return _of_frame(frame, columns, labelled=True)
    except ImagesError:
        return _of_frame(frame, replace(columns, label=None), labelled=False)


def _of_lists(paths: Any, labels: Any, splits: Any, groups: Any) -> Listing:
    files = _column("paths", paths, _path)
    count = len(files)
    return Listing(
        tuple(files),
        _of_length(count, "labels", labels, _label),
        _of_length(count, "splits", splits, _split),
        _of_length(count, "groups", groups, _group),
    )


def _of_frame(frame: Any, columns: Columns, *, labelled: bool) -> Listing:
    names = list(frame.columns)
    header = read_header("the table", [str(name) for name in names], columns, labelled=labelled)

    def split(cell: object) -> str | None:
        return None if _is_missing(cell) else _known_split(cell, header.split(str(cell)))

    cells = {
        role: _column(f"column {header.names[place]}", frame[names[place]], convert)
        for role, convert in (("path", _path), ("label", _label), ("split", split), ("group", _group))
        if (place := header.places.get(role)) is not None
    }
    nothing = [None] * len(cells["path"])
    paths, labels, splits, groups = (tuple(cells.get(role, nothing)) for role in _COLUMNS)
    columns_as_text = [
        ["" if _is_missing(cell) else str(cell) for cell in frame[name]]
        if place in header.unused
        else [""] * len(paths)
        for place, name in enumerate(names)
    ]
    remark = header.remark("the table", zip(*columns_as_text, strict=True))
    return Listing(paths, labels, splits, groups, remark=remark)


def _with_source(listing: Listing, cache: str | os.PathLike[str] | None) -> Listing:
    """Set the source to a name derived from the contents of the list."""
    home = Path() if cache is None else expanded(cache) / "datasets"
    rows = zip(listing.paths, listing.labels, listing.splits, listing.groups, strict=True)
    name = sha256_hex("\n".join(map(repr, rows)).encode())[:16]
    return replace(listing, source=home / f"list-{name}.csv")


def _of_length(count: int, what: str, values: Any, convert: Callable[[object], _Cell]) -> tuple[_Cell | None, ...]:
    if values is None:
        return (None,) * count
    cells = _column(what, values, convert)
    if len(cells) != count:
        raise ImagesError(f"expected as many {what} as paths, {count}; found {len(cells)}")
    return tuple(cells)


def _column(what: str, values: Any, convert: Callable[[object], _Cell]) -> list[_Cell]:
    if isinstance(values, str | bytes | os.PathLike | Mapping) or not isinstance(values, Iterable):
        raise ImagesError(f"expected {what} as a list, an array or a Series, got {type(values).__name__}")
    cells = []
    for place, value in enumerate(values):
        try:
            cells.append(convert(value))
        except ImagesError as error:
            raise ImagesError(f"{what}, row {place} (from 0): {error}") from None
    return cells


def _path(value: object) -> Any:
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ImagesError(f"expected a path, found {value!r}")
    text = os.fspath(value)
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ImagesError(f"expected a path, found characters in {value!r:.80} that no file name can have") from None
    return str(expanded(text)) if text.startswith("~") else str(text)


def _label(value: object) -> Any:
    if _is_missing(value):
        raise ImagesError(f"expected a label, found {value!r}")
    return _name(value, "label")


def _group(value: object) -> Any:
    return None if _is_missing(value) else _name(value, "group")


def _split(value: object) -> Any:
    return None if _is_missing(value) else _known_split(value, split_named(value) if isinstance(value, str) else None)


def _known_split(value: object, split: str | None) -> str:
    if split is None:
        raise ImagesError(f"expected a split train, val or test, found {value!r}")
    return split


def _name(value: object, kind: str) -> str:
    """Return a text or a number as a stripped name."""
    with suppress(AttributeError, ValueError):
        value = value.item()  # type: ignore[attr-defined]  # a scalar of NumPy
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str | int | float):
        raise ImagesError(f"expected a {kind}, found {value!r}")
    name = str(value).strip()
    if not is_unicode(name) or "\n" in name or "\r" in name:
        raise ImagesError(f"expected a {kind} in Unicode on one line, found {name!r}")
    return name


def _is_missing(value: object) -> bool:
    """Return whether a cell is empty: None, NaN, or pandas' NaT and NA, which are not equal to themselves."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        return not isinstance(value, Sequence) and not hasattr(value, "__len__")  # pandas' NA is neither true nor false


def _is_flag(labels: object) -> bool:
    return isinstance(plain(labels), bool)


def _relative_path(home: str, path: str) -> str:
    """Return a path relative to a folder without links; absolute if there is none, for example on another drive."""
    with suppress(ValueError):
        return os.path.relpath(os.path.abspath(path), home)
    return os.path.abspath(path)

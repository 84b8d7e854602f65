"""IMAGES becomes a dataset: every file is read, or its digest recalled."""

import os
import warnings
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from bottleneck.errors import BottleneckWarning, ImageError, ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.digest import Signature, digest_file
from bottleneck.images.file_index import FileIndex, conflicts, index_files, index_listed
from bottleneck.images.listing import DataFrameLike, Images, Values, listed
from bottleneck.images.splits import Shares

Progress = Callable[[str, int, int], None]  # stage, done, total

_BATCH = 1024  # files between two reports of progress


def scan(
    images: Images | None = None,
    *,
    paths: Values | DataFrameLike | None = None,
    labels: bool | Values = True,
    splits: Values | None = None,
    groups: Values | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    group_column: str | None = None,
    split: str = "80/10/10",
    cache: str | os.PathLike[str] | None = "cache",
    exclude: Collection[str | os.PathLike[str]] = ("runs",),
    rehash: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Find the images of a folder, a table, a single file or lists, and name each by its digest.

    Parameters
    ----------
    images : path or DataFrame
        A folder of class folders; a folder of ``train``, ``val``, ``test`` folders of class folders; a CSV or DataFrame
        with columns ``path,label[,split][,group]``; or, for images without labels, any folder or file.
    paths : list of paths, optional
        Instead of `images`: a list, array or Series. The dataset keeps its order.
    labels : bool or list
        Of `paths`. Else whether folders, or the table, give labels; if not, every image below `images` is taken.
    splits, groups : list, optional
        Of `paths`; None and NaN stand for none.
    path_column, label_column, split_column, group_column : str, optional
        Columns of the table that are called otherwise. One that says yes or no (``is_valid``) may be a split, too.
    split : str
        Percentages ``train/val/test`` for the images whose split is not given.
    cache : path or None
        Where the memo of digests is kept; also never scanned. None for no memo.
    exclude : collection of paths
        Folders that are never scanned.
    rehash : bool
        Whether every file is read again, whatever is remembered of its digest; what is remembered is replaced.
    progress : callable, optional
        Called with a stage ("scan"), how many files are done, and how many there are.

    Returns
    -------
    Dataset
        Its ``failures`` hold the files that could not be read, its ``ignored`` what was passed over.

    Raises
    ------
    ImagesError
        If `images` does not exist, holds no image, or, with labels, gives only one class; if a table is broken, or
        lists are not of one length.

    Warns
    -----
    BottleneckWarning
        For an empty class folder, names that are nearly the same, columns of a table that are not used though they look
        like labels, splits or groups, and the same bytes under two labels.
    """
    named = Columns(path_column, label_column, split_column, group_column)
    shares = Shares.parse(split)
    rows = listed(images, paths=paths, labels=labels, splits=splits, groups=groups, columns=named, cache=cache)
    if rows is not None:
        found = index_listed(rows, shares=shares, cache=cache)
    elif isinstance(images, str | os.PathLike):
        found = index_files(images, labels=bool(labels), shares=shares, cache=cache, exclude=exclude, columns=named)
    else:
        raise ImagesError(f"expected a path, paths or a table of images, got {type(images).__name__}")
    if rehash:
        found.forget()
    read_unknown(found, progress)
    dataset = found.dataset()
    if message := conflicts(dataset, "The card of a run lists them"):
        warnings.warn(message, BottleneckWarning, stacklevel=2)
    return dataset


def read_unknown(found: FileIndex, progress: Progress | None = None) -> None:
    """Read the files of an index whose digests are not known."""
    unknown = found.unknown()
    known = len(found.paths) - len(unknown)
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        for start in range(0, len(unknown), _BATCH):
            rows = unknown[start : start + _BATCH]
            for row, outcome in zip(rows, pool.map(_try_digest, (found.paths[row] for row in rows)), strict=True):
                if isinstance(outcome, ImageError):
                    found.fail(row, outcome)
                else:
                    found.learn(row, *outcome)
            if progress:
                progress("scan", known + start + len(rows), len(found.paths))
    found.save()


def _try_digest(path: str) -> tuple[bytes, Signature, float] | ImageError:
    try:
        return digest_file(path)
    except ImageError as error:
        return error

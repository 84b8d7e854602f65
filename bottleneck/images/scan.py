"""Scan IMAGES into a dataset: compute the digest of every file, or look it up."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from bottleneck.errors import ImageError, ImagesError
from bottleneck.images.columns import Columns
from bottleneck.images.dataset import Dataset
from bottleneck.images.digest import Signature, digest_file
from bottleneck.images.file_index import FileIndex, conflicts, index_files, index_listed
from bottleneck.images.listing import DataFrameLike, Images, Values, listed
from bottleneck.images.splits import Shares
from bottleneck.utils.warn import warn

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
    """Find the images of a folder, a table, a single file or lists, and compute their digests.

    Parameters
    ----------
    images : path or DataFrame
        A folder of class folders; a folder of ``train``, ``val``, ``test`` folders of class folders; a CSV or DataFrame
        with columns ``path,label[,split][,group]``; or, for images without labels, any folder or file.
    paths : list of paths, optional
        Instead of `images`: a list, array or Series. The dataset keeps its order.
    labels : bool or list
        Labels of `paths`; or whether folders or the table give labels. If False, every image in `images` is included.
    splits, groups : list, optional
        Splits and groups of `paths`; None and NaN mean none.
    path_column, label_column, split_column, group_column : str, optional
        Columns of the table with other names. A boolean column (``is_valid``) may also be the split.
    split : str
        Percentages ``train/val/test`` for the images without a given split.
    cache : path or None
        Folder of the memo of digests, which is never scanned. None for no memo.
    exclude : collection of paths
        Folders to skip.
    rehash : bool
        Whether to read every file again and update the memo.
    progress : callable, optional
        Called with the stage ("scan"), the number of files that are done, and the number of all files.

    Returns
    -------
    Dataset
        ``failures`` lists the files that could not be read, ``ignored`` counts the skipped files.

    Raises
    ------
    ImagesError
        If `images` does not exist, contains no image or, with labels, only one class; if a table is invalid, or lists
        differ in length.

    Warns
    -----
    BottleneckWarning
        For an empty class folder, names that are nearly equal, unused columns of a table that look like labels, splits
        or groups, and the same bytes with two labels.
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
        warn(message)
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
                    found.record_failure(row, outcome)
                else:
                    found.record_digest(row, *outcome)
            if progress:
                progress("scan", known + start + len(rows), len(found.paths))
    found.save()


def _try_digest(path: str) -> tuple[bytes, Signature, float] | ImageError:
    try:
        return digest_file(path)
    except ImageError as error:
        return error

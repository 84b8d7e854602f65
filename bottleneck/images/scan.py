"""IMAGES becomes a dataset: every file is read, or its digest recalled."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from bottleneck.errors import ImageError
from bottleneck.images.dataset import Dataset
from bottleneck.images.digest import Signature, digest_file
from bottleneck.images.splits import Shares
from bottleneck.images.survey import Survey, survey

Progress = Callable[[str, int, int], None]  # stage, done, total

_BATCH = 1024  # files between two reports of progress


def scan(
    images: str | os.PathLike[str],
    *,
    labels: bool = True,
    split: str = "80/10/10",
    cache: str | os.PathLike[str] | None = "cache",
    exclude: Collection[str | os.PathLike[str]] = ("runs",),
    progress: Progress | None = None,
) -> Dataset:
    """Find the images of a folder, a CSV or a single file, and name each by its digest.

    Parameters
    ----------
    images : path
        A folder of class folders; a folder of ``train``, ``val``, ``test`` folders of class folders; a CSV with
        columns ``path,label[,split][,group]``; or, for images without labels, any folder or file.
    labels : bool
        Whether folders, or the CSV, give labels. If not, every image below `images` is taken.
    split : str
        Percentages ``train/val/test`` for the images whose split is not given.
    cache : path or None
        Where the memo of digests is kept; also never scanned. None for no memo.
    exclude : collection of paths
        Folders that are never scanned.
    progress : callable, optional
        Called with a stage ("scan"), how many files are done, and how many there are.

    Returns
    -------
    Dataset
        Its ``failures`` hold the files that could not be read, its ``ignored`` what was passed over.

    Raises
    ------
    ImagesError
        If `images` does not exist, holds no image, or, with labels, gives only one class.

    Warns
    -----
    BottleneckWarning
        For an empty class folder, and for the same bytes under two labels.
    """
    found = survey(images, labels=labels, shares=Shares.parse(split), cache=cache, exclude=exclude)
    read_unknown(found, progress)
    return found.dataset()


def read_unknown(found: Survey, progress: Progress | None = None) -> None:
    """Read those files of a survey whose digests are not known."""
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

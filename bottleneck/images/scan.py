"""IMAGES becomes a dataset: find the files, read or recall their digests, say what is odd."""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bottleneck.errors import BottleneckWarning, ImageError, ImagesError
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.digest import DigestMemo, Signature, digest_file, signature
from bottleneck.images.folders import Found, find_labelled, find_unlabelled
from bottleneck.images.splits import Shares
from bottleneck.images.table import find_listed

Progress = Callable[[str, int, int], None]  # stage, done, total

_SHOWN = 5  # how many paths a message names
_BATCH = 1024  # files between two writes to the memo


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
    source = Path(images)
    skip = {Path(folder).resolve() for folder in (*exclude, *([cache] if cache is not None else []))}
    found = _find(source, labels, skip)
    memo = DigestMemo(Path(cache) / "digests.sqlite") if cache is not None else None
    digests, failures = _digests(found.paths, memo, progress)
    rows = [row for row, digest in enumerate(digests) if digest is not None]
    dataset = Dataset(
        source=source.absolute(),
        paths=tuple(found.paths[row] for row in rows),
        digests=np.frombuffer(b"".join(digest for digest in digests if digest), np.uint8).reshape(-1, 32),
        labels=tuple(found.labels[row] for row in rows),
        given_splits=tuple(found.splits[row] for row in rows),
        groups=tuple(found.groups[row] for row in rows),
        shares=Shares.parse(split),
        failures=(*found.failures, *failures),
        ignored=dict(sorted(found.ignored.items())),
    )
    _check(dataset, found, source)
    return dataset


def _find(source: Path, labels: bool, exclude: Collection[Path]) -> Found:
    if os.path.isdir(source):  # unlike Path.is_dir, no error for a name that is too long
        return find_labelled(source, exclude) if labels else find_unlabelled(source, exclude)
    if source.suffix.lower() == ".csv" and os.path.isfile(source):
        return find_listed(source, labelled=labels)
    if not os.path.lexists(source):
        raise ImagesError(f"expected a folder of images, a CSV or an image; {source} does not exist")
    found = Found()
    found.add(str(source), None)
    return found


def _digests(
    paths: list[str], memo: DigestMemo | None, progress: Progress | None
) -> tuple[list[bytes | None], list[Failure]]:
    """Return each path's digest (None where it cannot be read), and the failures."""
    full = [os.path.abspath(path) for path in paths]
    known = memo.lookup(dict(_signatures(full))) if memo else {}
    digests: list[bytes | None] = [known.get(path) for path in full]
    unknown = [row for row, digest in enumerate(digests) if digest is None]
    failures: list[Failure] = []
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) * 2)) as pool:
        for start in range(0, len(unknown), _BATCH):
            rows = unknown[start : start + _BATCH]
            read: list[tuple[str, Signature, bytes, float]] = []
            for row, outcome in zip(rows, pool.map(_try_digest, (full[row] for row in rows)), strict=True):
                if isinstance(outcome, ImageError):
                    failures.append(Failure(paths[row], outcome.code, str(outcome)))
                else:
                    digests[row] = outcome[0]
                    read.append((full[row], outcome[1], outcome[0], outcome[2]))
            if memo:
                memo.remember(read)
            if progress:
                progress("scan", len(paths) - len(unknown) + start + len(rows), len(paths))
    return digests, failures


def remember_digests(paths: Collection[str], cache: str | os.PathLike[str]) -> None:
    """Put into the memo those of `paths` that were too young when they were scanned and are settled now."""
    _digests(list(paths), DigestMemo(Path(cache) / "digests.sqlite"), None)


def _signatures(paths: list[str]) -> Iterator[tuple[str, Signature]]:
    for path in paths:
        try:
            yield path, signature(os.stat(path))
        except (OSError, ValueError):
            continue  # reading it will say why


def _try_digest(path: str) -> tuple[bytes, Signature, float] | ImageError:
    try:
        return digest_file(path)
    except ImageError as error:
        return error


def _check(dataset: Dataset, found: Found, source: Path) -> None:
    if not dataset.paths and not dataset.failures:
        raise ImagesError(f"expected images in {source}, found none{_ignored(dataset.ignored)}")
    classes = {label for label in found.labels if label is not None}
    if len(classes) == 1:
        raise ImagesError(
            f"expected at least two classes in {source}, found one: {classes.pop()!r}. Give each class a folder "
            f"of its own, or use --no-labels to take every image as it is"
        )
    if found.empty_classes:
        _warn(f"empty class folder: {', '.join(found.empty_classes)}")
    for paths in two_labels(dataset).values():
        _warn(f"the same image under two labels (fit leaves it out): {_some(paths)}")


def two_labels(dataset: Dataset) -> dict[bytes, list[str]]:
    """Return digest -> paths of the images that stand under more than one label."""
    labels: defaultdict[bytes, set[str | None]] = defaultdict(set)
    paths: defaultdict[bytes, list[str]] = defaultdict(list)
    for row, path, label in zip(dataset.digests, dataset.paths, dataset.labels, strict=True):
        digest = row.tobytes()
        labels[digest].add(label)
        paths[digest].append(path)
    return {digest: paths[digest] for digest, found in labels.items() if len(found) > 1}


def _ignored(ignored: dict[str, int]) -> str:
    if not ignored:
        return ""
    listed = ", ".join(f"{count} {reason}" for reason, count in ignored.items())
    return f"; passed over {listed}. An image is a file whose name ends in .jpg, .png, .webp, .tif, .bmp, .ppm or .pgm"


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _warn(message: str) -> None:
    warnings.warn(message, BottleneckWarning, stacklevel=3)

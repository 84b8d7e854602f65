"""The thumbnails of a dataset: pictures are decoded once, in threads and bounded memory, and remembered by digest."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from bottleneck.errors import ImageError
from bottleneck.extraction.job import Limits
from bottleneck.extraction.loading import Loader
from bottleneck.extraction.memory import MemoryBudget, usual_memory
from bottleneck.extraction.picture_reader import PictureReader
from bottleneck.images.dataset import Dataset, Failure
from bottleneck.images.keys import DigestSet
from bottleneck.images.scan import Progress
from bottleneck.images.thumbnail_memo import ThumbnailMemo
from bottleneck.images.thumbnails import PREPROCESSING, Thumbnail, Thumbnails, decode_thumbnail
from bottleneck.images.undecodable import UndecodableMemo

STAGE = "thumbnails"
_BATCH = 512  # images that are remembered at once


def thumbnails(
    dataset: Dataset,
    cache: Path,
    *,
    memory: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    loader: Callable[[MemoryBudget], Loader] = lambda budget: Loader(budget, PREPROCESSING, decode=decode_thumbnail),
) -> Thumbnails:
    """Return the thumbnails of a dataset; only those that the cache lacks are decoded.

    Parameters
    ----------
    dataset : Dataset
    cache : Path
        The folder with the memo of thumbnails.
    memory, threads : int, optional
        Bytes for files and pixels, and threads that decode, as for `bottleneck.extract`.
    progress : callable, optional
        Called with the stage, the number of images done, and the number of images.
    loader : callable
        Returns the loader of pictures for a memory budget.

    Returns
    -------
    Thumbnails
        Of each row of the dataset. An image that cannot be read or decoded is listed in the failures.
    """
    limits = Limits(memory=memory, threads=threads)
    budget = usual_memory() if limits.memory is None else limits.memory
    memo, errors = ThumbnailMemo.in_cache(cache), UndecodableMemo(cache / "digests.sqlite").load()
    first, found = dataset.first_rows().tolist(), Thumbnails.unknown(len(dataset))
    with ThreadPoolExecutor(limits.threads or os.cpu_count() or 1) as pool:
        reader = PictureReader(dataset, loader(MemoryBudget(budget)))
        for start in range(0, len(first), _BATCH):
            rows = {dataset.digests[row].tobytes(): row for row in first[start : start + _BATCH]}
            known = memo.get(list(rows))
            lacking = {key: row for key, row in rows.items() if key not in known and key not in errors}
            fresh: dict[bytes, Thumbnail] = {}
            for key, read in zip(lacking, pool.map(reader.read, lacking.values()), strict=True):
                if isinstance(read, ImageError):
                    errors[key] = read
                else:
                    fresh[key] = Thumbnail(read.pixels, *read.size)
            memo.put(fresh)
            for key, one in (known | fresh).items():
                found.put(rows[key], one)
            if progress:
                progress(STAGE, start + len(rows), len(first))
    found = found.take(DigestSet(dataset.digests).find(dataset.digests)) if len(first) < len(dataset) else found
    return replace(found, failures=tuple(_failures(dataset, found, errors)))


def remembered_thumbnails(dataset: Dataset, cache: Path) -> Thumbnails:
    """Return the thumbnails that the cache has, without decoding any."""
    memo, found = ThumbnailMemo.in_cache(cache), Thumbnails.unknown(len(dataset))
    for start in range(0, len(dataset), _BATCH):
        rows: dict[bytes, list[int]] = {}
        for row, digest in enumerate(dataset.digests[start : start + _BATCH], start):
            rows.setdefault(digest.tobytes(), []).append(row)
        for key, one in memo.get(list(rows)).items():
            for row in rows[key]:
                found.put(row, one)
    return found


def _failures(dataset: Dataset, found: Thumbnails, errors: dict[bytes, ImageError]) -> Iterator[Failure]:
    for row in np.flatnonzero(~found.known).tolist():
        key = dataset.digests[row].tobytes()
        yield Failure(dataset.paths[row], errors[key].code, str(errors[key]), key.hex())
